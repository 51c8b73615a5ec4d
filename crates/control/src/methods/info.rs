//! `info`.

use fanwire_node::{Missing, Node, NodeView};

use crate::caller::Caller;
use crate::proto::{InfoRequest, InfoResponse, NodeInfo};
use crate::types::Fault;

/// Says what each node has.
pub(crate) async fn info(node: &Node, _: &Caller, _request: InfoRequest) -> Result<InfoResponse, Fault> {
    let survey = node.survey_nodes().await?;
    let Missing { silent, unsupported, unasked } = survey.missing;
    Ok(InfoResponse { nodes: survey.nodes.into_iter().map(Into::into).collect(), silent, unsupported, unasked })
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
            state: if silent { "silent" } else { info.state.name() }.to_owned(),
            age_ms: age.as_millis() as u64,
        }
    }
}
