//! Backends: publish at a steady rate over the HTTP API of random nodes, and again until the outcome is known.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fanwire_testkit::oracle::{At, Outcome, Published};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::http::Http;

/// The nodes that serve: the balancer of the tests. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes(Arc<RwLock<Vec<Address>>>);

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) public: SocketAddr,
    pub(crate) control: SocketAddr,
}

impl Nodes {
    /// Sends nobody to any but these.
    pub(crate) fn set(&self, nodes: Vec<Address>) {
        *self.0.write() = nodes;
    }

    /// One of them, and another one than `not` if there is one.
    pub(crate) fn pick(&self, not: Option<SocketAddr>) -> Address {
        let nodes = self.0.read();
        let others: Vec<_> = nodes.iter().filter(|node| Some(node.public) != not).collect();
        *fastrand::choice(others).or(nodes.first()).expect("a node serves")
    }
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Publications per second, over all channels.
    pub(crate) rate: u32,
    /// When a publication is tried again.
    pub(crate) repeat: Repeat,
}

/// When a publication is tried again, under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Until it is done.
    Always,
    /// Until its outcome is known. What is refused, and was never unknown, must not arrive anywhere.
    Unknown,
    /// Never. For where Redis may forget the key: there a repetition is another publication.
    Never,
}

/// A publication, and how it went.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) published: Published,
    /// When the last answer came.
    pub(crate) at: Instant,
    /// The attempts that ended without an acknowledgement: when, and after how long.
    pub(crate) failures: Vec<(Instant, Duration)>,
}

/// Publishes until it is stopped.
#[derive(Debug)]
pub(crate) struct Publisher {
    stopped: Arc<AtomicBool>,
    ids: Arc<AtomicU64>,
    lanes: Vec<JoinHandle<Vec<Sent>>>,
}

/// Publications under way at the same moment. A channel's follow each other.
const LANES: usize = 24;

/// How long a request may take: more than a node may.
const PATIENCE: Duration = Duration::from_secs(3);

/// The code that says: nothing was applied.
const UNAVAILABLE: u32 = 503;

/// How long an unknown outcome is worked on.
const PERSISTENCE: Duration = Duration::from_secs(120);

impl Publisher {
    /// Begins to publish to all of these channels in turn.
    pub(crate) fn start(nodes: &Nodes, channels: &[String], load: Load) -> Self {
        let (stopped, ids) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let lanes = (0..LANES.min(channels.len())).map(|number| {
            let own = channels.iter().skip(number).step_by(LANES).cloned().collect::<Vec<_>>();
            let pause = Duration::from_secs(1).mul_f64(channels.len() as f64 / own.len() as f64 / f64::from(load.rate));
            let mut lane = Lane::new(nodes.clone(), load);
            let (stopped, ids) = (Arc::clone(&stopped), Arc::clone(&ids));
            tokio::spawn(async move {
                let mut ticks = interval(pause);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut sent = Vec::new();
                for channel in own.iter().cycle() {
                    ticks.tick().await;
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    sent.push(lane.publish(channel, ids.fetch_add(1, Ordering::Relaxed)).await);
                }
                sent
            })
        });
        Self { lanes: lanes.collect(), stopped, ids }
    }

    /// Publishes no more; returns what was published.
    pub(crate) async fn stop(&mut self) -> Vec<Sent> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for lane in self.lanes.drain(..) {
            sent.extend(lane.await.expect("a publisher ends well"));
        }
        sent
    }

    /// Publishes once to each of these channels, until it is done.
    pub(crate) async fn publish_to(&self, nodes: &Nodes, channels: &[String]) -> Vec<Sent> {
        let mut lane = Lane::new(nodes.clone(), Load { rate: 1, repeat: Repeat::Always });
        let mut sent = Vec::new();
        for channel in channels {
            sent.push(lane.publish(channel, self.ids.fetch_add(1, Ordering::Relaxed)).await);
        }
        sent
    }
}

/// One backend.
struct Lane {
    nodes: Nodes,
    load: Load,
    connections: HashMap<SocketAddr, Http>,
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Placed>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    code: u32,
}

#[derive(Deserialize)]
struct Placed {
    offset: Option<u64>,
    epoch: Option<String>,
}

impl Lane {
    fn new(nodes: Nodes, load: Load) -> Self {
        Self { nodes, load, connections: HashMap::new() }
    }

    async fn publish(&mut self, channel: &str, pub_id: u64) -> Sent {
        let key = format!("{pub_id}-{channel}");
        let data = json!({ "id": pub_id });
        let params = json!({ "channel": channel, "data": data, "idempotency_key": key }).to_string();
        let begun = Instant::now();
        let mut failures = Vec::new();
        let mut known = Outcome::Refused;
        loop {
            let attempted = Instant::now();
            let outcome = self.attempt(&params).await;
            if !matches!(outcome, Outcome::Acked(_)) {
                failures.push((Instant::now(), attempted.elapsed()));
            }
            if outcome != Outcome::Refused {
                known = outcome;
            }
            let open = match known {
                Outcome::Acked(_) => false,
                Outcome::Refused => self.load.repeat == Repeat::Always,
                Outcome::Unknown => self.load.repeat != Repeat::Never,
            };
            if !open || begun.elapsed() > PERSISTENCE {
                let published = Published { pub_id, channel: channel.to_owned(), key: Some(key), outcome: known };
                return Sent { published, at: Instant::now(), failures };
            }
            sleep(Duration::from_millis(fastrand::u64(10..100))).await;
        }
    }

    async fn attempt(&mut self, params: &str) -> Outcome {
        let address = self.nodes.pick(None).control;
        let http = self.connections.entry(address).or_insert_with(|| Http::new(address));
        match timeout(PATIENCE, http.api("publish", params)).await {
            Ok(Ok(answer)) => outcome(&answer),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }
    }
}

/// What an answer of the control plane says.
fn outcome(answer: &str) -> Outcome {
    let Ok(Answer { result, error }) = serde_json::from_str(answer) else { return Outcome::Unknown };
    match (result, error) {
        (Some(Placed { offset: Some(offset), epoch: Some(epoch) }), None) => Outcome::Acked(Some(At { epoch, offset })),
        (Some(_), None) => Outcome::Acked(None),
        (None, Some(Fault { code: UNAVAILABLE })) => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}
