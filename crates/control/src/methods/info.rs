//! `info`.

use fanwire_node::{Node, NodeView};
use serde::{Deserialize, Serialize};

use crate::caller::{About, Subject};
use crate::types::{Fault, Missing};

#[derive(Debug, Deserialize)]
pub(crate) struct Request {}

impl About for Request {
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Info {
    nodes: Vec<NodeInfo>,
    #[serde(flatten)]
    missing: Missing,
}

#[derive(Debug, Serialize)]
struct NodeInfo {
    uid: String,
    name: String,
    version: String,
    num_clients: u64,
    num_users: u64,
    num_subs: u64,
    num_channels: u64,
    /// Seconds.
    uptime: u64,
    num_workers: u32,
    state: &'static str,
    /// Of the numbers, in milliseconds.
    age_ms: u64,
}

/// Says what each node has.
pub(crate) async fn info(node: &Node) -> Result<Info, Fault> {
    let survey = node.survey_nodes().await?;
    Ok(Info { nodes: survey.nodes.into_iter().map(Into::into).collect(), missing: survey.missing.into() })
}

impl From<NodeView> for NodeInfo {
    fn from(NodeView { id, info, age, silent }: NodeView) -> Self {
        Self {
            uid: id,
            name: info.name,
            version: info.version,
            num_clients: info.clients,
            num_users: info.users,
            num_subs: info.subscriptions,
            num_channels: info.channels,
            uptime: info.uptime.as_secs(),
            num_workers: info.workers,
            state: if silent { "silent" } else { info.state.name() },
            age_ms: age.as_millis() as u64,
        }
    }
}
