//! The sequencer's metrics.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// Handles of the sequencer's metrics, made once.
pub(super) struct Metrics {
    pub(super) repaired: Counter,
    pub(super) lost: Counter,
    pub(super) interrupted: Counter,
    pub(super) from_memory: Counter,
    pub(super) from_broker: Counter,
    pub(super) reads: Counter,
}

impl Metrics {
    /// Declares the metrics with the installed recorder.
    pub(super) fn new() -> Self {
        describe_counter!("fanwire_gap_repairs_total", "History reads to fill a gap on the way from the broker");
        describe_counter!("fanwire_gaps_lost_total", "Gaps that no history read could fill");
        describe_counter!(
            "fanwire_interrupted_channels_total",
            "Channels without a stream that did not arrive for a while, counted once for each interruption"
        );
        describe_counter!(
            "fanwire_resumed_total",
            "Subscribers with a position that learned where they go on, by who knew it"
        );
        describe_counter!("fanwire_resume_reads_total", "History reads for such subscribers");
        describe_gauge!("fanwire_recent_bytes", Unit::Bytes, "Recent publications kept for subscribers that come back");
        let resumed = |from| counter!("fanwire_resumed_total", "from" => from);
        Self {
            repaired: counter!("fanwire_gap_repairs_total"),
            lost: counter!("fanwire_gaps_lost_total"),
            interrupted: counter!("fanwire_interrupted_channels_total"),
            from_memory: resumed("memory"),
            from_broker: resumed("broker"),
            reads: counter!("fanwire_resume_reads_total"),
        }
    }
}

/// The gauge of what is remembered of all channels.
pub(super) fn recent_bytes() -> Gauge {
    gauge!("fanwire_recent_bytes")
}
