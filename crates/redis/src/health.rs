//! Whether the node hears what it says.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// The state of a node's way through Redis and back. Clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    proven_at: Instant,
    up: bool,
}

impl Health {
    pub(crate) fn new() -> Self {
        metrics::describe_gauge!(
            "fanwire_redis_proof_age_seconds",
            metrics::Unit::Seconds,
            "Since a heartbeat of this node last came back through Redis"
        );
        metrics::describe_counter!("fanwire_redis_reconnects_total", "Subscriber connections lost, by reason");
        Self(Arc::new(Mutex::new(State { proven_at: Instant::now(), up: false })))
    }

    /// Whether publications arrive.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.lock().up
    }

    /// Since a heartbeat last came back; at first, since the start.
    #[must_use]
    pub fn proof_age(&self) -> Duration {
        self.0.lock().proven_at.elapsed()
    }

    pub(crate) fn proven(&self) {
        let mut state = self.0.lock();
        state.proven_at = Instant::now();
        if !std::mem::replace(&mut state.up, true) {
            drop(state);
            tracing::info!("Redis carries what this node publishes");
        }
    }

    pub(crate) fn down(&self, reason: &str) {
        let was_up = std::mem::replace(&mut self.0.lock().up, false);
        if was_up {
            tracing::warn!(reason, "the connection to Redis is lost, publications do not arrive");
        } else {
            tracing::debug!(reason, "no connection to Redis yet");
        }
    }

    /// Keeps the metric up to date, for ever.
    pub(crate) async fn report(self) {
        let age = metrics::gauge!("fanwire_redis_proof_age_seconds");
        loop {
            age.set(self.proof_age().as_secs_f64());
            sleep(Duration::from_millis(500)).await;
        }
    }
}
