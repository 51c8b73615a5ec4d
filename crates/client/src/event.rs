//! What a subscriber sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Error, proto};

/// A place in a channel's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last publication behind it; 0 for the beginning.
    pub offset: u64,
    /// The life of the stream; empty if not known.
    pub epoch: String,
}

/// What happens to a subscription, in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server confirmed the subscription: at the start, and each time it was made again.
    Subscribed(Subscribed),
    /// Somebody published.
    Publication(Publication),
    /// Somebody entered the channel.
    Join(ClientInfo),
    /// Somebody left the channel.
    Leave(ClientInfo),
    /// The subscription is interrupted, and made again as soon as possible: [`Event::Subscribed`] follows.
    Interrupted(Arc<Error>),
    /// The subscription is over. The last event.
    Ended(Arc<Error>),
}

/// How a subscription begins, or goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// How this joins to what came before.
    pub recovery: Recovery,
    /// Where it stands, in a channel with positions: what follows comes behind it.
    pub position: Option<Position>,
    /// What the application says to the subscriber; may be empty.
    pub data: Bytes,
}

/// How what follows joins to what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing was asked for: the subscription begins now. Where it was interrupted, what was published meanwhile is missing.
    Fresh,
    /// Nothing is missing.
    Whole,
    /// Something is missing, and cannot be had any more.
    Lost,
}

/// One publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The data: JSON, text or any bytes.
    pub data: Bytes,
    /// Where it stands, in a channel with positions.
    pub position: Option<Position>,
    /// Who published it, if that was a client.
    pub info: Option<ClientInfo>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
}

/// Who a client is, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The user's id; empty for an anonymous one.
    pub user: String,
    /// The connection's id.
    pub client: String,
    /// What the application attached to the connection; may be empty.
    pub conn_info: Bytes,
    /// What the application attached to the subscription; may be empty.
    pub chan_info: Bytes,
}

impl From<proto::ClientInfo> for ClientInfo {
    fn from(info: proto::ClientInfo) -> Self {
        let proto::ClientInfo { user, client, conn_info, chan_info } = info;
        Self { user, client, conn_info, chan_info }
    }
}
