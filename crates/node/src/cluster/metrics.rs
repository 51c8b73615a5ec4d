//! The metrics of a node among others.

use std::fmt;

use fanwire_wire::cluster::ControlBody;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Handles of the metrics, made once.
pub(super) struct Metrics {
    pub(super) nodes: Gauge,
    questions: [Counter; 3],
    replies: Counter,
}

/// How a question to the other nodes ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// All of them answered.
    Complete,
    /// Some did not, or could not.
    Partial,
    /// They could not be asked.
    Failed,
}

impl Metrics {
    /// Declares the metrics with the installed recorder.
    pub(super) fn new() -> Self {
        describe_gauge!("fanwire_nodes", "Nodes of the cluster that this one sees, itself included");
        describe_counter!("fanwire_node_messages_total", "What other nodes told or asked this one, by kind");
        describe_counter!(
            "fanwire_node_messages_dropped_total",
            "What other nodes told or asked this one and it had no room for"
        );
        describe_counter!("fanwire_node_questions_total", "What this node asked the others, by outcome");
        for kind in ControlBody::KINDS {
            message(kind).increment(0);
        }
        let nodes = gauge!("fanwire_nodes");
        nodes.set(1.0);
        let questions = ["complete", "partial", "failed"]
            .map(|outcome| counter!("fanwire_node_questions_total", "outcome" => outcome));
        Self { nodes, questions, replies: message("reply") }
    }

    pub(super) fn asked(&self, outcome: Outcome) {
        self.questions[outcome as usize].increment(1);
    }

    pub(super) fn heard(&self, body: &ControlBody) {
        message(body.kind()).increment(1);
    }

    pub(super) fn answered(&self) {
        self.replies.increment(1);
    }
}

fn message(kind: &'static str) -> Counter {
    counter!("fanwire_node_messages_total", "kind" => kind)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
