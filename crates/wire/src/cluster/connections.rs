//! Which connections nodes have.

use super::{InvalidEnvelope, channel, proto};
use crate::Channel;

/// Which connections are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionQuery {
    /// Only those of this user.
    pub user: Option<String>,
    /// Only those subscribed to this channel.
    pub channel: Option<Channel>,
    /// Only those with ids behind this one; empty for all.
    pub after: String,
    /// The most connections in the answer, in the order of their ids.
    pub limit: u32,
}

/// Open connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionList {
    /// In the order of their ids.
    pub connections: Vec<Connection>,
    /// Whether there are more, with ids behind the last one.
    pub more: bool,
}

/// An open connection that is somebody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its id.
    pub client: String,
    /// The user's id; empty for an anonymous one.
    pub user: String,
    /// The protocol it speaks.
    pub protocol: String,
    /// How many channels it is subscribed to.
    pub subscriptions: u64,
}

impl From<&ConnectionQuery> for proto::ConnectionsQuestion {
    fn from(query: &ConnectionQuery) -> Self {
        let ConnectionQuery { user, channel, after, limit } = query;
        Self {
            user: user.clone(),
            channel: channel.as_ref().map(|channel| channel.as_str().to_owned()),
            after: after.clone(),
            limit: *limit,
        }
    }
}

impl TryFrom<proto::ConnectionsQuestion> for ConnectionQuery {
    type Error = InvalidEnvelope;

    fn try_from(question: proto::ConnectionsQuestion) -> Result<Self, InvalidEnvelope> {
        let proto::ConnectionsQuestion { user, channel: name, after, limit } = question;
        Ok(Self { user, channel: name.map(|name| channel(&name)).transpose()?, after, limit })
    }
}

impl From<&ConnectionList> for proto::ConnectionsAnswer {
    fn from(list: &ConnectionList) -> Self {
        let connection = |Connection { client, user, protocol, subscriptions }: &Connection| proto::Connection {
            client: client.clone(),
            user: user.clone(),
            protocol: protocol.clone(),
            subscriptions: *subscriptions,
        };
        Self { connections: list.connections.iter().map(connection).collect(), more: list.more }
    }
}

impl From<proto::ConnectionsAnswer> for ConnectionList {
    fn from(answer: proto::ConnectionsAnswer) -> Self {
        let connection = |proto::Connection { client, user, protocol, subscriptions }| Connection {
            client,
            user,
            protocol,
            subscriptions,
        };
        Self { connections: answer.connections.into_iter().map(connection).collect(), more: answer.more }
    }
}
