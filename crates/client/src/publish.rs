//! What is published, and how.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::Error;

/// One publication for [`Api::publish`](crate::Api::publish).
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
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skip_history: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
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
        Self { b64data: Some(BASE64_STANDARD.encode(data)), ..Self::nothing(channel.into()) }
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

    /// Names it, so that a repetition within five minutes is not applied again and gets the first answer. Without one,
    /// [`Api::publish`](crate::Api::publish) makes one of its own.
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

    fn nothing(channel: String) -> Self {
        let tags = BTreeMap::new();
        Self { channel, data: None, b64data: None, tags, skip_history: false, idempotency_key: None }
    }
}
