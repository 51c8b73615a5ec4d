//! `nodes`, `info` and `report`.

use fanwire_node::{Missing, Node, NodeView};
use fanwire_wire::cluster::{Report, Traffic};

use crate::caller::Caller;
use crate::proto::{
    HotChannel, InfoRequest, InfoResponse, NodeInfo, NodesRequest, NodesResponse, ReportRequest, ReportResponse,
    SlowClient,
};
use crate::types::Fault;

/// Says which nodes there are.
pub(crate) async fn nodes(node: &Node, _: &Caller, _request: NodesRequest) -> Result<NodesResponse, Fault> {
    Ok(NodesResponse { nodes: node.nodes().await.into_iter().map(Into::into).collect() })
}

/// Says what each node has.
pub(crate) async fn info(node: &Node, _: &Caller, _request: InfoRequest) -> Result<InfoResponse, Fault> {
    let survey = node.survey_nodes().await?;
    let Missing { silent, unsupported, unasked } = survey.missing;
    Ok(InfoResponse { nodes: survey.nodes.into_iter().map(Into::into).collect(), silent, unsupported, unasked })
}

/// The entries of each list, if nobody says how many.
const LIMIT: u32 = 10;

/// The most there are.
const MAX_LIMIT: u32 = 32;

/// Says what stands out in the cluster.
pub(crate) async fn report(node: &Node, caller: &Caller, request: ReportRequest) -> Result<ReportResponse, Fault> {
    let limit = if request.limit == 0 { LIMIT } else { request.limit.min(MAX_LIMIT) };
    // A node's own lists are as long as they may be: what is hot in the cluster need not be hot on each node.
    let survey = node.survey_reports(MAX_LIMIT).await?;
    let Missing { silent, unsupported, unasked } = survey.missing;
    let Report { channels, clients } =
        Report::sum(survey.reports.into_iter().map(|report| report.report), MAX_LIMIT as usize);
    let channels = channels.into_iter().filter(|hot| caller.sees(hot.channel.as_str()));
    Ok(ReportResponse {
        channels: channels
            .take(limit as usize)
            .map(|hot| HotChannel {
                channel: hot.channel.as_str().to_owned(),
                num_clients: hot.subscribers,
                publications_per_second: hot.publications_per_second,
                deliveries_per_second: hot.deliveries_per_second,
            })
            .collect(),
        clients: clients
            .into_iter()
            .take(limit as usize)
            .map(|slow| SlowClient {
                client: slow.client,
                user: slow.user,
                protocol: slow.protocol,
                waiting_bytes: slow.waiting_bytes,
            })
            .collect(),
        silent,
        unsupported,
        unasked,
    })
}

impl From<NodeView> for NodeInfo {
    fn from(NodeView { id, info, age, silent }: NodeView) -> Self {
        let Traffic { publications, deliveries, delivered_bytes, waiting_bytes, median, p99 } = info.traffic;
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
            publications,
            deliveries,
            delivered_bytes,
            waiting_bytes,
            median_us: median.as_micros() as u64,
            p99_us: p99.as_micros() as u64,
        }
    }
}
