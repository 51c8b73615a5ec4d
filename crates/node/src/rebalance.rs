//! Evening out: clients of nodes that have more than their share come back to the others.

use std::sync::Arc;

use fanwire_wire::Refusal;
use fanwire_wire::cluster::{NodeState, Question};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::broker::Error;
use crate::moving::Why;
use crate::{Missing, Node, NodeView, Phase};

/// What a rebalance set in motion.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebalance {
    /// The clients that each node keeps: the mean over the nodes that serve, rounded up.
    pub keep: u64,
    /// The nodes that serve, each with how many of its clients move.
    pub nodes: Vec<(NodeView, u64)>,
    /// Nodes that did not answer, or could not.
    pub missing: Missing,
}

/// The move that is under way on this node, if one is.
#[derive(Debug, Default)]
pub(crate) struct Rebalancing(Mutex<Option<AbortHandle>>);

impl Node {
    /// Asks the clients that nodes have above the mean to come back (3011), so many in a second over all nodes. Returns when
    /// it has begun; a move that was under way ends.
    ///
    /// # Errors
    ///
    /// Code 111 if too much has been asked of the others already. [`Refusal::OutcomeUnknown`] if some nodes may not have been told.
    pub async fn rebalance(self: &Arc<Self>, per_second: f64) -> Result<Rebalance, Refusal> {
        let survey = self.survey_nodes().await?;
        let serves = |node: &NodeView| node.info.state == NodeState::Active && !node.silent;
        let nodes: Vec<_> = survey.nodes.into_iter().filter(serves).collect();
        let keep = mean(nodes.iter().map(|node| node.info.clients));
        let above = |node: NodeView| {
            let moving = node.info.clients.saturating_sub(keep);
            (node, moving)
        };
        let nodes: Vec<_> = nodes.into_iter().map(above).collect();
        let fuller = nodes.iter().filter(|(_, moving)| *moving > 0).count();
        let mut missing = survey.missing;
        if fuller > 0 {
            let per_second = per_second / fuller as f64;
            self.move_above(keep, per_second);
            let asked = self.ask_all(Question::Rebalance { keep, per_second }).await?;
            if let Some(error) = asked.1 {
                self.broker_failed(&error);
                return Err(Refusal::OutcomeUnknown);
            }
            missing = asked.0;
        }
        Ok(Rebalance { keep, nodes, missing })
    }

    /// Lets one node of the cluster, by its id, go down as a signal would.
    ///
    /// # Errors
    ///
    /// Code 100 if it was not told, [`Refusal::OutcomeUnknown`] if it did not answer, 108 if its version does not know the question,
    /// 111 if too much has been asked of the others already.
    pub async fn drain_node(&self, id: &str) -> Result<(), Refusal> {
        if id == self.id() {
            self.begin_drain();
            return Ok(());
        }
        let (missing, error) = self.ask_all(Question::Drain { node: id.to_owned() }).await?;
        if let Some(error @ Error::Unavailable(_)) = &error {
            return Err(self.broker_failed(error));
        }
        if missing.unsupported.iter().any(|node| node == id) {
            return Err(Refusal::NotAvailable);
        }
        let answered = error.is_none() && !missing.silent.iter().any(|node| node == id);
        if answered { Ok(()) } else { Err(Refusal::OutcomeUnknown) }
    }

    /// Asks the clients above this number to come back, so many in a second. Replaces a move that is under way.
    pub(crate) fn move_above(self: &Arc<Self>, keep: u64, per_second: f64) {
        let node = Arc::clone(self);
        let moving = tokio::spawn(async move {
            let clients = node.counts().await.clients;
            let most = clients.saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
            if most > 0 && node.phase() == Phase::Active {
                tracing::info!(clients, keep, per_second, "clients move to nodes that have fewer");
                node.move_clients(Why::Rebalance, per_second, most).await;
            }
        });
        if let Some(earlier) = self.rebalancing().0.lock().replace(moving.abort_handle()) {
            earlier.abort();
        }
    }

    /// Ends a move that is under way.
    pub(crate) fn stop_rebalancing(&self) {
        if let Some(moving) = self.rebalancing().0.lock().take() {
            moving.abort();
        }
    }
}

/// The mean, rounded up; 0 of nothing.
fn mean(counts: impl ExactSizeIterator<Item = u64>) -> u64 {
    let nodes = counts.len() as u64;
    counts.sum::<u64>().div_ceil(nodes.max(1))
}
