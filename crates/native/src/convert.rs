//! What the core answers, in the words of the protocol.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_node::broker::History;
use fanwire_node::hooks::BackendError;
use fanwire_node::presence::PresenceStats;
use fanwire_node::protocol::Event;
use fanwire_node::{Connected, Recovery, Subscribed};
use fanwire_wire::{Broadcast, ClientInfo, Disconnect, Payload, PayloadKind, Publication, Refusal};

use crate::codec::Encoding;
use crate::proto;

/// The server's version; clients take an empty one for a fault.
pub(crate) const VERSION: &str = concat!("fanwire ", env!("CARGO_PKG_VERSION"));

/// The refusal of a request.
pub(crate) fn error(refusal: Refusal) -> proto::Error {
    proto::Error { code: refusal.code(), message: refusal.message().to_owned(), temporary: refusal.temporary() }
}

/// What the backend answers in place of a result.
pub(crate) fn backend_error(error: BackendError) -> proto::Error {
    let BackendError { code, message, temporary } = error;
    proto::Error { code, message: (*message).to_owned(), temporary }
}

/// The answer to `connect`.
///
/// Its `session` and `node` are for transports with a separate way in; a WebSocket has no use for them.
pub(crate) fn connected(encoding: Encoding, connected: Connected) -> Result<proto::ConnectResult, Disconnect> {
    let mut subs = Vec::with_capacity(connected.subscriptions.len());
    for (channel, subscription) in connected.subscriptions {
        let value = Some(subscribed(encoding, subscription)?);
        subs.push(proto::SubscribeResultEntry { key: channel.as_str().to_owned(), value });
    }
    Ok(proto::ConnectResult {
        client: connected.client,
        version: VERSION.to_owned(),
        expires: connected.ttl.is_some(),
        ttl: connected.ttl.unwrap_or_default(),
        subs,
        ping: connected.ping,
        pong: true,
        data: connected.data.unwrap_or_default(),
    })
}

/// The answer to `subscribe`.
pub(crate) fn subscribed(encoding: Encoding, subscribed: Subscribed) -> Result<proto::SubscribeResult, Disconnect> {
    let (epoch, offset) = subscribed.position.map(|at| (at.epoch.as_str().to_owned(), at.offset)).unwrap_or_default();
    let publications = match &subscribed.recovery {
        Some(Recovery::Complete(missed)) => publications(encoding, missed)?,
        Some(Recovery::Failed) | None => Vec::new(),
    };
    Ok(proto::SubscribeResult {
        expires: subscribed.ttl.is_some(),
        ttl: subscribed.ttl.unwrap_or_default(),
        recoverable: subscribed.recoverable,
        epoch,
        publications,
        recovered: matches!(subscribed.recovery, Some(Recovery::Complete(_))),
        offset,
        positioned: subscribed.positioned,
        data: subscribed.data.unwrap_or_default(),
        was_recovering: subscribed.recovery.is_some(),
    })
}

/// The answer to `history`.
pub(crate) fn history(encoding: Encoding, history: &History) -> Result<proto::HistoryResult, Disconnect> {
    Ok(proto::HistoryResult {
        publications: publications(encoding, &history.publications)?,
        epoch: history.top.epoch.as_str().to_owned(),
        offset: history.top.offset,
    })
}

/// The answer to `presence`.
pub(crate) fn presence(members: &[Arc<ClientInfo>]) -> proto::PresenceResult {
    proto::PresenceResult { presence: members.iter().map(|who| ((*who.client).to_owned(), info(who))).collect() }
}

/// The answer to `presence_stats`.
pub(crate) fn presence_stats(stats: PresenceStats) -> proto::PresenceStatsResult {
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    proto::PresenceStatsResult { num_clients: count(stats.clients), num_users: count(stats.users) }
}

/// The answer to `refresh`.
pub(crate) fn refreshed(client: String, ttl: Option<u32>) -> proto::RefreshResult {
    let version = VERSION.to_owned();
    proto::RefreshResult { client, version, expires: ttl.is_some(), ttl: ttl.unwrap_or_default() }
}

/// The answer to `sub_refresh`.
pub(crate) fn subscription_refreshed(ttl: Option<u32>) -> proto::SubRefreshResult {
    proto::SubRefreshResult { expires: ttl.is_some(), ttl: ttl.unwrap_or_default() }
}

/// What other clients see of one.
pub(crate) fn info(info: &ClientInfo) -> proto::ClientInfo {
    proto::ClientInfo {
        user: (*info.user).to_owned(),
        client: (*info.client).to_owned(),
        conn_info: info.conn_info.clone().unwrap_or_default(),
        chan_info: info.chan_info.clone().unwrap_or_default(),
    }
}

/// The push of what a channel carries.
pub(crate) fn broadcast(encoding: Encoding, broadcast: &Broadcast) -> Result<proto::Reply, Disconnect> {
    let mut push = proto::Push { channel: broadcast.channel().as_str().to_owned(), ..Default::default() };
    match broadcast {
        Broadcast::Publication(published) => push.r#pub = Some(publication(encoding, published)?),
        Broadcast::Join(_, who) => push.join = Some(proto::Join { info: Some(info(who)) }),
        Broadcast::Leave(_, who) => push.leave = Some(proto::Leave { info: Some(info(who)) }),
    }
    Ok(pushed(push))
}

/// The push of what the core tells one client; `None` for a ping, which is no push.
pub(crate) fn event(event: &Event<'_>) -> Option<proto::Reply> {
    let push = match *event {
        Event::Ping => return None,
        Event::Subscribed { channel, position, recoverable, positioned, data } => proto::Push {
            channel: channel.as_str().to_owned(),
            subscribe: Some(proto::Subscribe {
                recoverable,
                epoch: position.map(|at| at.epoch.as_str().to_owned()).unwrap_or_default(),
                offset: position.map(|at| at.offset).unwrap_or_default(),
                positioned,
                data: data.cloned().unwrap_or_default(),
            }),
            ..Default::default()
        },
        Event::Unsubscribed { channel, reason } => proto::Push {
            channel: channel.as_str().to_owned(),
            unsubscribe: Some(proto::Unsubscribe { code: reason.code(), reason: reason.reason().to_owned() }),
            ..Default::default()
        },
        Event::Refreshed { ttl } => proto::Push {
            refresh: Some(proto::Refresh { expires: ttl.is_some(), ttl: ttl.unwrap_or_default() }),
            ..Default::default()
        },
    };
    Some(pushed(push))
}

/// The labels of a publication: its tags, and its event name as the tag `event`.
pub(crate) fn tags(publication: &Publication) -> impl Iterator<Item = (&str, &str)> {
    let event = publication.event.as_deref();
    let tags = publication.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    event.map(|event| (EVENT, event)).into_iter().chain(tags.filter(move |(name, _)| event.is_none() || *name != EVENT))
}

const EVENT: &str = "event";

fn publications<'a>(
    encoding: Encoding,
    publications: impl IntoIterator<Item = &'a Arc<Publication>>,
) -> Result<Vec<proto::Publication>, Disconnect> {
    publications.into_iter().map(|found| publication(encoding, found)).collect()
}

pub(crate) fn publication(encoding: Encoding, publication: &Publication) -> Result<proto::Publication, Disconnect> {
    Ok(proto::Publication {
        data: data(encoding, &publication.payload)?,
        info: publication.info.as_ref().map(info),
        offset: publication.stamp.as_ref().map(|stamp| stamp.position.offset).unwrap_or_default(),
        tags: tags(publication).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    })
}

/// Application data as it stands in a message of this encoding.
pub(crate) fn data(encoding: Encoding, payload: &Payload) -> Result<Bytes, Disconnect> {
    if encoding == Encoding::Protobuf || payload.kind() == PayloadKind::Json {
        return Ok(payload.bytes().clone());
    }
    let mut json = Vec::with_capacity(payload.bytes().len() + 2);
    payload.write_json(&mut json).map_err(|_| Disconnect::InappropriateProtocol)?;
    Ok(json.into())
}

fn pushed(push: proto::Push) -> proto::Reply {
    proto::Reply { push: Some(push), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_by_their_connection() {
        let who =
            |client: &str| Arc::new(ClientInfo { client: client.into(), user: "42".into(), ..Default::default() });
        let presence = presence(&[who("b"), who("a")]).presence;
        assert_eq!(presence.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(presence["a"], proto::ClientInfo { client: "a".into(), user: "42".into(), ..Default::default() });
    }
}
