//! `drain` and `rebalance`: clients that move to other nodes.

use std::sync::Arc;

use fanwire_node::{Missing, Node, NodeView, Rebalance};

use crate::caller::Caller;
use crate::proto::{DrainRequest, DrainResponse, NodeMoves, RebalanceRequest, RebalanceResponse};
use crate::types::Fault;

/// How many clients are asked in a second if nobody says.
const DEFAULT_RATE: f64 = 50.0;

/// The largest rate: more than any cluster takes.
const MAX_RATE: f64 = 1e6;

/// Lets a node go down as a signal would. Answers when it has begun.
pub(crate) async fn drain(node: &Node, _: &Caller, request: DrainRequest) -> Result<DrainResponse, Fault> {
    let mut nodes = node.nodes().await;
    let wanted = request.node;
    if !wanted.is_empty() {
        // An id is nobody's name unless somebody wants trouble.
        let exact = nodes.iter().any(|node| node.id == wanted);
        nodes.retain(|node| if exact { node.id == wanted } else { node.info.name == wanted });
        match nodes.len() {
            0 => return Err(Fault::bad(format!("there is no node {wanted:?}"))),
            1 => {}
            _ => return Err(Fault::bad(format!("several nodes are called {wanted:?}: give the uid"))),
        }
    }
    let NodeView { id, info, .. } = nodes.swap_remove(0);
    node.drain_node(&id).await?;
    Ok(DrainResponse { uid: id, name: info.name, num_clients: info.clients })
}

/// Asks the clients that nodes have above the mean to come back. Answers when it has begun.
pub(crate) async fn rebalance(
    node: &Arc<Node>,
    _: &Caller,
    request: RebalanceRequest,
) -> Result<RebalanceResponse, Fault> {
    let rate = request.rate.unwrap_or(DEFAULT_RATE);
    if !(rate > 0.0 && rate <= MAX_RATE) {
        return Err(Fault::bad(format!("rate must be above 0 and at most {MAX_RATE}")));
    }
    let Rebalance { keep, nodes, missing } = node.rebalance(rate).await.map_err(Fault::elsewhere)?;
    let Missing { silent, unsupported, unasked } = missing;
    let moves =
        |(NodeView { id, info, .. }, moving)| NodeMoves { uid: id, name: info.name, num_clients: info.clients, moving };
    Ok(RebalanceResponse { keep, nodes: nodes.into_iter().map(moves).collect(), silent, unsupported, unasked })
}
