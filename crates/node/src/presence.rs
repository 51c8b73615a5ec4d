//! Who is in a channel.

use std::sync::Arc;

use fanwire_wire::{Channel, ClientInfo};
use futures_util::future::BoxFuture;

use crate::broker::Error;

/// Knows which clients of the whole cluster are in a channel.
pub trait Presence: Send + Sync + 'static {
    /// Adds a client to a channel, or replaces what is known of it there.
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<(), Error>>;

    /// Removes a client from a channel.
    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<(), Error>>;

    /// Reads everyone in a channel.
    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>>;

    /// Counts a channel's clients and users.
    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>>;
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Connections.
    pub clients: usize,
    /// Different user ids among them.
    pub users: usize,
}
