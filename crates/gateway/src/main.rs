//! `fanwire`: the gateway's binary.

mod app;
mod cli;
mod config;
mod health;
mod listeners;
mod memory;
mod ops;
mod pages;
mod reload;
mod remote;
mod status;
mod telemetry;
mod traces;

use std::process::ExitCode;

use clap::Parser;

/// What is freed goes back to the system, a few seconds later (docs/adr/0014-allocator.md): how much memory is in use decides
/// what a node gives up.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
