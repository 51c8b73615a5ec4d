//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::dialect::Dialect;
use crate::dialect::numbers::MIN_PAYLOAD;
use crate::error::Error;
use crate::scenario::{FanOut, Idle, Load, Scenario, Span};

/// Measures a running Fanwire gateway from outside.
#[derive(Debug, Parser)]
#[command(name = "fanwire-loadtest", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scenario files: loadtest/scenarios/*.toml, or your own
    Run(RunArgs),
    /// Deliveries per server CPU second, in a closed loop, beside the raw limit
    Fanout(FanoutArgs),
    /// Memory per idle connection
    Idle(IdleArgs),
    /// The raw limit alone: what a bare send(2) loop reaches on this machine
    Limit(LimitArgs),
    /// The sending side of the raw limit, started where it is measured
    #[command(hide = true)]
    LimitSender(LimitSenderArgs),
    /// The same for handshakes
    #[command(hide = true)]
    LimitAcceptor,
    /// A process that passes bytes on to an address
    #[command(hide = true)]
    LimitRelay {
        /// Where to
        to: SocketAddr,
    },
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Scenario files, run one after the other
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Sets a key on top of each file: load.fan-out.seconds=1
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `fanout`.
#[derive(Debug, clap::Args)]
pub(crate) struct FanoutArgs {
    /// Connections, each subscribed to the one channel
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    /// Bytes of a publication's data
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(MIN_PAYLOAD as i64..=60_000))]
    pub(crate) payload: u32,
    /// Messages in flight; several values are measured one after the other
    #[arg(long, default_value = "1,4,16,64", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) window: Vec<u32>,
    /// Length of one measurement, without its warm-up
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Repetitions, server and limit in turn; the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Measure the server only
    #[arg(long)]
    pub(crate) skip_limit: bool,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `limit`.
#[derive(Debug, clap::Args)]
pub(crate) struct LimitArgs {
    /// Sockets to send to
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    /// Bytes of one frame on the wire, its header included
    #[arg(long, default_value_t = 176, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub(crate) frame_bytes: u32,
    /// Frames per write; a fraction is reached by mixing its neighbours
    #[arg(long, default_value = "1,4,16,64", value_delimiter = ',', value_parser = frames_per_write)]
    pub(crate) frames: Vec<f64>,
    /// Length of one measurement, without its warm-up
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// The core of the sender
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// The core of this process
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: usize,
    /// Write the runs to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `idle`.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleArgs {
    /// Connections to hold, each with one subscription
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Channels that the connections are spread over
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) channels: u32,
    /// How long the connections rest before the second reading; pings are answered meanwhile, so it
    /// should exceed the server's ping interval
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub(crate) settle: Duration,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of `limit-sender`.
#[derive(Debug, clap::Args)]
pub(crate) struct LimitSenderArgs {
    /// Sockets to accept
    #[arg(long)]
    pub(crate) connections: u32,
    /// Bytes of one frame
    #[arg(long)]
    pub(crate) frame_bytes: u32,
}

/// Where the results go, besides the standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// Write all figures and runs to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a report with charts to this file, which needs no other
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Which gateway is measured, and who runs where; on top of what a scenario says.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TargetArgs {
    /// The gateway to start [default: target/release/fanwire]
    #[arg(long, value_name = "PATH")]
    pub(crate) server_bin: Option<PathBuf>,
    /// Use servers that run already (ws://host:port/path, `{channel}` in it for the channel), repeated for each node of a
    /// cluster; they must allow anonymous clients, or tokens signed with the scenario's secret
    #[arg(long, conflicts_with = "server_bin")]
    pub(crate) url: Vec<String>,
    /// The path on those servers for those who publish, if it is another one
    #[arg(long, requires = "url")]
    pub(crate) publish_path: Option<String>,
    /// What the servers speak [default: native]
    #[arg(long, value_enum)]
    pub(crate) dialect: Option<Dialect>,
    /// Those servers' processes, for their CPU time and memory
    #[arg(long, requires = "url")]
    pub(crate) pid: Vec<u32>,
    /// Those servers' addresses for /metrics
    #[arg(long, requires = "url")]
    pub(crate) ops: Vec<SocketAddr>,
    /// The core of the server, or of the limit's sender [default: 0]
    #[arg(long)]
    pub(crate) server_core: Option<usize>,
    /// The core of this process: not the server's [default: 1]
    #[arg(long)]
    pub(crate) client_core: Option<usize>,
}

impl TargetArgs {
    /// Puts what was given on top of a scenario.
    pub(crate) fn apply(&self, scenario: &mut Scenario) -> Result<(), Error> {
        let server = &mut scenario.server;
        if let Some(binary) = &self.server_bin {
            server.binary.clone_from(binary);
        }
        if !self.url.is_empty() {
            server.url.clone_from(&self.url);
            server.pid.clone_from(&self.pid);
            server.ops.clone_from(&self.ops);
            // Servers that run already have theirs.
            server.config.clear();
        }
        if self.publish_path.is_some() {
            server.publish_path.clone_from(&self.publish_path);
        }
        server.dialect = self.dialect.unwrap_or(server.dialect);
        server.core = self.server_core.unwrap_or(server.core);
        scenario.client.core = self.client_core.unwrap_or(scenario.client.core);
        scenario.check().map_err(Error::Setup)
    }
}

impl FanoutArgs {
    /// The scenario that they are short for.
    pub(crate) fn scenario(&self) -> Result<Scenario, Error> {
        let load = FanOut {
            subscribers: self.subscribers,
            payload: self.payload,
            window: self.window.clone(),
            seconds: Span(self.seconds),
            rounds: self.rounds,
            limit: !self.skip_limit,
            ..FanOut::default()
        };
        short("Fan-out", Load::FanOut(load), &self.target)
    }
}

impl IdleArgs {
    /// The scenario that they are short for.
    pub(crate) fn scenario(&self) -> Result<Scenario, Error> {
        let load = Idle { connections: self.connections, channels: self.channels, rest: Span(self.settle) };
        short("Idle connections", Load::Idle(load), &self.target)
    }
}

fn short(name: &str, load: Load, target: &TargetArgs) -> Result<Scenario, Error> {
    let mut scenario = Scenario::of(name, load);
    target.apply(&mut scenario)?;
    Ok(scenario)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.1..=600.0).contains(&value) {
        return Err("must lie between 0.1 and 600 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(value))
}

fn frames_per_write(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(1.0..=1024.0).contains(&value) {
        return Err("must lie between 1 and 1024".to_owned());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn windows_are_a_list() {
        let args = Args::parse_from(["fanwire-loadtest", "fanout", "--window", "1,16"]);
        let Command::Fanout(args) = args.command else {
            panic!("wrong command");
        };
        assert_eq!(args.window, [1, 16]);
        assert!(Args::try_parse_from(["fanwire-loadtest", "fanout", "--window", "0"]).is_err());
    }

    #[test]
    fn a_cluster_that_runs_already_replaces_the_one_of_the_scenario() {
        let line = "fanwire-loadtest fanout --url ws://127.0.0.1:1 --url ws://127.0.0.1:2 --pid 7 --ops 127.0.0.1:3 --client-core 5";
        let Command::Fanout(args) = Args::parse_from(line.split(' ')).command else {
            panic!("wrong command");
        };
        let scenario = args.scenario().unwrap();
        assert_eq!((scenario.server.url.len(), &scenario.server.pid[..], scenario.client.core), (2, &[7][..], 5));
    }
}
