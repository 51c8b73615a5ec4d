//! Who is in a channel.

use std::sync::Arc;

use fanwire_wire::{Channel, ClientInfo};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::broker::Error;

/// Knows which clients of the whole cluster are in a channel, and announces who comes and goes.
///
/// Two things may be known of a client in a channel: that it is *listed* ([`Presence::add`]) and that it was *announced*
/// ([`Presence::announce`]). [`Presence::remove`] ends both. Every call can be repeated without harm. The calls for one
/// client and channel follow each other, each run to its end: what comes of one that is dropped half-way is found out, and
/// taken back unless it is repeated, some time later.
///
/// A join or leave is published in the same step that changes what is known, whoever makes it (the leaves of a node that
/// died are published by another one), to the subscribers of the channel on all nodes. So for each client, or user, joins and
/// leaves come by turns, a join first.
pub trait Presence: Send + Sync + 'static {
    /// Lists a client, or replaces what is known of it; its user stays the same.
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<Change, Error>>;

    /// Publishes the join of a client, listed or not, unless that was done already.
    fn announce(&self, channel: &Channel, info: Arc<ClientInfo>, per: Per) -> BoxFuture<'_, Result<Change, Error>>;

    /// Removes a client and publishes its leave if its join was.
    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<Change, Error>>;

    /// Reads everyone who is listed in a channel: those who are there all the while once, those who come or go meanwhile
    /// perhaps.
    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>>;

    /// Counts those who are listed in a channel, without reading them.
    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>>;

    /// Counts the listed connections of each of these users, in their order.
    fn connections(&self, channel: &Channel, users: &[String]) -> BoxFuture<'_, Result<Vec<usize>, Error>>;
}

/// What a call changed in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it was so already.
    Nothing,
    /// A connection of a user who has others there.
    Connection,
    /// The first connection of a user there, or the last.
    User,
}

/// What joins and leaves are announced for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Each connection.
    #[default]
    Connection,
    /// Each user: the first announced connection joins, the last one leaves. All who have no user id are one.
    User,
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Connections.
    pub clients: usize,
    /// Different user ids among them.
    pub users: usize,
}
