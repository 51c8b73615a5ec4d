//! `fanwire`: the gateway's binary.

mod app;
mod cli;
mod config;
mod demo;
mod listeners;
mod ops;
mod remote;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
