//! `subscribe`, `unsubscribe`, `disconnect`, `refresh` and `revoke`: what is done to a user's connections.

use std::slice;

use bytes::Bytes;
use fanwire_node::authorizer::{Grant, Overrides};
use fanwire_node::{Node, Selection, clock};
use fanwire_wire::frame::MAX_CONTROL_PAYLOAD;
use fanwire_wire::{Disconnect, Refusal};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::caller::{About, Subject};
use crate::types::{Done, Fault, Given, Position, channel, either, given};

/// Which connections are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    user: String,
    /// Only this connection of the user's.
    #[serde(deserialize_with = "given")]
    client: Option<String>,
    /// The same: a connection has one id.
    #[serde(deserialize_with = "given")]
    session: Option<String>,
}

impl Target {
    /// What a request to these connections is about.
    fn subject<'a>(&'a self, channels: &'a [String]) -> Subject<'a> {
        let client = self.client.as_ref().or(self.session.as_ref());
        Subject { channels, user: &self.user, client: client.map_or("", String::as_str) }
    }
}

impl TryFrom<Target> for Selection {
    type Error = Fault;

    fn try_from(target: Target) -> Result<Self, Fault> {
        let Target { user, client, session } = target;
        if user.is_empty() {
            return Err(Fault::bad("user is empty"));
        }
        if client.is_some() && session.is_some() && client != session {
            return Err(Fault::bad("client and session name different connections"));
        }
        Ok(Self { user, client: client.or(session), ..Self::default() })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Subscribe {
    #[serde(flatten)]
    target: Target,
    channel: String,
    /// For other clients.
    info: Option<Box<RawValue>>,
    #[serde(deserialize_with = "given")]
    b64info: Option<String>,
    /// For the subscriber.
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "given")]
    b64data: Option<String>,
    recover_since: Option<Position>,
    /// Seconds of Unix time; 0 for never.
    expire_at: Option<u64>,
    #[serde(rename = "override")]
    overrides: Option<Override>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Override {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}

#[derive(Debug, Deserialize)]
struct Flag {
    #[serde(default)]
    value: bool,
}

impl About for Subscribe {
    fn subject(&self) -> Subject<'_> {
        self.target.subject(slice::from_ref(&self.channel))
    }
}

pub(crate) async fn subscribe(node: &Node, request: Subscribe) -> Result<Done, Fault> {
    let selection = request.target.try_into()?;
    let channel = channel(&request.channel)?;
    let expire_at = request.expire_at.filter(|at| *at > 0);
    if expire_at.is_some_and(is_past) {
        return Err(Refusal::Expired.into());
    }
    let grant = Grant {
        expire_at,
        info: json("info", request.info, request.b64info)?,
        data: json("data", request.data, request.b64data)?,
        overrides: request.overrides.unwrap_or_default().into(),
    };
    let since = request.recover_since.map(TryInto::try_into).transpose()?;
    let done = node.subscribe(selection, channel, grant, since).await;
    Ok(done.map_err(Fault::elsewhere)?.into())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Unsubscribe {
    #[serde(flatten)]
    target: Target,
    channel: String,
}

impl About for Unsubscribe {
    fn subject(&self) -> Subject<'_> {
        self.target.subject(slice::from_ref(&self.channel))
    }
}

pub(crate) async fn unsubscribe(node: &Node, request: Unsubscribe) -> Result<Done, Fault> {
    let selection = request.target.try_into()?;
    let channel = channel(&request.channel)?;
    node.namespace(&channel).ok_or(Refusal::UnknownChannel)?;
    Ok(node.unsubscribe(selection, channel).await.map_err(Fault::elsewhere)?.into())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DisconnectParams {
    #[serde(flatten)]
    target: Target,
    /// Connections to spare.
    whitelist: Option<Vec<String>>,
    disconnect: Option<Farewell>,
}

/// What the client is told.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Farewell {
    code: u16,
    reason: String,
}

/// The most connections one call spares.
const MAX_WHITELIST: usize = 1000;

impl About for DisconnectParams {
    fn subject(&self) -> Subject<'_> {
        self.target.subject(&[])
    }
}

pub(crate) async fn disconnect(node: &Node, request: DisconnectParams) -> Result<Done, Fault> {
    let except = request.whitelist.unwrap_or_default();
    if except.len() > MAX_WHITELIST {
        return Err(Fault::bad(format!("whitelist has more than {MAX_WHITELIST} entries")));
    }
    let selection = Selection { except, ..request.target.try_into()? };
    let done = node.disconnect(selection, request.disconnect.unwrap_or_default().try_into()?).await;
    Ok(done.map_err(Fault::elsewhere)?.into())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refresh {
    #[serde(flatten)]
    target: Target,
    /// Whether the connections end at once.
    expired: Option<bool>,
    /// Seconds of Unix time; 0 for never.
    expire_at: Option<u64>,
    info: Option<IgnoredAny>,
}

impl About for Refresh {
    fn subject(&self) -> Subject<'_> {
        self.target.subject(&[])
    }
}

pub(crate) async fn refresh(node: &Node, request: Refresh) -> Result<Done, Fault> {
    let selection = request.target.try_into()?;
    if request.info.is_some() {
        return Err(Fault::unsupported("info of a connection stays as it is"));
    }
    let expire_at = request.expire_at.filter(|at| *at > 0);
    let done = if request.expired.unwrap_or_default() || expire_at.is_some_and(is_past) {
        node.disconnect(selection, Disconnect::Expired).await
    } else {
        node.refresh(selection, expire_at).await
    };
    Ok(done.map_err(Fault::elsewhere)?.into())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Revoke {
    user: String,
    /// Seconds of Unix time; none for this second.
    before: Option<u64>,
}

impl About for Revoke {
    fn subject(&self) -> Subject<'_> {
        Subject { user: &self.user, ..Subject::default() }
    }
}

pub(crate) async fn revoke(node: &Node, request: Revoke) -> Result<Done, Fault> {
    let Revoke { user, before } = request;
    if user.is_empty() {
        return Err(Fault::bad("user is empty"));
    }
    let before = before.unwrap_or_else(|| clock::unix_ms() / 1000);
    let done = node.revoke(&user, before).await.map_err(|refusal| match refusal {
        Refusal::BadRequest => Fault::bad("before lies in the future"),
        refusal => Fault::elsewhere(refusal),
    })?;
    Ok(done.into())
}

impl From<Override> for Overrides {
    fn from(wanted: Override) -> Self {
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

impl TryFrom<Farewell> for Disconnect {
    type Error = Fault;

    fn try_from(farewell: Farewell) -> Result<Self, Fault> {
        let Farewell { code, reason } = farewell;
        match code {
            0 => Ok(Self::ForceDisconnect),
            4000..=4999 if reason.len() > MAX_CONTROL_PAYLOAD - 2 => {
                Err(Fault::bad(format!("reason is longer than {} bytes", MAX_CONTROL_PAYLOAD - 2)))
            }
            4000..=4999 => Ok(Self::Application { code, reason: reason.into() }),
            // Its own codes come with their own reasons. 3000 is never sent: it says that the client left.
            3001..=3999 => Self::ALL.iter().find(|known| known.code() == code).cloned().ok_or_else(unknown_code),
            _ => Err(unknown_code()),
        }
    }
}

fn unknown_code() -> Fault {
    Fault::bad("disconnect code is neither one of the protocol's nor from 4000 to 4999")
}

/// Reads JSON that may have come as base64.
fn json(name: &str, plain: Option<Box<RawValue>>, base64: Option<String>) -> Result<Option<Bytes>, Fault> {
    match either(name, plain, &base64.unwrap_or_default())? {
        None => Ok(None),
        Some(Given::Json(json)) => Ok(Some(json)),
        Some(Given::Bytes(bytes)) if serde_json::from_slice::<IgnoredAny>(&bytes).is_ok() => Ok(Some(bytes)),
        Some(Given::Bytes(_)) => Err(Fault::bad(format!("b64{name} does not hold JSON"))),
    }
}

fn is_past(unix_seconds: u64) -> bool {
    clock::seconds_until(unix_seconds) == 0
}
