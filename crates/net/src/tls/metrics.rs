//! How TLS handshakes end, counted.

use metrics::{Counter, counter, describe_counter};

use super::Failure;

/// How TLS handshakes ended.
pub(crate) struct Handshakes {
    done: Counter,
    failed: [Counter; Failure::NAMES.len()],
}

impl Handshakes {
    pub(crate) fn new() -> Self {
        describe_counter!("fanwire_tls_handshakes_total", "TLS handshakes, by outcome");
        let outcome = |outcome: &'static str| counter!("fanwire_tls_handshakes_total", "outcome" => outcome);
        Self { done: outcome("done"), failed: Failure::NAMES.map(outcome) }
    }

    pub(crate) fn done(&self) {
        self.done.increment(1);
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        self.failed[failure.index()].increment(1);
    }
}
