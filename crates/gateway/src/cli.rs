//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::app::{self, Mode};
use crate::config::{self, Config, Mistakes, causes};
use crate::health::{self, Health};
use crate::reload::Source;
use crate::remote::{self, Remote};
use crate::telemetry;

/// A multi-node WebSocket pub/sub gateway.
#[derive(Debug, Parser)]
#[command(name = "fanwire", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the gateway cannot be reached, 4 it said no, 5 no such channel or method";

/// The exit code of wrong usage or configuration.
const WRONG: u8 = 2;

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway to try things out: embedded broker, loopback only, everything allowed, with a demo page
    Dev,
    /// Run a gateway
    Serve {
        /// The configuration file; without one, defaults and environment
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Report everything that is wrong with a configuration
    CheckConfig {
        /// The configuration file; without one, defaults and environment
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print what is found as JSON
        #[arg(long)]
        json: bool,
    },
    /// Publish to a channel
    Publish(remote::Publish),
    /// Show what is published in channels, as it happens
    Subscribe(remote::Subscribe),
    /// List who is in a channel
    Presence(remote::Presence),
    /// Show the latest publications a channel keeps
    History(remote::History),
    /// List the channels with subscribers
    Channels(remote::Channels),
    /// List who is connected, page by page
    Connections(remote::Connections),
    /// List the nodes of a cluster, with what each has
    Nodes(Remote),
    /// Let a node go down: its clients move to the other nodes, as fast as its configuration allows, then it ends
    Drain {
        #[command(flatten)]
        remote: Remote,
        /// The id or the name of the node; without one, the node that is asked
        node: Option<String>,
    },
    /// Even out the clients over the nodes: those that nodes have above the mean are asked to come back
    Rebalance {
        #[command(flatten)]
        remote: Remote,
        /// The most clients that are asked in a second, over all nodes
        #[arg(long, value_name = "CLIENTS", default_value_t = 50.0)]
        rate: f64,
    },
    /// Show what a cluster does, live: nodes, deliveries, hottest channels, slowest clients
    Top(remote::Top),
    /// End a user's connections
    Disconnect(remote::Disconnect),
    /// Refuse a user's tokens issued so far, on all nodes, and end what was begun with them
    Revoke(remote::Revoke),
    /// Let the node that is asked read its configuration again
    Reload {
        #[command(flatten)]
        remote: Remote,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Call any method of the control API
    Call(remote::Call),
    /// Make tokens, and find out what is wrong with one
    #[command(subcommand)]
    Token(remote::Token),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: remote::Shell,
    },
    /// Write the manual pages
    Man {
        /// The folder they are written to
        folder: PathBuf,
    },
    /// Ask a node of this machine whether it is well; exit code 0 if so, else 1
    Health(Health),
    /// Print the commented reference configuration
    DefaultConfig,
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs one command; its exit code is one of [`EXIT_CODES`].
pub(crate) fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Dev => start(read(Config::dev(), None), Mode::Dev, None),
        Command::Serve { config } => {
            let source = move || read(Config::default(), config.as_deref());
            start(source(), Mode::Serve, Some(Arc::new(source)))
        }
        Command::CheckConfig { config, json } => check(config.as_deref(), json),
        Command::Publish(args) => remote::publish(&args),
        Command::Subscribe(args) => remote::subscribe(&args),
        Command::Presence(args) => remote::presence(&args),
        Command::History(args) => remote::history(&args),
        Command::Channels(args) => remote::channels(&args),
        Command::Connections(args) => remote::connections(&args),
        Command::Nodes(remote) => remote::nodes(&remote),
        Command::Drain { remote, node } => remote::drain(&remote, node.as_deref()),
        Command::Rebalance { remote, rate } => remote::rebalance(&remote, rate),
        Command::Top(args) => remote::top(&args),
        Command::Disconnect(args) => remote::disconnect(&args),
        Command::Revoke(args) => remote::revoke(&args),
        Command::Reload { remote, dry_run } => remote::reload(&remote, dry_run),
        Command::Call(args) => remote::call(&args),
        Command::Token(args) => remote::token(&args, |file| read(Config::default(), file)),
        Command::Completions { shell } => remote::completions(Cli::command(), shell),
        Command::Man { folder } => remote::man(Cli::command(), &folder),
        Command::Health(health) => health::run(&health),
        Command::DefaultConfig => print(include_str!("../../../deploy/fanwire.toml")),
        Command::Version { json: true } => print(concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n")),
        Command::Version { json: false } => print(concat!("fanwire ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn check(file: Option<&Path>, json: bool) -> ExitCode {
    let mistakes = match read(Config::default(), file) {
        Ok(_) if !json => return print("configuration is fine\n"),
        Ok(_) => Mistakes(Vec::new()),
        Err(mistakes) if !json => return complain(&mistakes),
        Err(mistakes) => mistakes,
    };
    let good = mistakes.0.is_empty();
    let printed = print(&format!("{}\n", serde_json::json!({ "good": good, "mistakes": mistakes.0 })));
    if good { printed } else { ExitCode::from(WRONG) }
}

fn start(config: Result<Config, Mistakes>, mode: Mode, source: Option<Source>) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(mistakes) => return complain(&mistakes),
    };
    telemetry::log(&config.log);
    match app::run(&config, mode, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(app::Error::Config(mistakes)) => complain(&mistakes),
        Err(error) => {
            // There is nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "fanwire: {}", causes(&error));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the configuration loader's only way to the environment")]
fn read(defaults: Config, file: Option<&Path>) -> Result<Config, Mistakes> {
    config::load(defaults, file, std::env::vars())
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(mistakes: &Mistakes) -> ExitCode {
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "fanwire: {mistakes}");
    ExitCode::from(WRONG)
}
