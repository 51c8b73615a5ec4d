//! Nodes under load while something breaks between or under them, and the oracle's verdict on what their clients saw.

mod publishers;
mod subscribers;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fanwire_node::broker::Order;
use fanwire_node::{Dispatcher, HistoryRequest, Namespace};
use fanwire_redis::{Config, Health};
use fanwire_testkit::Harness;
use fanwire_testkit::harness::open_config;
use fanwire_testkit::oracle::{At, Entry, Log, Outcome, Record, Report, Rules, Stream};
use fanwire_wire::{Channel, Payload};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use publishers::Publishers;
pub(crate) use publishers::Settle;
use subscribers::Subscriber;

/// Nodes in one process over real servers, each with clients on every channel.
pub(crate) struct Load {
    nodes: Vec<Rc<Node>>,
    subscribers: Vec<Subscriber>,
    publishers: Publishers,
    watcher: JoinHandle<()>,
    health: Rc<RefCell<Vec<(Instant, bool)>>>,
}

/// A node.
pub(crate) struct Node {
    pub(crate) harness: Harness,
    pub(crate) health: Health,
}

/// What came of it.
pub(crate) struct Verdict {
    pub(crate) report: Report,
    /// When a publication was acknowledged that had been refused, or arrived late: the moments of trouble.
    trouble: Vec<Instant>,
    /// Changes of state: whether everything arrives at all nodes.
    health: Vec<(Instant, bool)>,
}

pub(crate) const NODES: usize = 3;

/// Channels with recovery, and those without.
pub(crate) const RECOVERABLE: usize = 24;
const PLAIN: usize = 6;

/// What arrives so long after its acknowledgement is late.
const LATE: Duration = Duration::from_millis(250);

impl Load {
    /// Starts nodes with this configuration, their clients, and the publishers.
    pub(crate) async fn start(config: &Config, settle: Settle) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let dispatcher = Dispatcher::new(1);
            let redis = fanwire_redis::start(config, dispatcher.clone()).expect("a good configuration");
            let harness = Harness::with_dispatcher(namespaces(), dispatcher, Box::new(redis.broker));
            nodes.push(Rc::new(Node { harness, health: redis.health }));
        }
        let states = Rc::new(RefCell::new(Vec::new()));
        let watcher = tokio::task::spawn_local(watch(nodes.clone(), Rc::clone(&states)));
        until("all nodes are up", || nodes.iter().all(|node| node.health.is_up())).await;
        let mut subscribers = Vec::new();
        for name in channels() {
            for (number, node) in nodes.iter().enumerate() {
                subscribers.push(Subscriber::start(format!("client {number}"), name.clone(), Rc::clone(node)));
            }
        }
        until("everybody is subscribed", || subscribers.iter().all(Subscriber::is_live)).await;
        let publishers = Publishers::start(&nodes, &channels(), settle);
        sleep(Duration::from_millis(500)).await;
        Self { nodes, subscribers, publishers, watcher, health: states }
    }

    /// Waits until everything arrives everywhere.
    pub(crate) async fn until_up(&self) {
        until("all nodes are up", || self.nodes.iter().all(|node| node.health.is_up())).await;
    }

    /// Waits until publishing works through every node: something is acknowledged that was not yet begun when this was called.
    /// A node that still looks for the old primary would find it when that comes back, and what it takes then is lost.
    pub(crate) async fn until_publishing(&self) {
        for name in channels() {
            self.publishers.publish_everywhere(&name).await;
        }
    }

    /// Ends the load and judges.
    pub(crate) async fn finish(mut self) -> Verdict {
        sleep(Duration::from_millis(500)).await;
        self.publishers.stop().await;
        let mut last = Vec::new();
        for name in channels() {
            last.push((self.publishers.publish_surely(&name).await, name));
        }
        for (pub_id, name) in &last {
            for subscriber in self.subscribers.iter().filter(|subscriber| subscriber.channel == *name) {
                let what = format!("{} on {name} sees {pub_id}", subscriber.name);
                until(&what, || subscriber.last() == Some(*pub_id)).await;
            }
        }
        self.watcher.abort();
        let mut log = Log::default();
        let mut trouble = Vec::new();
        let sent = self.publishers.take();
        for sent in &sent {
            log.published(sent.published.clone());
            trouble.extend(sent.failed.then_some(sent.at));
        }
        for name in channels().iter().filter(|name| name.starts_with("long:")) {
            log.records.push(Record::Stream(self.stream(name).await));
        }
        let acked = |pub_id| sent.iter().find(|sent| sent.published.pub_id == pub_id).map(|sent| sent.at);
        for subscriber in &self.subscribers {
            for (at, event) in subscriber.take() {
                if let fanwire_testkit::oracle::Event::Publication { pub_id: Some(pub_id), .. } = event
                    && acked(pub_id).is_some_and(|acked| at > acked + LATE)
                {
                    trouble.push(at);
                }
                log.seen(&subscriber.name, &subscriber.channel, event);
            }
        }
        trouble.sort();
        assert!(sent.iter().all(|sent| sent.published.outcome != Outcome::Refused), "publishers do not give up");
        let health = self.health.borrow().clone();
        Verdict { report: log.judge(&Rules::default()), trouble, health }
    }

    async fn stream(&self, name: &str) -> Stream {
        let request = HistoryRequest { limit: -1, since: None, order: Order::Forward };
        let (node, name) = (&self.nodes[0].harness.node, channel(name));
        let read = async {
            loop {
                match node.history(&name, request.clone()).await {
                    Ok(history) => return history,
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let history = timeout(Duration::from_secs(20), read).await.expect("read");
        let entry = |publication: &std::sync::Arc<fanwire_wire::Publication>| {
            let stamp = publication.stamp.as_ref().expect("a stamp");
            Entry { at: At::from(&stamp.position), prev: stamp.prev, pub_id: id(&publication.payload) }
        };
        Stream {
            channel: name.as_str().to_owned(),
            top: At::from(&history.top),
            entries: history.publications.iter().map(entry).collect(),
        }
    }
}

impl Verdict {
    /// From the fault until the first node knew, and until nothing failed and nothing was late any more.
    pub(crate) fn times(&self, fault: Instant, end: Instant) -> String {
        let within = |at: &&Instant| **at > fault && **at <= end;
        let last = self.trouble.iter().rfind(within).map_or(Duration::ZERO, |at| *at - fault);
        let known = self.health.iter().find(|(at, up)| within(&at) && !up).map(|(at, _)| *at - fault);
        let known = known.map_or("–".to_owned(), |known| format!("{:.2} s", known.as_secs_f64()));
        format!("detected after {known}, converged after {:.2} s", last.as_secs_f64())
    }

    /// Prints the figures.
    #[allow(clippy::print_stdout, reason = "the figures are what these tests are for")]
    pub(crate) fn print(&self, name: &str) {
        let Report { acked, delivered, lost, duplicated, reordered, told, told_without_need, .. } = self.report;
        let Report { lost_plain, acked_but_lost, .. } = self.report;
        println!(
            "{name}: {acked} acked, {delivered} delivered, {lost} lost, {duplicated} duplicated, {reordered} reordered, \
             {told} told, {told_without_need} without need, {acked_but_lost} forgotten by Redis, {lost_plain} lost on \
             plain channels"
        );
    }

    /// Fails unless nothing is lost, twice, out of order, or told without need.
    pub(crate) fn assert_clean(&self) {
        let Report { acked, lost, duplicated, reordered, .. } = self.report;
        assert!(acked > 0);
        assert_eq!((lost, duplicated, reordered), (0, 0, 0), "{}", self.report);
        self.report.assert_clean();
    }
}

async fn watch(nodes: Vec<Rc<Node>>, states: Rc<RefCell<Vec<(Instant, bool)>>>) {
    loop {
        let up = nodes.iter().all(|node| node.health.is_up());
        if states.borrow().last().is_none_or(|(_, last)| *last != up) {
            states.borrow_mut().push((Instant::now(), up));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn namespaces() -> fanwire_node::Config {
    let long = Namespace {
        name: "long".into(),
        history_size: 20_000,
        history_ttl: Duration::from_secs(3600),
        recovery: true,
        presence: false,
        join_leave: false,
        ..Namespace::open("long")
    };
    let plain = Namespace {
        name: String::new(),
        history_size: 0,
        history_ttl: Duration::ZERO,
        recovery: false,
        ..long.clone()
    };
    let mut config = open_config(Namespace { positioning: false, ..plain });
    config.client.queue_size = 64 * 1024 * 1024;
    config.namespaces.push(long);
    config
}

fn channels() -> Vec<String> {
    (0..RECOVERABLE).map(|n| format!("long:{n}")).chain((0..PLAIN).map(|n| format!("plain{n}"))).collect()
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}

fn id(payload: &Payload) -> u64 {
    std::str::from_utf8(payload.bytes()).ok().and_then(|text| text.parse().ok()).expect("an id")
}

pub(crate) async fn until(what: &str, mut wanted: impl FnMut() -> bool) {
    let wait = async {
        while !wanted() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_secs(40), wait).await.is_ok(), "waited in vain: {what}");
}
