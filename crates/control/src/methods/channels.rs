//! `presence`, `presence_stats`, `history`, `history_remove` and `channels`.

use fanwire_node::broker::Order;
use fanwire_node::{ChannelQuery, ChannelSurvey, HistoryRequest, Missing, Node};
use fanwire_wire::pattern::matches;

use crate::caller::Caller;
use crate::proto;
use crate::types::{Fault, channel, position};

/// The users one request may ask for.
const MAX_USERS: usize = 1000;

pub(crate) async fn presence(
    node: &Node,
    _: &Caller,
    request: proto::PresenceRequest,
) -> Result<proto::PresenceResponse, Fault> {
    let members = node.members(&channel(&request.channel)?).await?;
    let presence = members.iter().map(|info| (info.client.to_string(), (&**info).into())).collect();
    Ok(proto::PresenceResponse { presence })
}

pub(crate) async fn presence_stats(
    node: &Node,
    _: &Caller,
    request: proto::PresenceStatsRequest,
) -> Result<proto::PresenceStatsResponse, Fault> {
    let proto::PresenceStatsRequest { channel, users } = request;
    let channel = self::channel(&channel)?;
    if users.len() > MAX_USERS {
        return Err(Fault::bad(format!("more than {MAX_USERS} users")));
    }
    let stats = node.presence_stats(&channel).await?;
    let connections = if users.is_empty() { Vec::new() } else { node.connections_of(&channel, &users).await? };
    Ok(proto::PresenceStatsResponse {
        num_clients: stats.clients as u64,
        num_users: stats.users as u64,
        users: users.into_iter().zip(connections.into_iter().map(|connections| connections as u64)).collect(),
    })
}

pub(crate) async fn history(
    node: &Node,
    _: &Caller,
    request: proto::HistoryRequest,
) -> Result<proto::HistoryResponse, Fault> {
    let channel = channel(&request.channel)?;
    let request = HistoryRequest {
        limit: request.limit,
        since: request.since.as_ref().map(position).transpose()?,
        order: if request.reverse { Order::Reverse } else { Order::Forward },
    };
    let history = node.history(&channel, request).await?;
    Ok(proto::HistoryResponse {
        publications: history.publications.iter().map(|publication| (&**publication).into()).collect(),
        offset: history.top.offset,
        epoch: history.top.epoch.as_str().to_owned(),
    })
}

pub(crate) async fn history_remove(
    node: &Node,
    _: &Caller,
    request: proto::HistoryRemoveRequest,
) -> Result<proto::HistoryRemoveResponse, Fault> {
    node.remove_history(&channel(&request.channel)?).await?;
    Ok(proto::HistoryRemoveResponse {})
}

/// The most channels in one answer, and as many as there may be if nobody says.
const MAX_CHANNELS: u32 = 10_000;

pub(crate) async fn channels(
    node: &Node,
    caller: &Caller,
    request: proto::ChannelsRequest,
) -> Result<proto::ChannelsResponse, Fault> {
    let proto::ChannelsRequest { pattern, limit, cursor } = request;
    if limit > MAX_CHANNELS {
        return Err(Fault::bad(format!("limit is more than {MAX_CHANNELS}")));
    }
    let limit = if limit == 0 { MAX_CHANNELS } else { limit };
    let after = if cursor.is_empty() { None } else { Some(channel(&cursor)?) };
    let pattern = if pattern.is_empty() { "*" } else { &pattern };
    // The nodes are asked for what the key is for: so a page never ends at a name that its caller may not see.
    let patterns = match caller.patterns() {
        Some(patterns) => patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        None => vec![pattern.to_owned()],
    };
    let ChannelSurvey { channels, more, missing } =
        node.survey_channels(ChannelQuery { patterns, after, limit }).await?;
    let Missing { silent, unsupported, unasked } = missing;
    let cursor = channels.last().filter(|_| more).map(|(last, _)| last.as_str().to_owned()).unwrap_or_default();
    let channels = channels
        .into_iter()
        .filter(|(channel, _)| matches(pattern, channel.as_str()))
        .map(|(channel, num_clients)| (channel.as_str().to_owned(), proto::ChannelInfo { num_clients }))
        .collect();
    Ok(proto::ChannelsResponse { channels, more, cursor, silent, unsupported, unasked })
}
