//! `info`.

use fanwire_node::Node;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::types::Fault;

#[derive(Debug, Deserialize)]
pub(crate) struct Request {}

#[derive(Debug, Serialize)]
pub(crate) struct Info {
    nodes: [NodeInfo; 1],
}

#[derive(Debug, Serialize)]
struct NodeInfo {
    uid: String,
    name: String,
    version: &'static str,
    num_clients: usize,
    num_users: usize,
    num_subs: usize,
    num_channels: usize,
    /// Seconds.
    uptime: u64,
}

/// Says what this node has.
pub(crate) async fn info(node: &Node, started: Instant) -> Result<Info, Fault> {
    let counts = node.counts().await;
    let node = NodeInfo {
        uid: node.id().to_owned(),
        // Nodes have no names of their own.
        name: node.id().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        num_clients: counts.clients,
        num_users: counts.users,
        num_subs: counts.subscriptions,
        num_channels: counts.channels,
        uptime: started.elapsed().as_secs(),
    };
    Ok(Info { nodes: [node] })
}
