//! Publishes to a Fanwire gateway, and subscribes to its channels.
//!
//! - [`Api`]: for backends. Calls the control API over HTTP: [`Api::publish`] and everything else it has.
//! - [`Publisher`]: for backends that publish much. One gRPC call that is made anew when it breaks, with many publications under way.
//! - [`Client`]: for subscribers. One WebSocket connection that comes back by itself, with any number of [`Subscription`]s that go
//!   on where they were.
//!
//! Publishing:
//!
//! ```no_run
#![doc = include_str!("../snippets/publish.rs")]
//! ```
//!
//! Publishing much:
//!
//! ```no_run
#![doc = include_str!("../snippets/stream.rs")]
//! ```
//!
//! Subscribing:
//!
//! ```no_run
#![doc = include_str!("../snippets/subscribe.rs")]
//! ```
//!
//! What a subscriber can rely on is what the channel promises (docs/reliability.md). With recovery on, publications come in order,
//! each once, across lost connections, as long as [`Recovery::Whole`] is what a [`Event::Subscribed`] says; with
//! [`Recovery::Lost`] something is missing between what came before and what comes after.

mod api;
mod backoff;
mod channel;
mod client;
mod codec;
mod config;
mod dial;
mod driver;
mod error;
mod event;
mod http_client;
#[allow(unreachable_pub, missing_docs, reason = "generated")]
mod proto;
mod publish;
mod publisher;
mod session;
mod subscription;
mod tls;

pub use api::{Api, History, HistoryQuery, Member, PresenceStats, Stored};
pub use client::Client;
pub use config::{Config, TokenFor};
pub use error::{BoxError, Error, Refusal};
pub use event::{ClientInfo, Event, Position, Publication, Recovery, Subscribed};
pub use publish::Publish;
pub use publisher::{Acknowledgement, Publisher, PublisherConfig};
pub use subscription::{Subscribe, Subscription};
pub use tls::Roots;
