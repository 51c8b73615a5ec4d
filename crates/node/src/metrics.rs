//! The node's metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanwire_wire::Disconnect;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use parking_lot::Mutex;

use crate::moving::Why;

/// Handles of the node's metrics, made once.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) publications: Count,
    pub(crate) deliveries: Count,
    pub(crate) delivered_bytes: Count,
    pub(crate) writes: Counter,
    pub(crate) delivery_seconds: Histogram,
    pub(crate) publication_age_seconds: Histogram,
    pub(crate) worker_lag_seconds: Histogram,
    pub(crate) subscriptions: Gauge,
    pub(crate) channels: Gauge,
    pub(crate) queue_bytes: Gauge,
    pub(crate) recoveries: [Counter; 2],
    pub(crate) insufficient_state: Counter,
    pub(crate) lost_in_gaps: Counter,
    pub(crate) lost_late: Counter,
    pub(crate) broker_errors: Counter,
    moved: [Counter; Why::ALL.len()],
    /// By protocol, from its first connection on.
    connections: Arc<Mutex<Vec<(&'static str, Gauge)>>>,
    /// By reason.
    disconnects: Arc<[(&'static str, Counter)]>,
}

impl Metrics {
    /// Declares the metrics with the installed recorder.
    #[must_use]
    pub(crate) fn new() -> Self {
        describe_counter!(
            "fanwire_publications_total",
            "Publications the broker has acknowledged to this node, repetitions under an idempotency key included"
        );
        describe_counter!("fanwire_deliveries_total", "Broadcasts written to clients");
        describe_counter!("fanwire_delivered_bytes_total", Unit::Bytes, "Bytes of broadcasts written to clients");
        describe_counter!(
            "fanwire_writes_total",
            "Writes that carried broadcasts; deliveries over writes is how well turns coalesce"
        );
        describe_histogram!(
            "fanwire_delivery_seconds",
            Unit::Seconds,
            "From the dispatch of a broadcast to the end of its sweep, once for each worker"
        );
        describe_histogram!(
            "fanwire_publication_age_seconds",
            Unit::Seconds,
            "From when a node took a publication to the end of its sweep on this one, once for each worker"
        );
        describe_histogram!(
            "fanwire_worker_lag_seconds",
            Unit::Seconds,
            "How late a worker comes to what it has to do, ten times a second"
        );
        describe_gauge!("fanwire_connections", "Open client connections");
        describe_gauge!("fanwire_handing_over", "1 while clients are asked to come back to another node, else 0");
        gauge!("fanwire_handing_over").set(0.0);
        describe_gauge!(
            "fanwire_drain_phase",
            "How far the node is on its way down: 0 it serves, 1 balancers are to notice, 2 clients move, 3 it ends"
        );
        describe_gauge!(
            "fanwire_drain_remaining_connections",
            "Connections that still have to move, once the node is on its way down"
        );
        describe_gauge!("fanwire_drain_rate", "The most clients that move in a second, once they do");
        for name in ["fanwire_drain_phase", "fanwire_drain_remaining_connections", "fanwire_drain_rate"] {
            gauge!(name).set(0.0);
        }
        describe_counter!("fanwire_moved_total", "Clients asked to come back to another node, by why");
        describe_gauge!("fanwire_subscriptions", "Subscriptions of clients on this node");
        describe_gauge!("fanwire_channels", "Channels with subscribers, summed over the workers");
        describe_gauge!("fanwire_queue_bytes", Unit::Bytes, "Bytes that wait for full sockets");
        describe_counter!("fanwire_recoveries_total", "Recoveries that clients asked for, by outcome");
        describe_counter!(
            "fanwire_insufficient_state_total",
            "Subscriptions told that their position cannot be continued"
        );
        describe_counter!(
            "fanwire_unnoticed_losses_total",
            "Subscribers without a position that publications were lost for, by how it happened"
        );
        describe_counter!("fanwire_disconnects_total", "Connections that ended, by reason");
        describe_counter!("fanwire_broker_errors_total", "Requests the broker could not serve");
        let lost = |how| counter!("fanwire_unnoticed_losses_total", "how" => how);
        Self {
            publications: Count::of(counter!("fanwire_publications_total")),
            deliveries: Count::of(counter!("fanwire_deliveries_total")),
            delivered_bytes: Count::of(counter!("fanwire_delivered_bytes_total")),
            writes: counter!("fanwire_writes_total"),
            delivery_seconds: histogram!("fanwire_delivery_seconds"),
            publication_age_seconds: histogram!("fanwire_publication_age_seconds"),
            worker_lag_seconds: histogram!("fanwire_worker_lag_seconds"),
            subscriptions: gauge!("fanwire_subscriptions"),
            channels: gauge!("fanwire_channels"),
            queue_bytes: gauge!("fanwire_queue_bytes"),
            recoveries: ["failed", "complete"]
                .map(|outcome| counter!("fanwire_recoveries_total", "outcome" => outcome)),
            insufficient_state: counter!("fanwire_insufficient_state_total"),
            lost_in_gaps: lost("gap"),
            lost_late: lost("late"),
            broker_errors: counter!("fanwire_broker_errors_total"),
            moved: Why::ALL.map(|why| counter!("fanwire_moved_total", "why" => why.name())),
            connections: Arc::default(),
            disconnects: Disconnect::ALL.iter().map(|reason| (reason.name(), disconnects(reason.name()))).collect(),
        }
    }

    pub(crate) fn moved(&self, why: Why) {
        self.moved[why as usize].increment(1);
    }

    /// The gauge of open connections of one protocol.
    pub(crate) fn connections(&self, protocol: &'static str) -> Gauge {
        let mut known = self.connections.lock();
        if let Some((_, gauge)) = known.iter().find(|(name, _)| *name == protocol) {
            return gauge.clone();
        }
        let gauge = gauge!("fanwire_connections", "protocol" => protocol);
        known.push((protocol, gauge.clone()));
        gauge
    }

    /// Counts a connection that ended.
    pub(crate) fn disconnected(&self, reason: &Disconnect) {
        let name = reason.name();
        match self.disconnects.iter().find(|(known, _)| *known == name) {
            Some((_, counter)) => counter.increment(1),
            None => disconnects(name).increment(1),
        }
    }

    pub(crate) fn recovered(&self, complete: bool) {
        self.recoveries[usize::from(complete)].increment(1);
    }
}

/// A counter that the node itself reads, too.
#[derive(Clone)]
pub(crate) struct Count {
    shown: Counter,
    total: Arc<AtomicU64>,
}

impl Count {
    fn of(shown: Counter) -> Self {
        Self { shown, total: Arc::default() }
    }

    pub(crate) fn increment(&self, by: u64) {
        self.shown.increment(by);
        self.total.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

fn disconnects(reason: &'static str) -> Counter {
    let counter = counter!("fanwire_disconnects_total", "reason" => reason);
    counter.increment(0);
    counter
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
