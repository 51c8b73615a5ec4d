//! What carries publications between nodes and keeps their history.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::sync::Arc;

use fanwire_wire::cluster::Control;
use fanwire_wire::{Channel, Position, Publication};

/// Carries publications between nodes and keeps the history of channels.
///
/// A broker hands everything it receives to the [`Dispatcher`](crate::Dispatcher) it was made with,
/// per channel in one order that is the same on all nodes. Delivery happens only on this way back:
/// the publishing node takes no short cut.
pub trait Broker: Send + Sync + 'static {
    /// Applies one publication: idempotency check, stamp, history, then delivery to every node with subscribers.
    ///
    /// The broker sets `stamp`; whatever stands there is ignored.
    fn publish(&self, publication: Publication, options: PublishOptions) -> BoxFuture<'_, Result<Published, Error>>;

    /// Applies publications of one channel in their order; each has an outcome of its own. There are few, or the broker is held
    /// up: [`MAX_BATCH`] at most.
    fn publish_all(&self, batch: Vec<(Publication, PublishOptions)>) -> BoxFuture<'_, Vec<Result<Published, Error>>> {
        async move {
            let mut outcomes = Vec::with_capacity(batch.len());
            for (publication, options) in batch {
                outcomes.push(self.publish(publication, options).await);
            }
            outcomes
        }
        .boxed()
    }

    /// Carries what a node says to other nodes: handed to their dispatchers, kept nowhere. What is said to all comes back to
    /// who said it as well. One sender's words arrive at each node in their order, if at all.
    fn tell(&self, to: Recipient<'_>, control: Control) -> BoxFuture<'_, Result<(), Error>>;

    /// Starts to receive `channel`; resolves when everything published from then on arrives, at once if it does already.
    ///
    /// States a wish: a later [`Broker::unsubscribe`] overrides it, a repetition changes nothing. Called for each new
    /// subscriber, so a channel that does not arrive at the moment is waited for again.
    fn subscribe(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>>;

    /// Stops receiving `channel`. Takes effect some time later.
    fn unsubscribe(&self, channel: &Channel);

    /// Reads a channel's stream. A stream nobody published to begins to exist, so that its position can be held.
    fn history(&self, channel: &Channel, query: HistoryQuery) -> BoxFuture<'_, Result<History, Error>>;

    /// Reads what a new subscriber needs to go on: the end of the stream, and what lies between it and where the subscriber
    /// stood. For channels that were [subscribed](Broker::subscribe).
    ///
    /// Unlike [`Broker::history`] it may answer from what the node has received, with the place up to which it has as the
    /// end: the rest is delivered. Those who ask at the same time share a read.
    fn resume(&self, channel: &Channel, resume: Resume) -> BoxFuture<'_, Result<History, Error>> {
        self.history(channel, resume.query())
    }

    /// Forgets a channel's publications; its position stays.
    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>>;

    /// Keeps a revocation this long, for all nodes that follow [`Broker::revocations`], now or later. A broker of one node need not:
    /// the node remembers it.
    fn revoke(&self, revocation: &Revocation, keep: Duration) -> BoxFuture<'_, Result<(), Error>> {
        let _ = (revocation, keep);
        ready(Ok(())).boxed()
    }

    /// Reads the revocations kept behind a place that an earlier call gave, or all if it is empty. Each comes at least once, and
    /// bounded in number; none means that there are no more for now.
    fn revocations<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Kept, Error>> {
        ready(Ok(Kept { revocations: Vec::new(), place: place.to_owned() })).boxed()
    }
}

/// The word that a user's tokens are refused which were issued before a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The user's id.
    pub user: Arc<str>,
    /// The moment, in seconds of Unix time.
    pub before: u64,
}

/// Some of the revocations a broker keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// In the order in which they were made.
    pub revocations: Vec<Revocation>,
    /// From where to read on.
    pub place: String,
}

/// Which nodes are told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// Every node, the one that speaks included.
    All,
    /// The one with this id.
    Node(&'a str),
}

/// How to apply a publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// Keep it; `None` for channels without history.
    pub history: Option<Retention>,
    /// Applied at most once under this key (per channel, for [`IDEMPOTENCY_TTL`]).
    pub idempotency_key: Option<Arc<str>>,
    /// Applied only if this is true of the stream, which is found out in the same step; for channels with history. What was
    /// applied once under an idempotency key is not asked again.
    pub condition: Option<Condition>,
}

/// What has to be true of a stream for a publication to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It ends here. Without an epoch the offset alone counts.
    At(Position),
    /// The last version applied to it is lower, or of another epoch.
    Below(Version),
}

impl Condition {
    /// What becomes of the publication in a stream that ends at `top`, and whose last version is this.
    #[must_use]
    pub fn judge(&self, top: &Position, version: Option<&Version>) -> Verdict {
        match self {
            Self::At(expected) => {
                let same_life = expected.epoch.is_empty() || expected.epoch == top.epoch;
                if same_life && expected.offset == top.offset { Verdict::Applied } else { Verdict::Conflict }
            }
            Self::Below(new) => match version {
                Some(known) if known.epoch == new.epoch && known.number >= new.number => Verdict::Outdated,
                _ => Verdict::Applied,
            },
        }
    }
}

/// The version of what a publication tells, as its publisher counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Higher is newer.
    pub number: u64,
    /// The life of the count: versions of different epochs have nothing to do with each other.
    pub epoch: Arc<str>,
}

/// The most publications of one [batch](Broker::publish_all).
pub const MAX_BATCH: usize = 128;

/// How long a result is remembered under its idempotency key.
pub const IDEMPOTENCY_TTL: Duration = Duration::from_secs(300);

/// What a channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The most publications kept.
    pub size: usize,
    /// How long one is kept.
    pub ttl: Duration,
}

/// What the broker made of a publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Its place, if the channel keeps a stream; where the stream ends, if it was not applied.
    pub position: Option<Position>,
    /// Whether it was applied.
    pub verdict: Verdict,
}

/// Whether a publication was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It was, now or under the same idempotency key before.
    #[default]
    Applied,
    /// The stream has its version already, or a higher one.
    Outdated,
    /// The stream does not end where it had to.
    Conflict,
}

/// Which part of a stream to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only what lies behind this offset (before it, when reversed).
    pub since: Option<u64>,
    /// The most publications returned; 0 for the position alone.
    pub limit: usize,
    /// In which direction.
    pub order: Order,
}

/// The direction of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// The oldest first.
    #[default]
    Forward,
    /// The newest first.
    Reverse,
}

/// How a new subscriber goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// From where.
    pub from: Start,
    /// What the channel keeps: nothing older, and no more, is handed out.
    pub retention: Retention,
    /// The most bytes ([`weight`]) of publications that are of use; with more, any of them may be missing.
    pub max_bytes: usize,
}

/// From where a subscriber goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the end.
    End,
    /// From behind a position, which may belong to another life of the stream, or to none.
    Behind(Position),
    /// From the end, with the latest publication.
    Latest,
}

impl Resume {
    /// The same as one read of the stream.
    #[must_use]
    pub fn query(&self) -> HistoryQuery {
        match &self.from {
            Start::End => HistoryQuery { since: None, limit: 0, order: Order::Forward },
            Start::Behind(since) => {
                HistoryQuery { since: Some(since.offset), limit: usize::MAX, order: Order::Forward }
            }
            Start::Latest => HistoryQuery { since: None, limit: 1, order: Order::Reverse },
        }
    }
}

/// What a publication counts for where publications are bounded in bytes: its data and labels, and what surrounds them in memory
/// or in a frame.
#[must_use]
pub fn weight(publication: &Publication) -> usize {
    let Publication { payload, event, tags, info, .. } = publication;
    let tags: usize = tags.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    let json = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let info = info
        .as_ref()
        .map_or(0, |info| info.user.len() + info.client.len() + json(&info.conn_info) + json(&info.chan_info) + 64);
    payload.bytes().len() + event.as_ref().map_or(0, |event| event.len()) + tags + info + 128
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The publications, each with its stamp.
    pub publications: Vec<Arc<Publication>>,
    /// The stream's end at the moment of the read.
    pub top: Position,
}

/// Why a broker could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was applied; a retry may succeed.
    #[error("broker unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The request may or may not have been applied; a retry with the same idempotency key settles it.
    #[error("broker did not answer in time: outcome unknown")]
    OutcomeUnknown,
}
