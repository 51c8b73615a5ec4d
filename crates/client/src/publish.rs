//! What is published, and how.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::Error;
use crate::proto::control::PublishRequest;

/// One publication, for [`Api::publish`](crate::Api::publish) or a [`Publisher`](crate::Publisher).
///
/// ```
/// use fanwire_client::Publish;
///
/// let publish = Publish::json("chat:lobby", &["hello"])?.tag("kind", "note").idempotency_key("order-17");
/// # Ok::<(), fanwire_client::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Publish {
    channel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_base64")]
    b64data: Option<Bytes>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skip_history: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude: Option<String>,
}

impl Publish {
    /// Publishes a value as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it cannot be written as JSON.
    pub fn json(channel: impl Into<String>, data: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let data = to_raw_value(data).map_err(|error| Error::Usage(format!("no JSON: {error}")))?;
        Ok(Self { data: Some(data), ..Self::nothing(channel.into()) })
    }

    /// Publishes bytes. Valid JSON counts as JSON; anything else is binary, which subscribers that speak JSON cannot take.
    pub fn bytes(channel: impl Into<String>, data: &[u8]) -> Self {
        Self { b64data: Some(Bytes::copy_from_slice(data)), ..Self::nothing(channel.into()) }
    }

    /// Adds a label.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }

    /// Delivers it, but does not keep it.
    #[must_use]
    pub fn skip_history(mut self) -> Self {
        self.skip_history = true;
        self
    }

    /// Says what it tells, by a name of at most 255 bytes. Subscribers find it in the tag `event`.
    #[must_use]
    pub fn event(mut self, name: impl Into<String>) -> Self {
        self.event = Some(name.into());
        self
    }

    /// Spares the connection with this id: it knows already. What is kept is for everyone.
    #[must_use]
    pub fn exclude(mut self, client: impl Into<String>) -> Self {
        self.exclude = Some(client.into());
        self
    }

    /// Gives it a key, so that a repetition within five minutes is not applied again and gets the first answer. One without
    /// is given one of its own when it is sent.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Makes sure that it can be repeated.
    pub(crate) fn keyed(mut self) -> Self {
        self.idempotency_key.get_or_insert_with(|| format!("{:032x}", fastrand::u128(..)));
        self
    }

    /// The same for gRPC.
    pub(crate) fn into_request(self) -> PublishRequest {
        let Self { channel, data, b64data, tags, skip_history, idempotency_key, event, exclude } = self;
        let json = data.map(|data| Box::<str>::from(data).into_string().into());
        PublishRequest {
            channel,
            data: b64data.or(json).unwrap_or_default(),
            tags,
            skip_history,
            idempotency_key: idempotency_key.unwrap_or_default(),
            event: event.unwrap_or_default(),
            exclude: exclude.unwrap_or_default(),
            ..PublishRequest::default()
        }
    }

    fn nothing(channel: String) -> Self {
        let tags = BTreeMap::new();
        Self {
            channel,
            data: None,
            b64data: None,
            tags,
            skip_history: false,
            idempotency_key: None,
            event: None,
            exclude: None,
        }
    }
}

fn in_base64<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes)).serialize(serializer)
}
