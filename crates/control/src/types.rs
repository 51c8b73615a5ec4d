//! What several methods share.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use fanwire_node::Missing;
use fanwire_wire::{Channel, Epoch, Position, Refusal};
use http::StatusCode;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::proto;

/// The answer to one call in JSON: `{"result": …}` or `{"error": …}`.
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
    /// Where the channel stands, if that is why.
    position: Option<Box<Position>>,
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

    /// The channel does not stand where it was expected to.
    pub(crate) fn conflict(position: Position) -> Self {
        let Position { epoch, offset } = &position;
        let detail = format!("the channel stands at offset {offset} of epoch {:?}", epoch.as_str());
        Self { detail, position: Some(Box::new(position)), ..Refusal::Conflict.into() }
    }

    /// No method could be called.
    pub(crate) fn transport(status: StatusCode, refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), ..refusal.into() }
    }

    /// Its caller makes more calls than it may.
    pub(crate) fn too_fast(detail: impl Into<String>, after: Duration) -> Self {
        let fault = Self::transport(StatusCode::TOO_MANY_REQUESTS, Refusal::TooManyRequests, detail);
        Self { retry_after: Some(after), ..fault }
    }

    /// The code in an answer. Backends have to tell apart what clients need not: whether a repetition could be a second time.
    pub(crate) fn code(&self) -> u32 {
        match self.refusal {
            Refusal::Unavailable => 503,
            Refusal::OutcomeUnknown => 504,
            refusal => refusal.code(),
        }
    }

    /// Where the channel stands, if that is why.
    pub(crate) fn position(&self) -> Option<&Position> {
        self.position.as_deref()
    }

    /// The text beside the code.
    pub(crate) fn message(&self) -> String {
        let separator = if self.detail.is_empty() { "" } else { ": " };
        format!("{}{separator}{}", self.refusal.message(), self.detail)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, status: StatusCode::OK, retry_after: None, detail: String::new(), position: None }
    }
}

/// A body or its parameters that are not what they should be; the text says where.
impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::transport(StatusCode::BAD_REQUEST, Refusal::BadRequest, error.to_string())
    }
}

impl From<Fault> for proto::Error {
    fn from(fault: Fault) -> Self {
        Self { code: fault.code(), message: fault.message(), position: fault.position().map(Into::into) }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Fault", 3)?;
        object.serialize_field("code", &self.code())?;
        object.serialize_field("message", &self.message())?;
        match self.position() {
            Some(position) => object.serialize_field("position", &proto::Position::from(position))?,
            None => object.skip_field("position")?,
        }
        object.end()
    }
}

impl From<&Position> for proto::Position {
    fn from(Position { epoch, offset }: &Position) -> Self {
        Self { offset: *offset, epoch: epoch.as_str().to_owned() }
    }
}

impl From<Missing> for proto::CommandResponse {
    fn from(missing: Missing) -> Self {
        let Missing { silent, unsupported, unasked } = missing;
        Self { silent, unsupported, unasked }
    }
}

impl From<&fanwire_wire::ClientInfo> for proto::ClientInfo {
    fn from(info: &fanwire_wire::ClientInfo) -> Self {
        // What is no JSON has no place in an answer.
        let json = |bytes: &Option<Bytes>| bytes.clone().filter(|bytes| is_json(bytes)).unwrap_or_default();
        Self {
            client: info.client.to_string(),
            user: info.user.to_string(),
            conn_info: json(&info.conn_info),
            chan_info: json(&info.chan_info),
        }
    }
}

impl From<&fanwire_wire::Publication> for proto::Publication {
    fn from(publication: &fanwire_wire::Publication) -> Self {
        let mut json = BytesMut::new();
        let data = match publication.payload.write_json(&mut json) {
            Ok(()) => json.freeze(),
            Err(_) => publication.payload.bytes().clone(),
        };
        Self {
            data,
            offset: publication.stamp.as_ref().map_or(0, |stamp| stamp.position.offset),
            tags: publication.tags.iter().cloned().collect(),
            info: publication.info.as_ref().map(Into::into),
            time: publication.time_ms,
            event: publication.event.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

/// Reads a point in a stream.
pub(crate) fn position(position: &proto::Position) -> Result<Position, Fault> {
    if position.epoch.len() > Epoch::MAX_LEN {
        return Err(Fault::bad("epoch is too long"));
    }
    Ok(Position { epoch: Epoch::from(&*position.epoch), offset: position.offset })
}

/// Reads a channel's name.
pub(crate) fn channel(name: &str) -> Result<Channel, Fault> {
    Channel::new(name).map_err(|error| Fault::bad(error.to_string()))
}

/// Reads a field that was given as it is or in base64, but not both; JSON's `null` gives way to base64. Empty if neither was.
pub(crate) fn either(name: &str, plain: Bytes, base64: &str) -> Result<Bytes, Fault> {
    match () {
        () if base64.is_empty() => Ok(plain),
        () if !plain.is_empty() && *plain != *b"null" => {
            Err(Fault::bad(format!("both {name} and b64{name} are given")))
        }
        () => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(Fault::bad(format!("b64{name} is not base64: {error}"))),
        },
    }
}

/// Reads an optional field with JSON, which may have come in base64.
pub(crate) fn json(name: &str, plain: Bytes, base64: &str) -> Result<Option<Bytes>, Fault> {
    match either(name, plain, base64)? {
        bytes if bytes.is_empty() => Ok(None),
        bytes if is_json(&bytes) => Ok(Some(bytes)),
        _ => Err(Fault::bad(format!("{}{name} does not hold JSON", if base64.is_empty() { "" } else { "b64" }))),
    }
}

fn is_json(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}
