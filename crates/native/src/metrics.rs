//! The protocol's metrics.

use fanwire_wire::Refusal;
use metrics::{Counter, counter, describe_counter};

use crate::NAME;
use crate::request::Kind;

/// Handles of the protocol's metrics, made once.
pub(crate) struct Metrics {
    /// In the order of [`Kind::ALL`].
    commands: Vec<Counter>,
    /// In the order of [`Refusal::ALL`].
    refusals: Vec<Counter>,
    /// By a backend, in its own words.
    by_backend: Counter,
}

impl Metrics {
    /// Declares the metrics with the installed recorder.
    pub(crate) fn new() -> Self {
        describe_counter!("fanwire_commands_total", "Commands that clients sent, by protocol and kind");
        describe_counter!("fanwire_refusals_total", "Requests of clients that were refused, by reason");
        let command = |kind: &Kind| counter!("fanwire_commands_total", "protocol" => NAME, "command" => kind.name());
        let refusal = |refusal: &Refusal| counter!("fanwire_refusals_total", "refusal" => refusal.name());
        let by_backend = counter!("fanwire_refusals_total", "refusal" => "backend");
        Self {
            commands: Kind::ALL.iter().map(command).collect(),
            refusals: Refusal::ALL.iter().map(refusal).collect(),
            by_backend,
        }
    }

    /// Counts a command.
    pub(crate) fn command(&self, kind: Kind) {
        self.commands[kind as usize].increment(1);
    }

    /// Counts a refused request.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refusals[refusal as usize].increment(1);
    }

    /// Counts a request that a backend refused in its own words.
    pub(crate) fn refused_by_backend(&self) {
        self.by_backend.increment(1);
    }
}
