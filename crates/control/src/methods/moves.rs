//! `drain` and `rebalance`: clients that move to other nodes.

use std::sync::Arc;

use fanwire_node::{Node, NodeView};
use serde::{Deserialize, Serialize};

use crate::caller::{About, Subject};
use crate::types::{Fault, Missing, given};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Drain {
    /// The id or the name of a node; the one that is asked, if not given.
    #[serde(deserialize_with = "given")]
    node: Option<String>,
}

impl About for Drain {
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

/// A node that clients leave, or may leave.
#[derive(Debug, Serialize)]
pub(crate) struct Leaving {
    uid: String,
    name: String,
    num_clients: u64,
}

/// Lets a node go down as a signal would. Answers when it has begun.
pub(crate) async fn drain(node: &Node, request: Drain) -> Result<Leaving, Fault> {
    let mut nodes = node.nodes().await;
    if let Some(wanted) = &request.node {
        // An id is nobody's name unless somebody wants trouble.
        let exact = nodes.iter().any(|node| node.id == *wanted);
        nodes.retain(|node| if exact { node.id == *wanted } else { node.info.name == *wanted });
        match nodes.len() {
            0 => return Err(Fault::bad(format!("there is no node {wanted:?}"))),
            1 => {}
            _ => return Err(Fault::bad(format!("several nodes are called {wanted:?}: give the uid"))),
        }
    }
    let meant = nodes.swap_remove(0);
    node.drain_node(&meant.id).await?;
    Ok(meant.into())
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Rebalance {
    /// The most clients that are asked in a second, over all nodes.
    rate: f64,
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { rate: 50.0 }
    }
}

impl About for Rebalance {
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Moves {
    /// What each node keeps.
    keep: u64,
    nodes: Vec<Move>,
    #[serde(flatten)]
    missing: Missing,
}

#[derive(Debug, Serialize)]
struct Move {
    #[serde(flatten)]
    node: Leaving,
    /// How many of its clients are asked to come back.
    moving: u64,
}

/// The largest rate: more than any cluster takes.
const MAX_RATE: f64 = 1e6;

/// Asks the clients that nodes have above the mean to come back. Answers when it has begun.
pub(crate) async fn rebalance(node: &Arc<Node>, request: Rebalance) -> Result<Moves, Fault> {
    if !(request.rate > 0.0 && request.rate <= MAX_RATE) {
        return Err(Fault::bad(format!("rate must be above 0 and at most {MAX_RATE}")));
    }
    let begun = node.rebalance(request.rate).await;
    let fanwire_node::Rebalance { keep, nodes, missing } = begun.map_err(Fault::elsewhere)?;
    let nodes = nodes.into_iter().map(|(node, moving)| Move { node: node.into(), moving }).collect();
    Ok(Moves { keep, nodes, missing: missing.into() })
}

impl From<NodeView> for Leaving {
    fn from(NodeView { id, info, .. }: NodeView) -> Self {
        Self { uid: id, name: info.name, num_clients: info.clients }
    }
}
