//! The broker and the presence on real servers, which each test starts for itself. One program for all of them: most wait,
//! and can do so together.
//!
//! - what every broker and presence must do, wherever it runs: [`conformance`], [`access`]
//! - several nodes, many clients: [`nodes`], [`presence`], [`storm`]
//! - what breaks: [`faults`], [`outage`], [`presence_moves`], [`shards`], [`sentinel`], [`cluster`]
//! - the parts of a test: [`server`], [`suite`], [`load`], [`bench`], [`cable`]

#![allow(clippy::large_futures, reason = "a test is one future and runs once")]
#![allow(clippy::print_stdout, reason = "the figures are what some of these tests are for")]

mod access;
mod bench;
mod cable;
mod cluster;
mod conformance;
mod faults;
mod load;
mod nodes;
mod outage;
mod presence;
mod presence_moves;
mod sentinel;
mod server;
mod shards;
mod storm;
mod suite;
