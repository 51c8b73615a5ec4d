//! What every [`Broker`](fanwire_node::Broker) and every [`Presence`](fanwire_node::Presence) must do.
//!
//! The suites run inside a [`tokio::task::LocalSet`], on a paused clock or a real one. What is delivered is observed where
//! it matters: behind a worker, at fake connections.

mod broker;
mod broker_of_two;
mod presence;

pub use broker::broker;
pub use broker_of_two::broker_of_two;
pub use presence::{Pair, presence, presence_of_two};
