//! Whether the node hears what it says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// The state of a node's ways through Redis and back, one for each server. Clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    shards: BTreeMap<usize, Way>,
    /// Since when parts of the channels have no server, if there are any.
    parted_since: Option<Instant>,
}

#[derive(Debug)]
struct Way {
    server: String,
    proven_at: Instant,
    up: bool,
}

/// One server, and whether what the node publishes there comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number: the place in the list of URLs, or one of its own in a cluster.
    pub shard: usize,
    /// Where it is.
    pub server: String,
    /// Whether publications arrive.
    pub up: bool,
    /// Since a heartbeat last came back; at first, since it was known.
    pub proof_age: Duration,
}

impl Health {
    pub(crate) fn new() -> Self {
        metrics::describe_gauge!(
            "fanwire_redis_proof_age_seconds",
            metrics::Unit::Seconds,
            "Since a heartbeat of this node last came back through Redis, by shard"
        );
        metrics::describe_counter!(
            "fanwire_redis_reconnects_total",
            "Subscriber connections lost, by shard and reason"
        );
        Self(Arc::new(Mutex::new(State { shards: BTreeMap::new(), parted_since: Some(Instant::now()) })))
    }

    /// Whether publications arrive, those of all channels.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let state = self.0.lock();
        state.parted_since.is_none() && state.shards.values().all(|way| way.up)
    }

    /// Since a heartbeat last came back, on the way where it is longest ago.
    #[must_use]
    pub fn proof_age(&self) -> Duration {
        self.0.lock().proofs().map(|at| at.elapsed()).max().unwrap_or_default()
    }

    /// For how long nothing has arrived from any server; `None` while something does.
    #[must_use]
    pub fn cut_off(&self) -> Option<Duration> {
        let state = self.0.lock();
        if state.shards.values().any(|way| way.up) {
            return None;
        }
        state.proofs().map(|at| at.elapsed()).min()
    }

    /// Every server by itself.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let shard = |(shard, way): (&usize, &Way)| Shard {
            shard: *shard,
            server: way.server.clone(),
            up: way.up,
            proof_age: way.proven_at.elapsed(),
        };
        self.0.lock().shards.iter().map(shard).collect()
    }

    /// Whether publications arrive from one server.
    pub(crate) fn is_shard_up(&self, shard: usize) -> bool {
        self.0.lock().shards.get(&shard).is_some_and(|way| way.up)
    }

    pub(crate) fn shard_proof_age(&self, shard: usize) -> Duration {
        self.0.lock().shards.get(&shard).map(|way| way.proven_at.elapsed()).unwrap_or_default()
    }

    /// A server begins to count.
    pub(crate) fn begin(&self, shard: usize, server: &impl ToString) {
        let way = Way { server: server.to_string(), proven_at: Instant::now(), up: false };
        self.0.lock().shards.insert(shard, way);
    }

    /// A server counts no more.
    pub(crate) fn end(&self, shard: usize) {
        self.0.lock().shards.remove(&shard);
        age(shard).set(0);
    }

    /// Whether each part of the channels has a server.
    pub(crate) fn set_whole(&self, whole: bool) {
        let mut state = self.0.lock();
        state.parted_since = if whole { None } else { Some(state.parted_since.unwrap_or_else(Instant::now)) };
    }

    pub(crate) fn proven(&self, shard: usize) {
        let mut state = self.0.lock();
        let Some(way) = state.shards.get_mut(&shard) else { return };
        way.proven_at = Instant::now();
        if !std::mem::replace(&mut way.up, true) {
            let server = way.server.clone();
            drop(state);
            tracing::info!(shard, server, "Redis carries what this node publishes");
        }
    }

    pub(crate) fn down(&self, shard: usize, reason: &str) {
        let mut state = self.0.lock();
        let Some(way) = state.shards.get_mut(&shard) else { return };
        let (was_up, server) = (std::mem::replace(&mut way.up, false), way.server.clone());
        drop(state);
        if was_up {
            tracing::warn!(shard, server, reason, "the connection to Redis is lost, publications do not arrive");
        } else {
            tracing::debug!(shard, server, reason, "no connection to Redis yet");
        }
    }

    /// Keeps the metric up to date, for ever.
    pub(crate) async fn report(self) {
        loop {
            for shard in self.shards() {
                age(shard.shard).set(shard.proof_age.as_secs_f64());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

impl State {
    /// When each way was last proven, and since when there is none.
    fn proofs(&self) -> impl Iterator<Item = Instant> {
        self.shards.values().map(|way| way.proven_at).chain(self.parted_since)
    }
}

fn age(shard: usize) -> metrics::Gauge {
    metrics::gauge!("fanwire_redis_proof_age_seconds", "shard" => shard.to_string())
}
