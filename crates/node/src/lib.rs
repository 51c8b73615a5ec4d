//! A Fanwire node: workers, their subscribers, and the path of a publication from the broker to the sockets.
//!
//! Opens no sockets; knows no HTTP and no protocol by name.
//!
//! - [`Node`]: what workers and control plane share; [`Worker`]: one thread and the connections it owns
//! - [`Client`]: the core's end of one connection, with what a session may ask for
//! - [`Protocol`], [`Session`], [`Encoder`]: what a client protocol implements
//! - [`Capability`]: what a token permits beside the namespaces
//! - [`Broker`], [`Presence`], [`Authorizer`]: what the node leans on; [`MemoryBroker`] and [`MemoryPresence`] for one node
//! - [`Hooks`]: backends that decide about clients
//! - [`Socket`]: what a transport implements
//! - `drain`, `hand_over`, `rebalance`: why clients move to other nodes; `moving`: how fast
//! - `admission`: how much a node takes in a second; `shedding`: what it gives up when it runs out of something
//! - `cluster`: the other nodes, what they are told and asked
//!
//! The path: `Node::publish` → [`Broker`] → [`Dispatcher`] (one letter for each interested worker) →
//! the worker's hub (encode once, append to the channel's turn batch) → sweep (one write per connection) → outlet.

mod admission;
pub mod authorizer;
pub mod broker;
mod burst;
pub mod capability;
mod client;
pub mod clock;
mod cluster;
pub mod config;
mod drain;
mod hand_over;
pub mod hooks;
mod hub;
mod id;
mod interest;
mod lists;
mod mailbox;
mod memory;
mod meter;
mod metrics;
mod moving;
mod namespace;
mod node;
mod outlet;
pub mod presence;
pub mod protocol;
mod rebalance;
mod report;
mod revocations;
pub mod sequencer;
mod shedding;
mod subscription;
mod sweep;
mod users;
mod wheel;
mod worker;

pub use admission::{AdmissionConfig, TooMany};
pub use authorizer::Authorizer;
pub use broker::Broker;
pub use burst::SEND;
pub use capability::{Action, Capability};
pub use client::{
    Client, ClientGuard, ConnectRequest, Connected, Failure, HistoryRequest, Recovery, ServerSide, SubscribeRequest,
    Subscribed,
};
pub use cluster::{
    ChannelQuery, ChannelSurvey, ConnectionSurvey, Missing, NodeReport, NodeSurvey, NodeView, ReportSurvey,
};
pub use config::{ClientConfig, Config};
pub use drain::{DrainConfig, Phase};
pub use fanwire_wire::Selection;
pub use fanwire_wire::cluster::ConnectionQuery;
pub use hooks::Hooks;
pub use interest::Dispatcher;
pub use memory::{MemoryBroker, MemoryPresence};
pub use namespace::{Namespace, Permission, RecoveryMode};
pub use node::{Counts, Node, Parts, Publish, Seat};
pub use outlet::Socket;
pub use presence::Presence;
pub use protocol::{Encoder, Protocol, Session};
pub use rebalance::Rebalance;
pub use sequencer::Sequencer;
pub use shedding::{Relief, SheddingConfig};
pub use worker::Worker;
