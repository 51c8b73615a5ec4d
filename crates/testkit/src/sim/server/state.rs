//! What a server knows, and what it does with a request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::broker::{
    Condition, History, HistoryQuery, Order, PublishOptions, Published, Retention, Verdict, Version,
};
use fanwire_wire::{Broadcast, Channel, Epoch, Position, Publication, Stamp};
use fastrand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Push, Way};

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) running: Running,
    /// Numbers the lives of the server.
    pub(super) incarnation: u64,
    pub(super) disk: Disk,
    pub(super) snapshot: Option<Disk>,
    /// Everything that ever was in a stream, whatever became of it.
    pub(super) minted: Vec<Arc<Publication>>,
    /// Applied by a server that hung until the one who asked had given up.
    pub(super) late: Vec<Request>,
    pub(super) ways: Vec<Way>,
    /// When the last request of each node arrives: they do not overtake each other.
    pub(super) arrivals: Vec<Instant>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) last_connection: u64,
    pub(super) jumps: bool,
}

pub(super) type Request = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Yes,
    /// Takes requests and answers none.
    Paused,
    No,
}

/// What survives a restart.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) streams: BTreeMap<Channel, Stream>,
    pub(super) results: BTreeMap<(Channel, Arc<str>), Published>,
}

#[derive(Clone)]
pub(super) struct Stream {
    pub(super) top: Position,
    /// The last one that a publication had.
    pub(super) version: Option<Version>,
    /// The incarnation that wrote last.
    pub(super) writer: u64,
    /// With the time at which each is over.
    pub(super) entries: VecDeque<(Instant, Arc<Publication>)>,
}

pub(super) struct Connection {
    pub(super) node: usize,
    /// The node's name for itself.
    pub(super) name: String,
    pub(super) channels: BTreeSet<Channel>,
    /// In the order in which they arrive.
    pub(super) pushes: VecDeque<(Instant, Push)>,
    pub(super) pushed: Arc<Notify>,
}

/// The pushes that wait in one connection before the server gives it up.
const OUTPUT_BUFFER: usize = 4096;

impl State {
    pub(super) fn delay(&mut self, node: usize) -> Duration {
        let most = self.ways[node].delay.as_micros() as u64;
        Duration::from_micros(self.rng.u64(0..=most))
    }

    pub(super) fn publish(&mut self, mut publication: Publication, options: PublishOptions) -> Published {
        let key = options.idempotency_key.map(|key| (publication.channel.clone(), key));
        if let Some(known) = key.as_ref().and_then(|key| self.disk.results.get(key)) {
            return known.clone();
        }
        publication.stamp = None;
        let mut published = Published::default();
        if let Some(retention) = options.history {
            published = self.append(&mut publication, retention, options.condition);
        }
        if let Some(key) = key
            && published.verdict != Verdict::Conflict
        {
            self.disk.results.insert(key, published.clone());
        }
        if published.verdict != Verdict::Applied {
            return published;
        }
        let channel = publication.channel.clone();
        self.push(&channel, &Push::Broadcast(Broadcast::Publication(Arc::new(publication))));
        published
    }

    fn append(
        &mut self,
        publication: &mut Publication,
        retention: Retention,
        condition: Option<Condition>,
    ) -> Published {
        let (incarnation, jumps) = (self.incarnation, self.jumps);
        let stream = self.stream(&publication.channel);
        let judge = |condition: &Condition| condition.judge(&stream.top, stream.version.as_ref());
        let verdict = condition.as_ref().map_or(Verdict::Applied, judge);
        if verdict != Verdict::Applied {
            return Published { position: Some(stream.top.clone()), verdict };
        }
        if let Some(Condition::Below(version)) = condition {
            stream.version = Some(version);
        }
        let prev = stream.top.offset;
        // Nothing of an earlier life may be minted again.
        let jump = if jumps && stream.writer != incarnation { incarnation << 20 } else { 0 };
        stream.top.offset = (prev + 1).max(jump);
        stream.writer = incarnation;
        let position = stream.top.clone();
        publication.stamp = Some(Stamp { position: position.clone(), prev });
        let publication = Arc::new(publication.clone());
        stream.entries.push_back((Instant::now() + retention.ttl, Arc::clone(&publication)));
        while stream.entries.len() > retention.size {
            stream.entries.pop_front();
        }
        self.minted.push(publication);
        Published { position: Some(position), verdict }
    }

    pub(super) fn push(&mut self, channel: &Channel, push: &Push) {
        let wanted = self.connections.iter().filter(|(_, connection)| connection.channels.contains(channel));
        let wanted: Vec<u64> = wanted.map(|(id, _)| *id).collect();
        wanted.into_iter().for_each(|connection| self.push_to(connection, push));
    }

    pub(super) fn push_to(&mut self, id: u64, push: &Push) {
        let Some(node) = self.connections.get(&id).map(|connection| connection.node) else { return };
        let way = self.ways[node];
        if way.mute || self.rng.f64() < way.lost {
            return;
        }
        let mut due = Instant::now() + self.delay(node);
        // Without a stamp nobody could tell: there the order of the connection has to do.
        let stamped =
            matches!(push, Push::Broadcast(Broadcast::Publication(publication)) if publication.stamp.is_some());
        let again = (stamped && self.rng.f64() < way.doubled).then(|| due + self.delay(node) * 3);
        let overtaken = stamped && self.rng.f64() < way.overtaken;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if overtaken {
            due += way.delay * 2;
        } else if let Some((last, _)) = connection.pushes.back() {
            due = due.max(*last);
        }
        for due in [Some(due), again].into_iter().flatten() {
            let place = connection.pushes.partition_point(|(other, _)| *other <= due);
            connection.pushes.insert(place, (due, push.clone()));
        }
        connection.pushed.notify_one();
        if connection.pushes.len() > OUTPUT_BUFFER {
            self.connections.remove(&id);
        }
    }

    /// Finds a stream, or begins it.
    pub(super) fn stream(&mut self, channel: &Channel) -> &mut Stream {
        let (rng, incarnation) = (&mut self.rng, self.incarnation);
        let stream = self.disk.streams.entry(channel.clone()).or_insert_with(|| Stream {
            top: Position { epoch: Epoch::from(&*format!("{:08x}", rng.u32(..))), offset: 0 },
            version: None,
            writer: incarnation,
            entries: VecDeque::new(),
        });
        let now = Instant::now();
        while stream.entries.front().is_some_and(|(until, _)| *until <= now) {
            stream.entries.pop_front();
        }
        stream
    }
}

impl Stream {
    pub(super) fn read(&self, query: &HistoryQuery) -> History {
        let offset = |publication: &Publication| publication.stamp.as_ref().map_or(0, |stamp| stamp.position.offset);
        let wanted = |publication: &&Arc<Publication>| match (query.order, query.since) {
            (_, None) => true,
            (Order::Forward, Some(since)) => offset(publication) > since,
            (Order::Reverse, Some(since)) => offset(publication) < since,
        };
        let all = self.entries.iter().map(|(_, publication)| publication);
        let publications = match query.order {
            Order::Forward => all.filter(wanted).take(query.limit).cloned().collect(),
            Order::Reverse => all.rev().filter(wanted).take(query.limit).cloned().collect(),
        };
        History { publications, top: self.top.clone() }
    }
}
