//! A cluster of nodes on one server, and one schedule of what happens to it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{Config, Dispatcher, Namespace, Permission, Publish, Worker};
use fanwire_wire::{Channel, Payload};
use fastrand::Rng;
use futures_util::StreamExt;
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::broker::SimBroker;
use super::client::SimClient;
use super::faults;
use super::mutant::Mutant;
use super::server::Server;
use crate::Probe;
use crate::harness::{FakeClient, Harness, open_config};
use crate::oracle::{At, Entry, Figure, Log, Marker, Outcome, Published, Record, Report, Rules, Settled, Stream};

/// What came of a schedule.
pub struct Run {
    /// Everything that publishers and clients saw.
    pub log: Log,
    /// What the oracle says of it.
    pub report: Report,
    /// When the records of the log were made, but for the last ones, which sum it up.
    pub times: Vec<Duration>,
    /// What was done to the cluster, and when.
    pub faults: Vec<(Duration, String)>,
}

/// Runs the schedule that a seed decides, with a mistake in the gateway or without.
///
/// # Panics
///
/// When a node does.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without IO needs nothing that could be missing");
    LocalSet::new().block_on(&runtime, async {
        let mut rng = Rng::with_seed(seed);
        let cluster = Cluster::start(&mut rng, mutant);
        cluster.play(&mut rng).await;
        cluster.judge()
    })
}

/// Nodes, the server they meet at, and what everybody saw.
pub(super) struct Cluster {
    pub(super) server: Server,
    pub(super) nodes: Vec<Node>,
    pub(super) channels: Vec<String>,
    log: RefCell<Log>,
    /// When each record of the log was made.
    times: RefCell<Vec<Duration>>,
    pub(super) mutant: Option<Mutant>,
    rules: Rules,
    phase: Cell<Phase>,
    last_pub_id: Cell<u64>,
    begun: Instant,
    faults: RefCell<Vec<(Duration, String)>>,
}

/// One node.
pub(super) struct Node {
    harness: Harness,
    pub(super) workers: Vec<Rc<Worker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Everything happens.
    Restless,
    /// Faults are over; clients come back and stay.
    Rest,
    Over,
}

/// How long the cluster may take to come to rest.
const REST: Duration = Duration::from_secs(12);

/// How long an undisturbed publication, or the repair behind a new connection, may take.
const SOON: Duration = Duration::from_millis(1500);

impl Cluster {
    fn start(rng: &mut Rng, mutant: Option<Mutant>) -> Self {
        let history = *rng.choice(&[4, 12, 60]).expect("there are some");
        let count = rng.usize(2..=4);
        let workers = rng.usize(1..=2);
        let server = Server::new(rng.u64(..), count);
        if mutant == Some(Mutant::NoJump) {
            server.forget_to_jump();
        }
        let nodes = (0..count).map(|node| Node::start(&server, node, workers, config(history), mutant)).collect();
        Self {
            server,
            nodes,
            channels: ["s:1", "s:2", "plain"].map(str::to_owned).into(),
            log: RefCell::default(),
            times: RefCell::default(),
            mutant,
            rules: Rules { recoverable: history },
            phase: Cell::new(Phase::Restless),
            last_pub_id: Cell::default(),
            begun: Instant::now(),
            faults: RefCell::default(),
        }
    }

    async fn play(&self, rng: &mut Rng) {
        let clients: Vec<_> = (0..rng.usize(2..=6)).map(|number| SimClient::new(self, number, rng.u64(..))).collect();
        let publishers: Vec<_> = (0..rng.usize(1..=3)).map(|_| self.publish_on(Rng::with_seed(rng.u64(..)))).collect();
        let faults = faults::happen(self, rng.u64(..));
        let length = Duration::from_millis(rng.u64(1000..8000));
        let story = async {
            let ending = async {
                sleep(length).await;
                self.phase.set(Phase::Rest);
            };
            tokio::join!(ending, faults);
            sleep(REST).await;
            self.note("rest");
            for (channel, top) in self.server.tops() {
                let settled = Settled { channel: channel.as_str().to_owned(), top: At::from(&top) };
                self.record(Record::Settled(settled));
            }
            for channel in &self.channels {
                let marker = Marker { channel: channel.clone(), pub_id: self.last_pub_id.get() + 1 };
                self.record(Record::Marker(marker));
                self.publish_surely(channel).await;
            }
            sleep(SOON).await;
            // Connections are cut, something is published, and nothing follows that would show the gap.
            (0..self.nodes.len()).for_each(|node| self.server.cut(node));
            join_all(self.channels.iter().map(|channel| self.publish_surely(channel))).await;
            sleep(SOON).await;
            self.phase.set(Phase::Over);
        };
        // Each is polled only when it has something to do.
        let mut all: FuturesUnordered<LocalBoxFuture<'_, ()>> = FuturesUnordered::new();
        all.push(Box::pin(story));
        clients.into_iter().for_each(|client| all.push(Box::pin(client.live())));
        publishers.into_iter().for_each(|publisher| all.push(Box::pin(publisher)));
        while all.next().await.is_some() {}
    }

    pub(super) fn is_restless(&self) -> bool {
        self.phase.get() == Phase::Restless
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase.get() == Phase::Over
    }

    /// The channels with positions.
    pub(super) fn streams(&self) -> impl Iterator<Item = &String> {
        self.channels.iter().filter(|channel| channel.starts_with("s:"))
    }

    /// Writes down what is done to the cluster.
    pub(super) fn note(&self, what: impl Into<String>) {
        self.faults.borrow_mut().push((self.begun.elapsed(), what.into()));
    }

    /// Writes down what somebody saw.
    pub(super) fn record(&self, record: Record) {
        self.log.borrow_mut().records.push(record);
        self.times.borrow_mut().push(self.begun.elapsed());
    }

    /// Publishes now and then, as long as something happens.
    async fn publish_on(&self, mut rng: Rng) {
        while self.is_restless() {
            let Some(channel) = rng.choice(&self.channels) else { return };
            let burst = if rng.u8(..20) == 0 { rng.usize(2..20) } else { 1 };
            let node = rng.usize(..self.nodes.len());
            // A server that forgets its keys applies a repetition again, and on a plain channel nothing could show it.
            let keyed = channel.starts_with("s:") && rng.u8(..10) < 7;
            join_all((0..burst).map(|_| self.publish(channel, node, keyed))).await;
            sleep(Duration::from_millis(rng.u64(..150))).await;
        }
    }

    /// Publishes once more something new; with a key, until the outcome is known.
    async fn publish(&self, channel: &str, node: usize, keyed: bool) {
        let pub_id = self.next_pub_id();
        for attempt in 0..8 {
            let node = (node + attempt) % self.nodes.len();
            let unknown = self.attempt(channel, node, pub_id, keyed).await.is_none();
            if !keyed || !unknown {
                return;
            }
            sleep(Duration::from_millis(100 << attempt)).await;
        }
    }

    async fn publish_surely(&self, channel: &str) {
        let pub_id = self.next_pub_id();
        while self.attempt(channel, 0, pub_id, true).await != Some(true) {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it was applied; `None` if that is unknown.
    async fn attempt(&self, name: &str, node: usize, pub_id: u64, keyed: bool) -> Option<bool> {
        let channel = Channel::new(name).expect("a good name");
        let key = keyed.then(|| pub_id.to_string());
        let publish = Publish {
            idempotency_key: key.as_deref().map(Into::into),
            ..Publish::new(channel, Payload::json(pub_id.to_string().into()))
        };
        let published = self.nodes[node].harness.node.publish(publish).await;
        let (outcome, applied) = match published {
            Ok(published) => (Outcome::Acked(published.position.as_ref().map(At::from)), Some(true)),
            // Whether it was refused does not show in the answer.
            Err(_) => (Outcome::Unknown, None),
        };
        self.record(Record::Published(Published { pub_id, channel: name.to_owned(), key, outcome }));
        applied
    }

    fn next_pub_id(&self) -> u64 {
        self.last_pub_id.set(self.last_pub_id.get() + 1);
        self.last_pub_id.get()
    }

    /// Reads the streams into the log, and judges it.
    fn judge(&self) -> Run {
        let mut log = self.log.take();
        let minted = self.server.minted();
        let entry = |publication: &Arc<fanwire_wire::Publication>| {
            let stamp = publication.stamp.as_ref()?;
            let pub_id = serde_json::from_slice(publication.payload.bytes()).ok()?;
            Some(Entry { at: At::from(&stamp.position), prev: stamp.prev, pub_id })
        };
        for (channel, top) in self.server.tops() {
            let entries =
                minted.iter().filter(|publication| publication.channel == channel).filter_map(entry).collect();
            let stream = Stream { channel: channel.as_str().to_owned(), top: At::from(&top), entries };
            log.records.push(Record::Stream(stream));
        }
        let applied: HashSet<_> = minted.iter().filter_map(entry).map(|entry| entry.at).collect();
        let invented = log.records.iter().filter(|record| match record {
            Record::Published(Published { outcome: Outcome::Acked(Some(at)), .. }) => !applied.contains(at),
            _ => false,
        });
        let invented =
            Figure { name: "acked and never applied".into(), value: invented.count() as f64, at_most: Some(0.0) };
        log.records.push(Record::Figure(invented));
        Run { report: log.judge(&self.rules), log, times: self.times.take(), faults: self.faults.take() }
    }
}

impl Node {
    fn start(server: &Server, number: usize, workers: usize, config: Config, mutant: Option<Mutant>) -> Self {
        let dispatcher = Dispatcher::new(workers);
        let broker = SimBroker::new(server, number, Arc::clone(&dispatcher), mutant);
        let harness = Harness::with_dispatcher(config, dispatcher, Box::new(broker));
        let others = (1..workers).map(|index| Worker::start(&harness.node, index));
        let workers = [Rc::clone(&harness.worker)].into_iter().chain(others).collect();
        Self { harness, workers }
    }

    /// Opens a connection on one of its workers.
    pub(super) fn open(&self, worker: usize) -> FakeClient {
        FakeClient::open(&self.workers[worker], &Probe, &fanwire_node::protocol::Opening::default())
            .expect("the probe accepts everybody")
    }

    pub(super) fn harness(&self) -> &Harness {
        &self.harness
    }
}

/// Streams that keep so much, and plain channels.
fn config(history: usize) -> Config {
    let plain = Namespace { subscribe: Permission::Anyone, ..Namespace::default() };
    let stream = Namespace {
        name: "s".into(),
        history_size: history,
        history_ttl: Duration::from_secs(300),
        recovery: true,
        ..plain.clone()
    };
    let mut config = open_config(plain);
    config.namespaces.push(stream);
    config
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("report", &self.report).finish_non_exhaustive()
    }
}
