//! [`Broker`] of a single node.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::cluster::Control;
use fanwire_wire::{Broadcast, Channel, Epoch, Position, Publication, Stamp};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::{
    Broker, Condition, Error, History, HistoryQuery, IDEMPOTENCY_TTL, Order, PublishOptions, Published, Recipient,
    Retention, Verdict, Version,
};
use crate::{Dispatcher, id};

/// A broker that hands publications straight to its own node.
///
/// Bounds: a day for streams without subscribers that nobody publishes to or reads, a minute if they never had a
/// publication; 16,384 remembered idempotency keys in each of 64 shards.
pub struct MemoryBroker {
    dispatcher: Arc<Dispatcher>,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    streams: HashMap<Channel, Stream>,
    results: HashMap<(Channel, Arc<str>), Published>,
    /// The keys of `results` in the order they were made.
    keys: VecDeque<(Instant, Channel, Arc<str>)>,
    /// When the streams were last looked through.
    swept: Option<Instant>,
}

struct Stream {
    top: Position,
    /// The last one that a publication had.
    version: Option<Version>,
    entries: VecDeque<(Instant, Arc<Publication>)>,
    touched: Instant,
}

const SHARDS: usize = 64;

/// How long a stream's position outlives its last use.
const STREAM_TTL: Duration = Duration::from_secs(24 * 3600);

/// The same before the first publication: whoever may read can ask for any number of names.
const UNUSED_TTL: Duration = Duration::from_secs(60);

/// The most idempotency keys remembered in one of the 64 shards; over it the oldest goes early.
const MAX_KEYS: usize = 16 * 1024;

/// How often a shard looks for what is over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl MemoryBroker {
    /// Makes the broker of the node that owns `dispatcher`.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher, shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    fn apply(&self, mut publication: Publication, options: PublishOptions) -> Published {
        // Held over the delivery: all workers see a channel's publications in the order of their offsets.
        let mut shard = self.shard(&publication.channel).lock();
        let now = Instant::now();
        shard.sweep(now, &self.dispatcher);
        let key = options.idempotency_key.map(|key| (publication.channel.clone(), key));
        if let Some(published) = key.as_ref().and_then(|key| shard.results.get(key)) {
            return published.clone();
        }
        let (applied, published) = match options.history {
            Some(retention) => {
                shard.stream(&publication.channel, now).append(publication, retention, options.condition, now)
            }
            None => {
                publication.stamp = None;
                (Some(Arc::new(publication)), Published::default())
            }
        };
        // A conflict is no outcome: whoever looks where the stream ends may try again.
        if let Some((channel, key)) = key
            && published.verdict != Verdict::Conflict
        {
            shard.remember(channel, key, published.clone(), now);
        }
        if let Some(publication) = applied {
            self.dispatcher.dispatch(&Broadcast::Publication(publication));
        }
        published
    }

    fn read(&self, channel: &Channel, query: &HistoryQuery) -> History {
        let mut shard = self.shard(channel).lock();
        let now = Instant::now();
        shard.sweep(now, &self.dispatcher);
        shard.stream(channel, now).read(query)
    }

    fn shard(&self, channel: &Channel) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(channel) as usize % SHARDS]
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, publication: Publication, options: PublishOptions) -> BoxFuture<'_, Result<Published, Error>> {
        async move {
            self.dispatcher.ready().await;
            Ok(self.apply(publication, options))
        }
        .boxed()
    }

    fn publish_all(&self, batch: Vec<(Publication, PublishOptions)>) -> BoxFuture<'_, Vec<Result<Published, Error>>> {
        async move {
            let mut outcomes = Vec::with_capacity(batch.len());
            for (publication, options) in batch {
                self.dispatcher.ready().await;
                outcomes.push(Ok(self.apply(publication, options)));
            }
            outcomes
        }
        .boxed()
    }

    fn tell(&self, to: Recipient<'_>, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        // There is no other node.
        let meant = to == Recipient::All || to == Recipient::Node(self.dispatcher.node());
        async move {
            if meant {
                self.dispatcher.hear(control);
            }
            Ok(())
        }
        .boxed()
    }

    fn subscribe(&self, _channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(())).boxed()
    }

    fn unsubscribe(&self, _channel: &Channel) {}

    fn history(&self, channel: &Channel, query: HistoryQuery) -> BoxFuture<'_, Result<History, Error>> {
        ready(Ok(self.read(channel, &query))).boxed()
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        if let Some(stream) = self.shard(channel).lock().streams.get_mut(channel) {
            stream.entries.clear();
        }
        ready(Ok(())).boxed()
    }
}

impl Shard {
    /// Finds a stream without its outdated entries, or begins it.
    fn stream(&mut self, channel: &Channel, now: Instant) -> &mut Stream {
        let stream = self.streams.entry(channel.clone()).or_insert_with(|| Stream {
            top: Position { epoch: Epoch::from(id::epoch().as_str()), offset: 0 },
            version: None,
            entries: VecDeque::new(),
            touched: now,
        });
        stream.touched = now;
        stream.expire(now);
        stream
    }

    fn remember(&mut self, channel: Channel, key: Arc<str>, published: Published, now: Instant) {
        if self.keys.len() >= MAX_KEYS {
            self.forget_oldest_key();
        }
        self.keys.push_back((now + IDEMPOTENCY_TTL, channel.clone(), Arc::clone(&key)));
        self.results.insert((channel, key), published);
    }

    fn forget_oldest_key(&mut self) {
        if let Some((_, channel, key)) = self.keys.pop_front() {
            self.results.remove(&(channel, key));
        }
    }

    /// Drops what is over: keys at once, streams now and then.
    fn sweep(&mut self, now: Instant, dispatcher: &Dispatcher) {
        while self.keys.front().is_some_and(|(until, ..)| *until <= now) {
            self.forget_oldest_key();
        }
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.streams.retain(|channel, stream| {
            stream.expire(now);
            let ttl = if stream.top.offset == 0 { UNUSED_TTL } else { STREAM_TTL };
            // Subscribers go on from the position they have, however long it is quiet.
            !stream.entries.is_empty() || now.duration_since(stream.touched) < ttl || dispatcher.is_wanted(channel)
        });
    }
}

impl Stream {
    /// Appends a publication, if its condition is true.
    fn append(
        &mut self,
        mut publication: Publication,
        retention: Retention,
        condition: Option<Condition>,
        now: Instant,
    ) -> (Option<Arc<Publication>>, Published) {
        let judge = |condition: &Condition| condition.judge(&self.top, self.version.as_ref());
        let verdict = condition.as_ref().map_or(Verdict::Applied, judge);
        if verdict != Verdict::Applied {
            return (None, Published { position: Some(self.top.clone()), verdict });
        }
        if let Some(Condition::Below(version)) = condition {
            self.version = Some(version);
        }
        let prev = self.top.offset;
        self.top.offset += 1;
        publication.stamp = Some(Stamp { position: self.top.clone(), prev });
        let publication = Arc::new(publication);
        self.entries.push_back((now + retention.ttl, Arc::clone(&publication)));
        while self.entries.len() > retention.size {
            self.entries.pop_front();
        }
        (Some(publication), Published { position: Some(self.top.clone()), verdict })
    }

    fn read(&self, query: &HistoryQuery) -> History {
        let offset = |publication: &Publication| publication.stamp.as_ref().map_or(0, |stamp| stamp.position.offset);
        let place =
            |is_before: &dyn Fn(u64) -> bool| self.entries.partition_point(|(_, entry)| is_before(offset(entry)));
        let part = match (query.order, query.since) {
            (_, None) => self.entries.range(..),
            (Order::Forward, Some(since)) => self.entries.range(place(&|offset| offset <= since)..),
            (Order::Reverse, Some(since)) => self.entries.range(..place(&|offset| offset < since)),
        };
        let part = part.map(|(_, publication)| Arc::clone(publication));
        let publications = match query.order {
            Order::Forward => part.take(query.limit).collect(),
            Order::Reverse => part.rev().take(query.limit).collect(),
        };
        History { publications, top: self.top.clone() }
    }

    fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|(until, _)| *until <= now) {
            self.entries.pop_front();
        }
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}
