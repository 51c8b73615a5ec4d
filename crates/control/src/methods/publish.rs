//! `publish` and `broadcast`.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use fanwire_node::{Node, Publish};
use fanwire_wire::{Channel, Payload};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::caller::{About, Subject};
use crate::types::{Fault, Given, Reply, channel, either, given, present};

/// Both methods have this shape, but for where to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    /// For `publish`.
    channel: String,
    /// For `broadcast`.
    channels: Vec<String>,
    #[serde(deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "given")]
    b64data: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    skip_history: Option<bool>,
    #[serde(deserialize_with = "given")]
    idempotency_key: Option<String>,
    version: Option<u64>,
    #[serde(deserialize_with = "given")]
    version_epoch: Option<String>,
}

/// What `publish` asks.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct ToOne(Request);

impl About for ToOne {
    fn subject(&self) -> Subject<'_> {
        Subject { channels: slice::from_ref(&self.0.channel), ..Subject::default() }
    }
}

/// What `broadcast` asks.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct ToMany(Request);

impl About for ToMany {
    fn subject(&self) -> Subject<'_> {
        Subject { channels: &self.0.channels, ..Subject::default() }
    }
}

/// Where the publication stands; nothing if the channel keeps no history.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Broadcasted {
    responses: Vec<Reply<Published>>,
}

/// The most channels of one broadcast.
const MAX_CHANNELS: usize = 1000;

/// The longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

pub(crate) async fn publish(node: &Node, ToOne(request): ToOne) -> Result<Published, Fault> {
    let channel = channel(&request.channel)?;
    send(node, request.content()?.publish(channel)).await
}

/// Publishes to all channels at once; what goes wrong with one stays with that one.
pub(crate) async fn broadcast(node: &Node, ToMany(mut request): ToMany) -> Result<Broadcasted, Fault> {
    let names = std::mem::take(&mut request.channels);
    if names.is_empty() {
        return Err(Fault::bad("channels is empty"));
    }
    if names.len() > MAX_CHANNELS {
        return Err(Fault::bad(format!("more than {MAX_CHANNELS} channels")));
    }
    let content = request.content()?;
    let publications = names.iter().map(async |name| send(node, content.publish(channel(name)?)).await);
    let responses = join_all(publications).await.into_iter().map(Reply::from).collect();
    Ok(Broadcasted { responses })
}

async fn send(node: &Node, publish: Publish) -> Result<Published, Fault> {
    let position = node.publish(publish).await?.position;
    Ok(Published {
        offset: position.as_ref().map(|position| position.offset),
        epoch: position.map(|position| position.epoch.as_str().to_owned()),
    })
}

/// What a request publishes, wherever to. Cloning it costs nothing.
struct Content {
    payload: Payload,
    tags: Arc<[(String, String)]>,
    idempotency_key: Option<Arc<str>>,
    skip_history: bool,
}

impl Request {
    fn content(self) -> Result<Content, Fault> {
        if self.version.is_some_and(|version| version > 0) || self.version_epoch.is_some() {
            return Err(Fault::unsupported("version and version_epoch"));
        }
        if self.idempotency_key.as_ref().is_some_and(|key| key.len() > MAX_IDEMPOTENCY_KEY) {
            return Err(Fault::bad(format!("idempotency_key is longer than {MAX_IDEMPOTENCY_KEY} bytes")));
        }
        let payload = match either("data", self.data, self.b64data.as_deref().unwrap_or_default())? {
            Some(Given::Json(json)) => Payload::json(json),
            Some(Given::Bytes(bytes)) => Payload::detect(bytes),
            None => return Err(Fault::bad("neither data nor b64data is given")),
        };
        Ok(Content {
            payload,
            tags: self.tags.unwrap_or_default().into_iter().collect(),
            idempotency_key: self.idempotency_key.map(Arc::from),
            skip_history: self.skip_history.unwrap_or_default(),
        })
    }
}

impl Content {
    fn publish(&self, channel: Channel) -> Publish {
        Publish {
            tags: Arc::clone(&self.tags),
            idempotency_key: self.idempotency_key.clone(),
            skip_history: self.skip_history,
            ..Publish::new(channel, self.payload.clone())
        }
    }
}
