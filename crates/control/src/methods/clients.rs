//! `connections`; `subscribe`, `unsubscribe`, `disconnect`, `refresh` and `revoke`: what is done to a user's connections.

use fanwire_node::authorizer::{Grant, Overrides};
use fanwire_node::{ConnectionQuery, ConnectionSurvey, Missing, Node, Selection, clock};
use fanwire_wire::cluster;
use fanwire_wire::frame::MAX_CONTROL_PAYLOAD;
use fanwire_wire::{Disconnect, Refusal};

use crate::caller::Caller;
use crate::proto::{
    CommandResponse, Connection, ConnectionsRequest, ConnectionsResponse, DisconnectReason, DisconnectRequest, Flag,
    RefreshRequest, RevokeRequest, SubscribeOverride, SubscribeRequest, UnsubscribeRequest,
};
use crate::types::{Fault, channel, json, position};

/// The most connections one call spares.
const MAX_WHITELIST: usize = 1000;

pub(crate) async fn subscribe(node: &Node, _: &Caller, request: SubscribeRequest) -> Result<CommandResponse, Fault> {
    let selection = selection(request.user, request.client, request.session)?;
    let channel = channel(&request.channel)?;
    let expire_at = term(request.expire_at);
    if expire_at.is_some_and(is_past) {
        return Err(Refusal::Expired.into());
    }
    let grant = Grant {
        expire_at,
        info: json("info", request.info, &request.b64info)?,
        data: json("data", request.data, &request.b64data)?,
        overrides: request.r#override.unwrap_or_default().into(),
    };
    let since = request.recover_since.as_ref().map(position).transpose()?;
    let done = node.subscribe(selection, channel, grant, since).await;
    Ok(done.map_err(Fault::elsewhere)?.into())
}

pub(crate) async fn unsubscribe(
    node: &Node,
    _: &Caller,
    request: UnsubscribeRequest,
) -> Result<CommandResponse, Fault> {
    let selection = selection(request.user, request.client, request.session)?;
    let channel = channel(&request.channel)?;
    node.namespace(&channel).ok_or(Refusal::UnknownChannel)?;
    Ok(node.unsubscribe(selection, channel).await.map_err(Fault::elsewhere)?.into())
}

pub(crate) async fn disconnect(node: &Node, _: &Caller, request: DisconnectRequest) -> Result<CommandResponse, Fault> {
    if request.whitelist.len() > MAX_WHITELIST {
        return Err(Fault::bad(format!("whitelist has more than {MAX_WHITELIST} entries")));
    }
    let selection = selection(request.user, request.client, request.session)?;
    let selection = Selection { except: request.whitelist, ..selection };
    let disconnect = farewell(request.disconnect.unwrap_or_default())?;
    Ok(node.disconnect(selection, disconnect).await.map_err(Fault::elsewhere)?.into())
}

pub(crate) async fn refresh(node: &Node, _: &Caller, request: RefreshRequest) -> Result<CommandResponse, Fault> {
    let selection = selection(request.user, request.client, request.session)?;
    if !request.info.is_empty() {
        return Err(Fault::unsupported("info of a connection stays as it is"));
    }
    let expire_at = term(request.expire_at);
    let done = if request.expired || expire_at.is_some_and(is_past) {
        node.disconnect(selection, Disconnect::Expired).await
    } else {
        node.refresh(selection, expire_at).await
    };
    Ok(done.map_err(Fault::elsewhere)?.into())
}

pub(crate) async fn revoke(node: &Node, _: &Caller, request: RevokeRequest) -> Result<CommandResponse, Fault> {
    let RevokeRequest { user, before } = request;
    if user.is_empty() {
        return Err(Fault::bad("user is empty"));
    }
    let before = if before > 0 { before } else { clock::unix_ms() / 1000 };
    let done = node.revoke(&user, before).await.map_err(|refusal| match refusal {
        Refusal::BadRequest => Fault::bad("before lies in the future"),
        refusal => Fault::elsewhere(refusal),
    })?;
    Ok(done.into())
}

/// The connections of one page, if nobody says, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

pub(crate) async fn connections(
    node: &Node,
    _: &Caller,
    request: ConnectionsRequest,
) -> Result<ConnectionsResponse, Fault> {
    let ConnectionsRequest { user, channel: name, limit, cursor } = request;
    if limit > MAX_PAGE {
        return Err(Fault::bad(format!("limit is more than {MAX_PAGE}")));
    }
    let query = ConnectionQuery {
        user: Some(user).filter(|user| !user.is_empty()),
        channel: if name.is_empty() { None } else { Some(channel(&name)?) },
        after: cursor,
        limit: if limit == 0 { PAGE } else { limit },
    };
    let ConnectionSurvey { connections, more, missing } = node.survey_connections(query).await?;
    let Missing { silent, unsupported, unasked } = missing;
    let last = connections.last().map(|(_, last)| last.client.clone());
    let connection = |(node, connection): (String, cluster::Connection)| Connection {
        client: connection.client,
        user: connection.user,
        node,
        protocol: connection.protocol,
        num_subs: connection.subscriptions,
    };
    Ok(ConnectionsResponse {
        connections: connections.into_iter().map(connection).collect(),
        cursor: last.filter(|_| more).unwrap_or_default(),
        silent,
        unsupported,
        unasked,
    })
}

/// Which connections are meant. `session` is another word for `client`: a connection has one id.
fn selection(user: String, client: String, session: String) -> Result<Selection, Fault> {
    if user.is_empty() {
        return Err(Fault::bad("user is empty"));
    }
    if !client.is_empty() && !session.is_empty() && client != session {
        return Err(Fault::bad("client and session name different connections"));
    }
    let client = Some(client).filter(|id| !id.is_empty()).or(Some(session).filter(|id| !id.is_empty()));
    Ok(Selection { user, client, ..Selection::default() })
}

/// What the clients are told.
fn farewell(DisconnectReason { code, reason }: DisconnectReason) -> Result<Disconnect, Fault> {
    let unknown = || Fault::bad("disconnect code is neither one of the protocol's nor from 4000 to 4999");
    match u16::try_from(code).map_err(|_| unknown())? {
        0 => Ok(Disconnect::ForceDisconnect),
        4000..=4999 if reason.len() > MAX_CONTROL_PAYLOAD - 2 => {
            Err(Fault::bad(format!("reason is longer than {} bytes", MAX_CONTROL_PAYLOAD - 2)))
        }
        code @ 4000..=4999 => Ok(Disconnect::Application { code, reason: reason.into() }),
        // Its own codes come with their own reasons. 3000 is never sent: it says that the client left.
        code @ 3001..=3999 => Disconnect::ALL.iter().find(|known| known.code() == code).cloned().ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

impl From<SubscribeOverride> for Overrides {
    fn from(wanted: SubscribeOverride) -> Self {
        let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
        Self {
            presence: value(wanted.presence),
            join_leave: value(wanted.join_leave),
            force_join_leave: value(wanted.force_push_join_leave),
            recovery: value(wanted.force_recovery),
            positioning: value(wanted.force_positioning),
        }
    }
}

/// A term in seconds of Unix time; 0 for none.
fn term(unix_seconds: u64) -> Option<u64> {
    (unix_seconds > 0).then_some(unix_seconds)
}

fn is_past(unix_seconds: u64) -> bool {
    clock::seconds_until(unix_seconds) == 0
}
