//! A server that brokers meet at, in memory: streams, subscribers' connections, and the ways between it and each node.

mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::broker::{Error, History, HistoryQuery, PublishOptions, Published};
use fanwire_wire::cluster::Control;
use fanwire_wire::{Broadcast, Channel, Position, Publication};
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use state::{Connection, Disk, Running, State};

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

/// How long a request may wait for its answer.
const TIMEOUT: Duration = Duration::from_secs(1);

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

/// What only reads has no outcome that could be unknown.
fn unavailable(_: Error) -> Error {
    Error::Unavailable("no answer".into())
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("running", &self.0.state.lock().running).finish_non_exhaustive()
    }
}
