//! `fanwire-loadtest`: measures a running gateway from outside, over its own client protocol, and other servers over theirs.
//!
//! | file | owns |
//! |---|---|
//! | `args` | the command line |
//! | `fanout` | deliveries per server CPU second, in a closed loop, beside the raw limit |
//! | `closed_loop` | its one publisher and its many subscribers, every delivery checked |
//! | `limit` | the raw limit: what a bare send(2) loop reaches on this machine |
//! | `idle` | memory per idle connection |
//! | `server` | the gateway process, or the address of one that runs already |
//! | `client` | opening sessions |
//! | `dialect` | what differs between the protocols of servers |
//! | `mux` | many sockets on one thread |
//! | `frames` | WebSocket frames, and counting publications in what a read brought |
//! | `sample` | what a span of time held |
//! | `meter` | CPU time, memory and segments, as the kernel counts them |
//! | `stats`, `report` | quantiles; tables and JSON |
//!
//! Exit code 0: measured. 1: the gateway broke a promise (lost, repeated, reordered, refused or
//! stalled). 2: the measurement could not be made.

mod args;
mod client;
mod clock;
mod closed_loop;
mod dialect;
mod error;
mod fanout;
mod frames;
mod http;
mod idle;
mod limit;
mod meter;
mod mux;
mod report;
mod sample;
mod server;
mod stats;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Fanout(args) => fanout::run(&args),
        Command::Limit(args) => limit::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::LimitSender(args) => limit::sender::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanwire-loadtest: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
