//! The shapes that several methods share.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanwire_wire::{Channel, Epoch, Payload, PayloadKind, Refusal};
use http::StatusCode;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The answer to one call: `{"result": …}` or `{"error": …}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply<T> {
    Result(T),
    Error(Fault),
}

impl<T> From<Result<T, Fault>> for Reply<T> {
    fn from(outcome: Result<T, Fault>) -> Self {
        match outcome {
            Ok(result) => Self::Result(result),
            Err(fault) => Self::Error(fault),
        }
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) refusal: Refusal,
    /// The HTTP status: 200 if a method was called.
    pub(crate) status: StatusCode,
    /// After how long the same request may be made.
    pub(crate) retry_after: Option<Duration>,
    /// What was wrong with this request; may be empty.
    detail: String,
}

impl Fault {
    /// The request makes no sense to its method.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Refusal::BadRequest.into() }
    }

    /// The request asks for something this version cannot do.
    pub(crate) fn unsupported(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Refusal::NotAvailable.into() }
    }

    /// A command that went wrong on its way to other nodes. What was refused otherwise is done nowhere.
    pub(crate) fn elsewhere(refusal: Refusal) -> Self {
        let detail = if refusal == Refusal::OutcomeUnknown {
            "done on this node; the others may not have been told"
        } else {
            ""
        };
        Self { detail: detail.to_owned(), ..refusal.into() }
    }

    /// No method could be called.
    pub(crate) fn transport(status: StatusCode, refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { refusal, status, retry_after: None, detail: detail.into() }
    }

    /// Its caller makes more calls than it may.
    pub(crate) fn too_fast(detail: impl Into<String>, after: Duration) -> Self {
        let fault = Self::transport(StatusCode::TOO_MANY_REQUESTS, Refusal::TooManyRequests, detail);
        Self { retry_after: Some(after), ..fault }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, status: StatusCode::OK, retry_after: None, detail: String::new() }
    }
}

/// A body or its parameters that are not what they should be; the text says where.
impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::transport(StatusCode::BAD_REQUEST, Refusal::BadRequest, error.to_string())
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.refusal.message();
        let separator = if self.detail.is_empty() { "" } else { ": " };
        let mut object = serializer.serialize_struct("Fault", 2)?;
        object.serialize_field("code", &code(self.refusal))?;
        object.serialize_field("message", &format_args!("{message}{separator}{}", self.detail))?;
        object.end()
    }
}

/// The code in an answer. Backends have to tell apart what clients need not: whether a repetition could be a second time.
fn code(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::Unavailable => 503,
        Refusal::OutcomeUnknown => 504,
        refusal => refusal.code(),
    }
}

/// A result that says nothing but that it worked, and where it did not.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Done {
    #[serde(flatten)]
    missing: Missing,
}

/// The nodes that something did not reach; nothing if there are none.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Missing {
    /// Ids of nodes that did not answer in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<String>,
    /// Ids of nodes whose version cannot do it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unsupported: Vec<String>,
    /// There may be other nodes that are not seen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unasked: bool,
}

impl From<fanwire_node::Missing> for Missing {
    fn from(missing: fanwire_node::Missing) -> Self {
        let fanwire_node::Missing { silent, unsupported, unasked } = missing;
        Self { silent, unsupported, unasked }
    }
}

impl From<fanwire_node::Missing> for Done {
    fn from(missing: fanwire_node::Missing) -> Self {
        Self { missing: missing.into() }
    }
}

/// A point in a stream, as a request gives it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Position {
    offset: u64,
    epoch: String,
}

impl TryFrom<Position> for fanwire_wire::Position {
    type Error = Fault;

    fn try_from(position: Position) -> Result<Self, Fault> {
        if position.epoch.len() > Epoch::MAX_LEN {
            return Err(Fault::bad("epoch is too long"));
        }
        Ok(Self { epoch: Epoch::from(&*position.epoch), offset: position.offset })
    }
}

/// Who a client is.
#[derive(Debug, Serialize)]
pub(crate) struct ClientInfo {
    client: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<Box<RawValue>>,
}

impl From<&fanwire_wire::ClientInfo> for ClientInfo {
    fn from(info: &fanwire_wire::ClientInfo) -> Self {
        let json = |bytes: &Option<Bytes>| bytes.as_deref().and_then(raw);
        Self {
            client: info.client.to_string(),
            user: info.user.to_string(),
            conn_info: json(&info.conn_info),
            chan_info: json(&info.chan_info),
        }
    }
}

/// One publication of a history.
#[derive(Debug, Serialize)]
pub(crate) struct Publication {
    /// `null` beside `b64data`: libraries insist on the field.
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    offset: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
    /// Milliseconds of Unix time.
    time: i64,
}

impl From<&fanwire_wire::Publication> for Publication {
    fn from(publication: &fanwire_wire::Publication) -> Self {
        let payload = &publication.payload;
        let data = (payload.kind() != PayloadKind::Binary).then(|| json(payload)).flatten();
        Self {
            b64data: data.is_none().then(|| STANDARD.encode(payload.bytes())),
            data,
            offset: publication.stamp.as_ref().map_or(0, |stamp| stamp.position.offset),
            tags: publication.tags.iter().cloned().collect(),
            info: publication.info.as_ref().map(ClientInfo::from),
            time: publication.time_ms,
        }
    }
}

/// Reads a channel's name.
pub(crate) fn channel(name: &str) -> Result<Channel, Fault> {
    Channel::new(name).map_err(|error| Fault::bad(error.to_string()))
}

/// Reads a field that was given as JSON or as base64, but not as both; `null` and empty text count as not given.
pub(crate) fn either(name: &str, plain: Option<Box<RawValue>>, base64: &str) -> Result<Option<Given>, Fault> {
    match plain {
        Some(json) if base64.is_empty() => Ok(Some(Given::Json(Bytes::copy_from_slice(json.get().as_bytes())))),
        Some(json) if json.get() != "null" => Err(Fault::bad(format!("both {name} and b64{name} are given"))),
        _ if base64.is_empty() => Ok(None),
        _ => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(Given::Bytes(bytes.into()))),
            Err(error) => Err(Fault::bad(format!("b64{name} is not base64: {error}"))),
        },
    }
}

/// What [`either`] field held.
pub(crate) enum Given {
    Json(Bytes),
    Bytes(Bytes),
}

/// Keeps a JSON `null` apart from a field that is not there.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a text whose empty form, and `null`, mean that it is not given.
pub(crate) fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

fn json(payload: &Payload) -> Option<Box<RawValue>> {
    let mut bytes = Vec::with_capacity(payload.bytes().len());
    payload.write_json(&mut bytes).ok()?;
    raw(&bytes)
}

fn raw(json: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(json).ok()
}
