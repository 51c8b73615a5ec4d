//! What nodes tell each other: the envelope, and its bytes.

mod connections;
mod control;
mod convert;
mod report;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use crate::payload::{Payload, PayloadKind};
use crate::{Broadcast, Channel, Epoch, Position, Publication, Stamp};

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/fanwire.cluster.v1.rs"));
}
use proto::envelope::Body;

pub use connections::{Connection, ConnectionList, ConnectionQuery};
pub use control::{Answer, ChannelList, Command, Control, ControlBody, NodeInfo, NodeState, Question};
pub use report::{HotChannel, Report, SlowClient, Traffic};

/// One message between nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Envelope {
    /// For the subscribers of a channel.
    Broadcast(Broadcast),
    /// A node tells itself that it hears what it says.
    Heartbeat(Heartbeat),
    /// The publications of a channel were removed: what nodes remember of them goes, too.
    HistoryRemoved(Channel),
    /// What a node tells other nodes.
    Control(Box<Control>),
}

/// The proof that what a node publishes comes back to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The node.
    pub node: String,
    /// Counts up.
    pub number: u64,
}

/// A client in a channel's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node that answers for it.
    pub node: String,
    /// Who it is.
    pub info: crate::ClientInfo,
}

/// Bytes that are no envelope, or one from a version that knows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope this version understands")]
pub struct InvalidEnvelope;

impl Envelope {
    /// The envelope's bytes. A stamp may be appended to those of a publication without one.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut stamp = None;
        let body = match self {
            Self::Broadcast(Broadcast::Publication(publication)) => {
                stamp = publication.stamp.as_ref().map(|stamp| proto::Stamp {
                    epoch: stamp.position.epoch.as_str().to_owned(),
                    offset: stamp.position.offset,
                    prev: stamp.prev,
                });
                Body::Publication(publication_to_proto(publication))
            }
            Self::Broadcast(Broadcast::Join(channel, info)) => Body::Join(membership(channel, info)),
            Self::Broadcast(Broadcast::Leave(channel, info)) => Body::Leave(membership(channel, info)),
            Self::Heartbeat(Heartbeat { node, number }) => {
                Body::Heartbeat(proto::Heartbeat { node: node.clone(), number: *number })
            }
            Self::HistoryRemoved(channel) => {
                Body::HistoryRemoved(proto::HistoryRemoved { channel: channel.as_str().to_owned() })
            }
            Self::Control(control) => Body::Control((&**control).into()),
        };
        proto::Envelope { body: Some(body), stamp }.encode_to_vec().into()
    }

    /// Reads an envelope; what it contains shares `bytes`.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvelope`]: ignore it and go on.
    pub fn decode(bytes: Bytes) -> Result<Self, InvalidEnvelope> {
        let proto::Envelope { body, stamp } = proto::Envelope::decode(bytes).map_err(|_| InvalidEnvelope)?;
        let broadcast = match body.ok_or(InvalidEnvelope)? {
            Body::Publication(publication) => {
                let stamp = stamp.as_ref().map(stamp_from_proto).transpose()?;
                Broadcast::Publication(Arc::new(publication_from_proto(publication, stamp)?))
            }
            Body::Join(proto::Membership { channel, info }) => {
                Broadcast::Join(self::channel(&channel)?, Arc::new(info_from_proto(info.unwrap_or_default())))
            }
            Body::Leave(proto::Membership { channel, info }) => {
                Broadcast::Leave(self::channel(&channel)?, Arc::new(info_from_proto(info.unwrap_or_default())))
            }
            Body::Heartbeat(proto::Heartbeat { node, number }) => {
                return Ok(Self::Heartbeat(Heartbeat { node, number }));
            }
            Body::HistoryRemoved(proto::HistoryRemoved { channel }) => {
                return Ok(Self::HistoryRemoved(self::channel(&channel)?));
            }
            Body::Control(control) => return Ok(Self::Control(Box::new(control.try_into()?))),
        };
        Ok(Self::Broadcast(broadcast))
    }
}

impl Member {
    /// The member's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        proto::Member { node: self.node.clone(), info: Some(info_to_proto(&self.info)) }.encode_to_vec().into()
    }

    /// Reads a member.
    ///
    /// # Errors
    ///
    /// [`InvalidEnvelope`]: ignore it and go on.
    pub fn decode(bytes: Bytes) -> Result<Self, InvalidEnvelope> {
        let proto::Member { node, info } = proto::Member::decode(bytes).map_err(|_| InvalidEnvelope)?;
        Ok(Self { node, info: info_from_proto(info.ok_or(InvalidEnvelope)?) })
    }
}

fn publication_to_proto(publication: &Publication) -> proto::Publication {
    let kind = match publication.payload.kind() {
        PayloadKind::Binary => proto::Kind::Binary,
        PayloadKind::Json => proto::Kind::Json,
        PayloadKind::Text => proto::Kind::Text,
    };
    let tag = |(name, value): &(String, String)| proto::Tag { name: name.clone(), value: value.clone() };
    proto::Publication {
        channel: publication.channel.as_str().to_owned(),
        data: publication.payload.bytes().clone(),
        kind: kind.into(),
        event: publication.event.as_deref().map(str::to_owned),
        tags: publication.tags.iter().map(tag).collect(),
        info: publication.info.as_ref().map(info_to_proto),
        time_ms: publication.time_ms,
        exclude: publication.exclude.map(|id| Bytes::copy_from_slice(&id)).unwrap_or_default(),
    }
}

fn publication_from_proto(
    publication: proto::Publication,
    stamp: Option<Stamp>,
) -> Result<Publication, InvalidEnvelope> {
    let kind = match publication.kind() {
        proto::Kind::Binary => PayloadKind::Binary,
        proto::Kind::Json => PayloadKind::Json,
        proto::Kind::Text => PayloadKind::Text,
    };
    Ok(Publication {
        channel: channel(&publication.channel)?,
        payload: Payload::declared(publication.data, kind),
        event: publication.event.map(Into::into),
        tags: publication.tags.into_iter().map(|tag| (tag.name, tag.value)).collect(),
        info: publication.info.map(info_from_proto),
        exclude: publication.exclude.as_ref().try_into().ok(),
        stamp,
        time_ms: publication.time_ms,
    })
}

fn stamp_from_proto(stamp: &proto::Stamp) -> Result<Stamp, InvalidEnvelope> {
    if stamp.epoch.len() > Epoch::MAX_LEN {
        return Err(InvalidEnvelope);
    }
    let position = Position { epoch: Epoch::from(&*stamp.epoch), offset: stamp.offset };
    Ok(Stamp { position, prev: stamp.prev })
}

fn membership(channel: &Channel, info: &crate::ClientInfo) -> proto::Membership {
    proto::Membership { channel: channel.as_str().to_owned(), info: Some(info_to_proto(info)) }
}

fn info_to_proto(info: &crate::ClientInfo) -> proto::ClientInfo {
    proto::ClientInfo {
        user: (*info.user).to_owned(),
        client: (*info.client).to_owned(),
        conn_info: info.conn_info.clone(),
        chan_info: info.chan_info.clone(),
    }
}

fn info_from_proto(info: proto::ClientInfo) -> crate::ClientInfo {
    crate::ClientInfo {
        user: info.user.into(),
        client: info.client.into(),
        conn_info: info.conn_info,
        chan_info: info.chan_info,
    }
}

fn channel(name: &str) -> Result<Channel, InvalidEnvelope> {
    Channel::new(name).map_err(|_| InvalidEnvelope)
}

#[cfg(test)]
mod tests;
