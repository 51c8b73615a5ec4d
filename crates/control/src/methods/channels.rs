//! `presence`, `presence_stats`, `history`, `history_remove` and `channels`.

use std::collections::BTreeMap;
use std::slice;

use fanwire_node::broker::Order;
use fanwire_node::{HistoryRequest, Node};
use serde::{Deserialize, Serialize};

use crate::caller::{About, Caller, Subject};
use crate::types::{ClientInfo, Done, Fault, Missing, Position, Publication, channel, given};

/// All that most of these methods ask.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OfChannel {
    channel: String,
}

impl About for OfChannel {
    fn subject(&self) -> Subject<'_> {
        Subject { channels: slice::from_ref(&self.channel), ..Subject::default() }
    }
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

impl About for PresenceStatsParams {
    fn subject(&self) -> Subject<'_> {
        Subject { channels: slice::from_ref(&self.channel), ..Subject::default() }
    }
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

impl About for HistoryParams {
    fn subject(&self) -> Subject<'_> {
        Subject { channels: slice::from_ref(&self.channel), ..Subject::default() }
    }
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
    Ok(Done::default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChannelsParams {
    /// `*` stands for any text, everything else for itself. Default: every channel.
    #[serde(deserialize_with = "given")]
    pattern: Option<String>,
}

impl About for ChannelsParams {
    /// About none in particular: the answer has those that its caller may see.
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Channels {
    channels: BTreeMap<String, ChannelInfo>,
    /// There are more, with names behind the last one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    #[serde(flatten)]
    missing: Missing,
}

#[derive(Debug, Serialize)]
struct ChannelInfo {
    num_clients: u64,
}

pub(crate) async fn channels(node: &Node, caller: &Caller, request: ChannelsParams) -> Result<Channels, Fault> {
    let survey = node.survey_channels(request.pattern.as_deref().unwrap_or("*")).await?;
    let channels = survey.channels.into_iter().filter(|(channel, _)| caller.sees(channel.as_str()));
    Ok(Channels {
        channels: channels
            .map(|(channel, num_clients)| (channel.as_str().to_owned(), ChannelInfo { num_clients }))
            .collect(),
        more: survey.more,
        missing: survey.missing.into(),
    })
}
