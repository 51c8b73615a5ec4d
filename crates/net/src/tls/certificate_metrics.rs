//! How certificates fare.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// How the certificate of a listener fares.
pub(super) struct Reloads {
    expiry: Gauge,
    done: Counter,
    failed: Counter,
}

impl Reloads {
    pub(super) fn new(listener: &'static str) -> Self {
        describe_gauge!(
            "fanwire_tls_certificate_expiry_timestamp_seconds",
            Unit::Seconds,
            "When the certificate that new connections get is no longer valid, in Unix time"
        );
        describe_counter!(
            "fanwire_tls_certificate_reloads_total",
            "Changed certificate files that were read, by outcome"
        );
        let reloads = |outcome: &'static str| counter!("fanwire_tls_certificate_reloads_total", "listener" => listener, "outcome" => outcome);
        Self {
            expiry: gauge!("fanwire_tls_certificate_expiry_timestamp_seconds", "listener" => listener),
            done: reloads("done"),
            failed: reloads("failed"),
        }
    }

    pub(super) fn expires(&self, when: SystemTime) {
        self.expiry.set(when.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
    }

    pub(super) fn count(&self, done: bool) {
        if done { &self.done } else { &self.failed }.increment(1);
    }
}
