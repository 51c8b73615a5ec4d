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

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
