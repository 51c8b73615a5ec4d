//! `publish` and `broadcast`.

use std::sync::Arc;

use fanwire_node::{Client, Node, Publish};
use fanwire_wire::{Channel, Payload};
use futures_util::future::join_all;

use crate::caller::Caller;
use crate::proto::{BroadcastRequest, BroadcastResponse, PublishOutcome, PublishRequest, PublishResponse};
use crate::types::{Fault, channel, either};

/// The most channels of one broadcast.
const MAX_CHANNELS: usize = 1000;

/// The longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// The longest event name, in bytes.
const MAX_EVENT: usize = 255;

pub(crate) async fn publish(node: &Node, _: &Caller, request: PublishRequest) -> Result<PublishResponse, Fault> {
    let channel = channel(&request.channel)?;
    let content = Content::read(request)?;
    send(node, content.publish(channel)).await
}

/// Publishes to all channels at once; what goes wrong with one stays with that one.
pub(crate) async fn broadcast(node: &Node, _: &Caller, request: BroadcastRequest) -> Result<BroadcastResponse, Fault> {
    let BroadcastRequest {
        channels,
        data,
        b64data,
        tags,
        skip_history,
        idempotency_key,
        version,
        version_epoch,
        event,
        exclude,
    } = request;
    if channels.is_empty() {
        return Err(Fault::bad("channels is empty"));
    }
    if channels.len() > MAX_CHANNELS {
        return Err(Fault::bad(format!("more than {MAX_CHANNELS} channels")));
    }
    let content = Content::read(PublishRequest {
        channel: String::new(),
        data,
        b64data,
        tags,
        skip_history,
        idempotency_key,
        version,
        version_epoch,
        event,
        exclude,
    })?;
    let publications = channels.iter().map(async |name| send(node, content.publish(channel(name)?)).await);
    let responses = join_all(publications).await.into_iter().map(PublishOutcome::from).collect();
    Ok(BroadcastResponse { responses })
}

async fn send(node: &Node, publish: Publish) -> Result<PublishResponse, Fault> {
    let position = node.publish(publish).await?.position.unwrap_or_default();
    Ok(PublishResponse { offset: position.offset, epoch: position.epoch.as_str().to_owned() })
}

impl From<Result<PublishResponse, Fault>> for PublishOutcome {
    fn from(outcome: Result<PublishResponse, Fault>) -> Self {
        match outcome {
            Ok(result) => Self { result: Some(result), error: None },
            Err(fault) => Self { result: None, error: Some(fault.into()) },
        }
    }
}

/// What a request publishes, wherever to. Cloning it costs nothing.
struct Content {
    payload: Payload,
    event: Option<Arc<str>>,
    exclude: Option<[u8; 16]>,
    tags: Arc<[(String, String)]>,
    idempotency_key: Option<Arc<str>>,
    skip_history: bool,
}

impl Content {
    /// Reads everything but the channel.
    fn read(request: PublishRequest) -> Result<Self, Fault> {
        if request.version > 0 || !request.version_epoch.is_empty() {
            return Err(Fault::unsupported("version and version_epoch"));
        }
        if request.idempotency_key.len() > MAX_IDEMPOTENCY_KEY {
            return Err(Fault::bad(format!("idempotency_key is longer than {MAX_IDEMPOTENCY_KEY} bytes")));
        }
        if request.event.len() > MAX_EVENT {
            return Err(Fault::bad(format!("event is longer than {MAX_EVENT} bytes")));
        }
        let exclude = match &*request.exclude {
            "" => None,
            id => Some(Client::parse_id(id).ok_or_else(|| Fault::bad("exclude is not the id of a connection"))?),
        };
        let data = either("data", request.data, &request.b64data)?;
        if data.is_empty() {
            return Err(Fault::bad("neither data nor b64data is given"));
        }
        Ok(Self {
            payload: Payload::detect(data),
            event: Some(request.event).filter(|event| !event.is_empty()).map(Arc::from),
            exclude,
            tags: request.tags.into_iter().collect(),
            idempotency_key: Some(request.idempotency_key).filter(|key| !key.is_empty()).map(Arc::from),
            skip_history: request.skip_history,
        })
    }

    fn publish(&self, channel: Channel) -> Publish {
        Publish {
            event: self.event.clone(),
            exclude: self.exclude,
            tags: Arc::clone(&self.tags),
            idempotency_key: self.idempotency_key.clone(),
            skip_history: self.skip_history,
            ..Publish::new(channel, self.payload.clone())
        }
    }
}
