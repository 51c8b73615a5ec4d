//! `presence`, `presence_stats`, `history`, `history_remove` and `channels`.

use std::collections::BTreeMap;

use fanwire_node::broker::Order;
use fanwire_node::{HistoryRequest, Node};
use serde::{Deserialize, Serialize};

use crate::types::{ClientInfo, Done, Fault, Position, Publication, channel, given};

/// All that most of these methods ask.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OfChannel {
    channel: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Presence {
    /// By client id.
    presence: BTreeMap<String, ClientInfo>,
}

pub(crate) async fn presence(node: &Node, request: OfChannel) -> Result<Presence, Fault> {
    let members = node.members(&channel(&request.channel)?).await?;
    let presence = members.iter().map(|info| (info.client.to_string(), ClientInfo::from(&**info))).collect();
    Ok(Presence { presence })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PresenceStatsParams {
    channel: String,
    /// Users whose connections are counted as well.
    users: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PresenceStats {
    num_clients: usize,
    num_users: usize,
    /// How many connections each of those asked for has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<BTreeMap<String, usize>>,
}

/// The users one request may ask for.
const MAX_USERS: usize = 1000;

pub(crate) async fn presence_stats(node: &Node, request: PresenceStatsParams) -> Result<PresenceStats, Fault> {
    let PresenceStatsParams { channel, users } = request;
    let channel = self::channel(&channel)?;
    if users.as_ref().is_some_and(|users| users.len() > MAX_USERS) {
        return Err(Fault::bad(format!("more than {MAX_USERS} users")));
    }
    let stats = node.presence_stats(&channel).await?;
    let users = match users {
        Some(users) => {
            let connections = node.connections_of(&channel, &users).await?;
            Some(users.into_iter().zip(connections).collect())
        }
        None => None,
    };
    Ok(PresenceStats { num_clients: stats.clients, num_users: stats.users, users })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HistoryParams {
    channel: String,
    /// 0, also by default, for the position alone; negative for as many as the node allows.
    limit: Option<i32>,
    since: Option<Position>,
    reverse: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(crate) struct History {
    publications: Vec<Publication>,
    offset: u64,
    epoch: String,
}

pub(crate) async fn history(node: &Node, request: HistoryParams) -> Result<History, Fault> {
    let channel = channel(&request.channel)?;
    let request = HistoryRequest {
        limit: request.limit.unwrap_or_default(),
        since: request.since.map(TryInto::try_into).transpose()?,
        order: if request.reverse.unwrap_or_default() { Order::Reverse } else { Order::Forward },
    };
    let history = node.history(&channel, request).await?;
    Ok(History {
        publications: history.publications.iter().map(|publication| Publication::from(&**publication)).collect(),
        offset: history.top.offset,
        epoch: history.top.epoch.as_str().to_owned(),
    })
}

pub(crate) async fn history_remove(node: &Node, request: OfChannel) -> Result<Done, Fault> {
    node.remove_history(&channel(&request.channel)?).await?;
    Ok(Done {})
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChannelsParams {
    /// `*` stands for any text, everything else for itself. Default: every channel.
    #[serde(deserialize_with = "given")]
    pattern: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Channels {
    channels: BTreeMap<String, ChannelInfo>,
}

#[derive(Debug, Serialize)]
struct ChannelInfo {
    num_clients: usize,
}

pub(crate) async fn channels(node: &Node, request: ChannelsParams) -> Result<Channels, Fault> {
    let pattern = request.pattern.unwrap_or_else(|| "*".to_owned());
    let all = node.channels().await.into_iter();
    let channels = all
        .filter(|(channel, _)| matches(&pattern, channel.as_str()))
        .map(|(channel, num_clients)| (channel.as_str().to_owned(), ChannelInfo { num_clients }))
        .collect();
    Ok(Channels { channels })
}

/// Whether `name` has the form of `pattern`: its pieces between the stars, in their order.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        // The first place is as good as any: it leaves the most for what follows.
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("*", "anything"),
            ("**", "anything"),
            ("chat:*", "chat:"),
            ("chat:*", "chat:1"),
            ("*:1", "chat:1"),
            ("a*c*e", "abcde"),
            ("a*b*b", "abb"),
            ("a*b*b", "abbab"),
            ("chat", "chat"),
            ("c?t", "c?t"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("chat:*", "chat"), ("*:1", "chat:12"), ("a*a", "a"), ("a*b*b", "ab"), ("chat", "chats"), ("c?t", "cat")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
