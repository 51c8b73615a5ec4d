//! A server that brokers meet at, in memory: streams, subscribers' connections, and the ways between it and each node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::broker::{Error, History, HistoryQuery, Order, PublishOptions, Published};
use fanwire_wire::cluster::Control;
use fanwire_wire::{Broadcast, Channel, Epoch, Position, Publication, Stamp};
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A server in memory. Clones are the same one.
///
/// What it decides by chance, it decides by its seed. It mints positions as the product's own server functions do: linked,
/// and with a jump at each new incarnation.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something changed that requests or receivers may wait for.
    changed: Notify,
}

struct State {
    rng: Rng,
    running: Running,
    /// Numbers the lives of the server.
    incarnation: u64,
    disk: Disk,
    snapshot: Option<Disk>,
    /// Everything that ever was in a stream, whatever became of it.
    minted: Vec<Arc<Publication>>,
    /// Applied by a server that hung until the one who asked had given up.
    late: Vec<Request>,
    ways: Vec<Way>,
    /// When the last request of each node arrives: they do not overtake each other.
    arrivals: Vec<Instant>,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    jumps: bool,
}

type Request = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    Yes,
    /// Takes requests and answers none.
    Paused,
    No,
}

/// What survives a restart.
#[derive(Clone, Default)]
struct Disk {
    streams: BTreeMap<Channel, Stream>,
    results: BTreeMap<(Channel, Arc<str>), Published>,
}

#[derive(Clone)]
struct Stream {
    top: Position,
    /// The incarnation that wrote last.
    writer: u64,
    /// With the time at which each is over.
    entries: VecDeque<(Instant, Arc<Publication>)>,
}

/// How a restarted server remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Everything.
    Whole,
    /// What it knew at the last [`Server::save`]; nothing without one.
    Snapshot,
    /// Nothing, for ever.
    None,
}

/// The network between one node and the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// The longest time something is under way.
    pub delay: Duration,
    /// The share of pushes that get lost.
    pub lost: f64,
    /// The share of publications with a position that come twice.
    pub doubled: f64,
    /// The share of publications with a position that others overtake.
    pub overtaken: f64,
    /// Nothing gets through; what the server pushes arrives later.
    pub partitioned: bool,
    /// Requests are answered, and nothing is pushed.
    pub mute: bool,
}

/// A way without faults.
pub const GOOD: Way =
    Way { delay: Duration::from_millis(2), lost: 0.0, doubled: 0.0, overtaken: 0.0, partitioned: false, mute: false };

/// What a server pushes into a subscriber's connection.
#[derive(Clone, Debug)]
pub(super) enum Push {
    Broadcast(Broadcast),
    /// Another node says something.
    Control(Control),
    /// A channel's history was removed.
    Removed(Channel),
    /// A subscription is confirmed.
    Subscribed(Channel),
    Heartbeat,
}

struct Connection {
    node: usize,
    /// The node's name for itself.
    name: String,
    channels: BTreeSet<Channel>,
    /// In the order in which they arrive.
    pushes: VecDeque<(Instant, Push)>,
    pushed: Arc<Notify>,
}

/// How long a request may wait for its answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The pushes that wait in one connection before the server gives it up.
const OUTPUT_BUFFER: usize = 4096;

impl Server {
    /// Starts an empty server with good ways to so many nodes.
    #[must_use]
    pub fn new(seed: u64, nodes: usize) -> Self {
        let state = State {
            rng: Rng::with_seed(seed),
            running: Running::Yes,
            incarnation: 1,
            disk: Disk::default(),
            snapshot: None,
            minted: Vec::new(),
            late: Vec::new(),
            ways: vec![GOOD; nodes],
            arrivals: vec![Instant::now(); nodes],
            connections: BTreeMap::new(),
            last_connection: 0,
            jumps: true,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Counts on after a loss of memory as if nothing had happened: a mistake the jump is there against.
    pub fn forget_to_jump(&self) {
        self.0.state.lock().jumps = false;
    }

    /// Writes down what it knows.
    pub fn save(&self) {
        let mut state = self.0.state.lock();
        state.snapshot = Some(state.disk.clone());
    }

    /// Ends at once, with every connection.
    pub fn stop(&self) {
        let mut state = self.0.state.lock();
        state.running = Running::No;
        state.late.clear();
        state.connections.clear();
        self.0.changed.notify_waiters();
    }

    /// Starts again.
    pub fn start(&self, memory: Memory) {
        let mut state = self.0.state.lock();
        state.running = Running::Yes;
        state.incarnation += 1;
        match memory {
            Memory::Whole => {}
            Memory::Snapshot => state.disk = state.snapshot.clone().unwrap_or_default(),
            Memory::None => (state.disk, state.snapshot) = (Disk::default(), None),
        }
        self.0.changed.notify_waiters();
    }

    /// Hangs.
    pub fn pause(&self) {
        self.0.state.lock().running = Running::Paused;
    }

    /// Goes on after a pause, with what was asked meanwhile.
    pub fn resume(&self) {
        let mut state = self.0.state.lock();
        state.running = Running::Yes;
        for request in std::mem::take(&mut state.late) {
            request(&mut state);
        }
        self.0.changed.notify_waiters();
    }

    /// Changes the way to a node.
    pub fn change_way(&self, node: usize, change: impl FnOnce(&mut Way)) {
        change(&mut self.0.state.lock().ways[node]);
        self.0.changed.notify_waiters();
    }

    /// Cuts a node's connection for subscriptions; the node notices.
    pub fn cut(&self, node: usize) {
        self.0.state.lock().connections.retain(|_, connection| connection.node != node);
        self.0.changed.notify_waiters();
    }

    /// Forgets one subscription of a node, in silence.
    pub fn forget_subscription(&self, node: usize, channel: &Channel) {
        let mut state = self.0.state.lock();
        for connection in state.connections.values_mut().filter(|connection| connection.node == node) {
            connection.channels.remove(channel);
        }
    }

    /// Everything that ever stood in a stream, in the order in which it was applied.
    #[must_use]
    pub fn minted(&self) -> Vec<Arc<Publication>> {
        self.0.state.lock().minted.clone()
    }

    /// Where each stream ends.
    #[must_use]
    pub fn tops(&self) -> Vec<(Channel, Position)> {
        let state = self.0.state.lock();
        state.disk.streams.iter().map(|(channel, stream)| (channel.clone(), stream.top.clone())).collect()
    }

    pub(super) async fn publish(
        &self,
        node: usize,
        publication: Publication,
        options: PublishOptions,
    ) -> Result<Published, Error> {
        self.request(node, move |state| state.publish(publication, options)).await
    }

    /// Has something pushed to the node of this name, or to all.
    pub(super) async fn tell(&self, node: usize, to: Option<String>, control: Control) -> Result<(), Error> {
        let tell = move |state: &mut State| {
            let meant = |name: &String| to.as_ref().is_none_or(|to| to == name);
            let meant = state.connections.iter().filter(|(_, connection)| meant(&connection.name));
            let meant: Vec<u64> = meant.map(|(id, _)| *id).collect();
            let push = Push::Control(control);
            meant.into_iter().for_each(|connection| state.push_to(connection, &push));
        };
        self.request(node, tell).await
    }

    pub(super) async fn history(&self, node: usize, channel: Channel, query: HistoryQuery) -> Result<History, Error> {
        self.request(node, move |state| state.stream(&channel).read(&query)).await.map_err(unavailable)
    }

    pub(super) async fn remove_history(&self, node: usize, channel: Channel) -> Result<(), Error> {
        let remove = move |state: &mut State| {
            state.stream(&channel).entries.clear();
            state.push(&channel, &Push::Removed(channel.clone()));
        };
        self.request(node, remove).await
    }

    /// Reads the ends of streams; `None` where there is none.
    pub(super) async fn read_tops(&self, node: usize, channels: Vec<Channel>) -> Result<Vec<Option<Position>>, Error> {
        let read = move |state: &mut State| {
            let streams = &state.disk.streams;
            channels.iter().map(|channel| streams.get(channel).map(|stream| stream.top.clone())).collect()
        };
        self.request(node, read).await.map_err(unavailable)
    }

    /// Opens a node's connection for subscriptions.
    pub(super) async fn connect(&self, node: usize, name: &str) -> Result<u64, Error> {
        let name = name.to_owned();
        let open = move |state: &mut State| {
            state.last_connection += 1;
            let (channels, pushes, pushed) = (BTreeSet::new(), VecDeque::new(), Arc::default());
            let connection = Connection { node, name, channels, pushes, pushed };
            state.connections.insert(state.last_connection, connection);
            state.last_connection
        };
        self.request(node, open).await.map_err(unavailable)
    }

    /// Closes a connection; quiet if it is gone.
    pub(super) fn disconnect(&self, connection: u64) {
        self.0.state.lock().connections.remove(&connection);
    }

    /// Subscribes; confirmed by pushes.
    pub(super) async fn subscribe(&self, node: usize, connection: u64, channels: Vec<Channel>) -> Result<(), Error> {
        let subscribe = move |state: &mut State| {
            for channel in channels {
                let Some(found) = state.connections.get_mut(&connection) else { return };
                found.channels.insert(channel.clone());
                state.push_to(connection, &Push::Subscribed(channel));
            }
        };
        self.request(node, subscribe).await.map_err(unavailable)
    }

    pub(super) async fn unsubscribe(&self, node: usize, connection: u64, channels: Vec<Channel>) -> Result<(), Error> {
        let unsubscribe = move |state: &mut State| {
            let Some(found) = state.connections.get_mut(&connection) else { return };
            found.channels.retain(|channel| !channels.contains(channel));
        };
        self.request(node, unsubscribe).await.map_err(unavailable)
    }

    /// Has a heartbeat pushed into a connection.
    pub(super) async fn beat(&self, node: usize, connection: u64) -> Result<(), Error> {
        self.request(node, move |state| state.push_to(connection, &Push::Heartbeat)).await
    }

    /// Takes the next push; `None` when the connection has ended.
    pub(super) async fn receive(&self, connection: u64) -> Option<Push> {
        loop {
            let changed = self.0.changed.notified();
            let (due, pushed) = {
                let mut state = self.0.state.lock();
                let state = &mut *state;
                let found = state.connections.get_mut(&connection)?;
                let passable = !state.ways[found.node].partitioned && state.running == Running::Yes;
                let due = found.pushes.front().map(|(due, _)| *due).filter(|_| passable);
                if due.is_some_and(|due| due <= Instant::now()) {
                    return found.pushes.pop_front().map(|(_, push)| push);
                }
                (due, Arc::clone(&found.pushed))
            };
            let arrival = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pushed.notified().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = arrival => {}
            }
        }
    }

    /// Carries a request to the server and its answer back, if the way and the server let it.
    async fn request<T: Send + 'static>(
        &self,
        node: usize,
        apply: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let lost = async || {
            sleep(TIMEOUT).await;
            Err(Error::OutcomeUnknown)
        };
        let (arrival, run) = {
            let mut state = self.0.state.lock();
            if state.running == Running::No {
                return Err(Error::Unavailable("the server is down".into()));
            }
            // The clock's steps are milliseconds: what arrives in the same one has no order.
            let arrival = (Instant::now() + state.delay(node)).max(state.arrivals[node] + Duration::from_millis(1));
            state.arrivals[node] = arrival;
            (arrival, state.incarnation)
        };
        sleep_until(arrival).await;
        let asked = Arc::new(Mutex::new(Some(apply)));
        let answered = async {
            loop {
                let changed = self.0.changed.notified();
                {
                    let mut state = self.0.state.lock();
                    if state.ways[node].partitioned || state.incarnation != run || state.running == Running::No {
                        return None;
                    }
                    if state.running == Running::Yes {
                        let apply = asked.lock().take()?;
                        let answer = apply(&mut state);
                        return Some((answer, state.delay(node)));
                    }
                }
                changed.await;
            }
        };
        let Ok(answered) = timeout(TIMEOUT, answered).await else {
            self.0.state.lock().late.push(Box::new(move |state| {
                if let Some(apply) = asked.lock().take() {
                    apply(state);
                }
            }));
            return Err(Error::OutcomeUnknown);
        };
        let Some((answer, delay)) = answered else { return lost().await };
        sleep(delay).await;
        let arrives = {
            let state = self.0.state.lock();
            !state.ways[node].partitioned && state.incarnation == run && state.running == Running::Yes
        };
        if arrives { Ok(answer) } else { lost().await }
    }
}

impl State {
    fn delay(&mut self, node: usize) -> Duration {
        let most = self.ways[node].delay.as_micros() as u64;
        Duration::from_micros(self.rng.u64(0..=most))
    }

    fn publish(&mut self, mut publication: Publication, options: PublishOptions) -> Published {
        let key = options.idempotency_key.map(|key| (publication.channel.clone(), key));
        if let Some(known) = key.as_ref().and_then(|key| self.disk.results.get(key)) {
            return known.clone();
        }
        publication.stamp = None;
        if let Some(retention) = options.history {
            let (incarnation, jumps) = (self.incarnation, self.jumps);
            let stream = self.stream(&publication.channel);
            let prev = stream.top.offset;
            // Nothing of an earlier life may be minted again.
            let jump = if jumps && stream.writer != incarnation { incarnation << 20 } else { 0 };
            stream.top.offset = (prev + 1).max(jump);
            stream.writer = incarnation;
            publication.stamp = Some(Stamp { position: stream.top.clone(), prev });
            let publication = Arc::new(publication.clone());
            stream.entries.push_back((Instant::now() + retention.ttl, Arc::clone(&publication)));
            while stream.entries.len() > retention.size {
                stream.entries.pop_front();
            }
            self.minted.push(publication);
        }
        let published = Published { position: publication.stamp.as_ref().map(|stamp| stamp.position.clone()) };
        if let Some(key) = key {
            self.disk.results.insert(key, published.clone());
        }
        let channel = publication.channel.clone();
        self.push(&channel, &Push::Broadcast(Broadcast::Publication(Arc::new(publication))));
        published
    }

    fn push(&mut self, channel: &Channel, push: &Push) {
        let wanted = self.connections.iter().filter(|(_, connection)| connection.channels.contains(channel));
        let wanted: Vec<u64> = wanted.map(|(id, _)| *id).collect();
        wanted.into_iter().for_each(|connection| self.push_to(connection, push));
    }

    fn push_to(&mut self, id: u64, push: &Push) {
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
    fn stream(&mut self, channel: &Channel) -> &mut Stream {
        let (rng, incarnation) = (&mut self.rng, self.incarnation);
        let stream = self.disk.streams.entry(channel.clone()).or_insert_with(|| Stream {
            top: Position { epoch: Epoch::from(&*format!("{:08x}", rng.u32(..))), offset: 0 },
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
    fn read(&self, query: &HistoryQuery) -> History {
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

/// What only reads has no outcome that could be unknown.
fn unavailable(_: Error) -> Error {
    Error::Unavailable("no answer".into())
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("running", &self.0.state.lock().running).finish_non_exhaustive()
    }
}
