//! `publish` and `broadcast`.

use std::sync::Arc;

use fanwire_node::broker::{Condition, Published, Verdict, Version};
use fanwire_node::{Client, Node, Publish};
use fanwire_wire::{Channel, Payload, Position, Refusal};
use futures_util::future::join_all;

use crate::caller::Caller;
use crate::proto::{self, BroadcastRequest, BroadcastResponse, PublishOutcome, PublishRequest, PublishResponse};
use crate::types::{Fault, channel, either, position};

/// The most channels of one broadcast.
const MAX_CHANNELS: usize = 1000;

/// The longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// The longest epoch of versions, in bytes.
const MAX_VERSION_EPOCH: usize = 255;

/// The longest event name, in bytes.
const MAX_EVENT: usize = 255;

pub(crate) async fn publish(node: &Node, _: &Caller, request: PublishRequest) -> Result<PublishResponse, Fault> {
    send(node, read(request)?).await
}

/// Reads what is to be published.
pub(crate) fn read(request: PublishRequest) -> Result<Publish, Fault> {
    let channel = channel(&request.channel)?;
    Ok(Content::read(request)?.publish(channel))
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
        // One position is hardly right for many.
        expect: None,
    })?;
    let publications = channels.iter().map(async |name| send(node, content.publish(channel(name)?)).await);
    let responses = join_all(publications).await.into_iter().map(PublishOutcome::from).collect();
    Ok(BroadcastResponse { responses })
}

async fn send(node: &Node, publish: Publish) -> Result<PublishResponse, Fault> {
    let conditional = publish.condition.is_some();
    answer(node.publish(publish).await, conditional)
}

/// What a caller is told of a publication, which had a condition or not.
pub(crate) fn answer(published: Result<Published, Refusal>, conditional: bool) -> Result<PublishResponse, Fault> {
    let Published { position, verdict } = match published {
        Err(Refusal::NotAvailable) if conditional => {
            return Err(Fault::unsupported(
                "expect and version need a channel with history, and a publication that is kept",
            ));
        }
        published => published?,
    };
    let Position { offset, epoch } = position.unwrap_or_default();
    match verdict {
        Verdict::Conflict => Err(Fault::conflict(Position { offset, epoch })),
        Verdict::Applied | Verdict::Outdated => {
            Ok(PublishResponse { offset, epoch: epoch.as_str().to_owned(), skipped: verdict == Verdict::Outdated })
        }
    }
}

impl From<Result<PublishResponse, Fault>> for PublishOutcome {
    fn from(outcome: Result<PublishResponse, Fault>) -> Self {
        match outcome {
            Ok(result) => Self { result: Some(result), error: None },
            Err(fault) => Self { result: None, error: Some(fault.into()) },
        }
    }
}

/// Reads what has to be true of the channel.
fn condition(expect: Option<&proto::Position>, version: u64, version_epoch: &str) -> Result<Option<Condition>, Fault> {
    if version_epoch.len() > MAX_VERSION_EPOCH {
        return Err(Fault::bad(format!("version_epoch is longer than {MAX_VERSION_EPOCH} bytes")));
    }
    match (expect, version) {
        (None, 0) if version_epoch.is_empty() => Ok(None),
        (_, 0) if !version_epoch.is_empty() => Err(Fault::bad("version_epoch is given without version")),
        (Some(expected), 0) => Ok(Some(Condition::At(position(expected)?))),
        (Some(_), _) => Err(Fault::bad("both expect and version are given")),
        (None, number) => Ok(Some(Condition::Below(Version { number, epoch: version_epoch.into() }))),
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
    condition: Option<Condition>,
}

impl Content {
    /// Reads everything but the channel.
    fn read(request: PublishRequest) -> Result<Self, Fault> {
        if request.idempotency_key.len() > MAX_IDEMPOTENCY_KEY {
            return Err(Fault::bad(format!("idempotency_key is longer than {MAX_IDEMPOTENCY_KEY} bytes")));
        }
        if request.event.len() > MAX_EVENT {
            return Err(Fault::bad(format!("event is longer than {MAX_EVENT} bytes")));
        }
        let condition = condition(request.expect.as_ref(), request.version, &request.version_epoch)?;
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
            condition,
        })
    }

    fn publish(&self, channel: Channel) -> Publish {
        Publish {
            event: self.event.clone(),
            exclude: self.exclude,
            tags: Arc::clone(&self.tags),
            idempotency_key: self.idempotency_key.clone(),
            skip_history: self.skip_history,
            condition: self.condition.clone(),
            ..Publish::new(channel, self.payload.clone())
        }
    }
}
