//! A cluster in one thread, on a paused clock: real nodes over a server in memory, and everything that can go wrong between
//! them, as a seed decides.
//!
//! Real are dispatcher, sequencer, workers, clients and recovery. Simulated are the server with its restarts and losses
//! ([`Server`]), the ways between it and the nodes, the driver of each node's connection ([`SimBroker`]), and the client
//! libraries. [`run`] plays one schedule, and the [`oracle`](crate::oracle) judges it.

mod broker;
mod client;
mod cluster;
mod faults;
mod mutant;
mod server;

pub use broker::SimBroker;
pub use cluster::{Run, run};
pub use mutant::Mutant;
pub use server::{GOOD, Memory, Server, Way};
