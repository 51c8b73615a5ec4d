//! What travels through a channel.

use std::sync::Arc;

use crate::{Channel, Payload, Position};
use bytes::Bytes;

/// One piece of application data, published to a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Where it was published.
    pub channel: Channel,
    /// The data.
    pub payload: Payload,
    /// A name some protocols give their publications.
    pub event: Option<Arc<str>>,
    /// Labels for the application, in the order given.
    pub tags: Arc<[(String, String)]>,
    /// Who published it, if that was a client.
    pub info: Option<ClientInfo>,
    /// The id of the one client that does not get it.
    pub exclude: Option<[u8; 16]>,
    /// Its place in the stream, if the channel keeps one.
    pub stamp: Option<Stamp>,
    /// When the broker took it, in milliseconds of Unix time.
    pub time_ms: i64,
}

/// A publication's place in the stream, and the one it follows.
///
/// Contiguous means that `prev` is the offset one already has: never assume `offset == prev + 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The place.
    pub position: Position,
    /// The offset that stood before it.
    pub prev: u64,
}

/// Who a client is, as other clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClientInfo {
    /// The user's id; empty for an anonymous one.
    pub user: Arc<str>,
    /// The connection's id.
    pub client: Arc<str>,
    /// JSON the application attached to the connection.
    pub conn_info: Option<Bytes>,
    /// JSON the application attached to the subscription.
    pub chan_info: Option<Bytes>,
}

/// What a broker carries to every node with subscribers of a channel.
#[derive(Clone, Debug, PartialEq)]
pub enum Broadcast {
    /// Application data.
    Publication(Arc<Publication>),
    /// A client subscribed.
    Join(Channel, Arc<ClientInfo>),
    /// A client's subscription ended.
    Leave(Channel, Arc<ClientInfo>),
}

impl Broadcast {
    /// The channel it belongs to.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        match self {
            Self::Publication(publication) => &publication.channel,
            Self::Join(channel, _) | Self::Leave(channel, _) => channel,
        }
    }
}
