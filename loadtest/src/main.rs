//! `fanwire-loadtest`: measures a running gateway from outside, over its own client protocol, and other servers over theirs.
//!
//! | file | owns |
//! |---|---|
//! | `args` | the command line |
//! | `scenario`, `assertion` | a scenario file, and what it demands |
//! | `engine` | one scenario after the other: start, run, judge, report |
//! | `kind` | the kinds of load, a file each |
//! | `server`, `process` | the gateways under test, started here or running already |
//! | `client`, `token` | opening sessions |
//! | `dialect` | what differs between the protocols of servers |
//! | `traffic`, `layout` | publications to subscribers, every delivery checked |
//! | `mux` | many sockets on one thread |
//! | `frames` | WebSocket frames, and counting publications in what a read brought |
//! | `limit`, `floor` | what the machine and a Redis allow, measured in the same run |
//! | `sample`, `monitor` | what a span of time held; how it went over time |
//! | `meter`, `metrics` | CPU time, memory and segments, as the kernel counts them; the servers' own counters |
//! | `figure`, `outcome`, `stats` | figures with their names and units, runs and medians, quantiles |
//! | `progress`, `report`, `html`, `chart` | what people see, during the run and afterwards |
//!
//! Exit code 0: measured, and all as demanded. 1: the gateway broke a promise (lost, repeated, reordered, refused or stalled), or
//! an assertion did not hold. 2: the measurement could not be made.

mod args;
mod assertion;
mod chart;
mod client;
mod clock;
mod dialect;
mod engine;
mod error;
mod figure;
mod floor;
mod frames;
mod html;
mod http;
mod kind;
mod layout;
mod limit;
mod meter;
mod metrics;
mod monitor;
mod mux;
mod outcome;
mod process;
mod progress;
mod report;
mod sample;
mod scenario;
mod server;
mod stats;
mod token;
mod traffic;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Run(args) => engine::run(&args),
        Command::Fanout(args) => args.scenario().and_then(|scenario| engine::run_short(scenario, &args.output)),
        Command::Idle(args) => args.scenario().and_then(|scenario| engine::run_short(scenario, &args.output)),
        Command::Limit(args) => limit::run(&args),
        Command::LimitSender(args) => limit::sender::run(&args),
        Command::LimitAcceptor => limit::acceptor::run(),
        Command::LimitRelay { to } => limit::relay::run(to),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanwire-loadtest: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
