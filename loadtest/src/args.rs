//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::dialect::Dialect;
use crate::dialect::numbers::MIN_PAYLOAD;

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
    /// Deliveries per server CPU second, in a closed loop, beside the raw limit
    Fanout(FanoutArgs),
    /// The raw limit alone: what a bare send(2) loop reaches on this machine
    Limit(LimitArgs),
    /// Memory per idle connection
    Idle(IdleArgs),
    /// The sending side of the raw limit, started by `fanout` and `limit`
    #[command(hide = true)]
    LimitSender(LimitSenderArgs),
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
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) cores: CoreArgs,
    /// Write every run and the medians to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
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
    #[command(flatten)]
    pub(crate) cores: CoreArgs,
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
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) cores: CoreArgs,
    /// Write the readings to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
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

/// Which gateway is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// The gateway to start
    #[arg(long, value_name = "PATH", default_value = "target/release/fanwire")]
    pub(crate) server_bin: PathBuf,
    /// Use a server that runs already (ws://host:port/path, `{channel}` in it for the channel); it must allow anonymous
    /// clients
    #[arg(long, conflicts_with = "server_bin")]
    pub(crate) url: Option<String>,
    /// The path on that server for those who publish, if it is another one
    #[arg(long, requires = "url")]
    pub(crate) publish_path: Option<String>,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dialect: Dialect,
    /// That gateway's process, for its CPU time and memory
    #[arg(long, requires = "url")]
    pub(crate) pid: Option<u32>,
    /// That gateway's address for /metrics
    #[arg(long, requires = "url")]
    pub(crate) ops: Option<SocketAddr>,
}

/// Who runs where: server and client must not share a core.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct CoreArgs {
    /// The core of the server, or of the limit's sender
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// The core of this process
    #[arg(long, default_value_t = 1)]
    pub(crate) client_core: usize,
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
}
