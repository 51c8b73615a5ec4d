//! What the dashboard shows: the nodes, their work, and what stands out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_net::Handler;
use fanwire_node::{Missing, Node, NodeReport, NodeView};
use fanwire_redis::Health;
use fanwire_wire::cluster::{HotChannel, NodeInfo, Report, SlowClient, Traffic};
use futures_util::FutureExt;
use http::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::ops::{millis, respond};

/// Answers with what the nodes do. All nodes are asked for it, so those who look share an answer.
struct Status {
    node: Arc<Node>,
    health: Option<Health>,
    /// Held while asking: whoever comes meanwhile takes the same answer.
    answer: Mutex<Option<(Instant, Bytes)>>,
}

/// For how long an answer is good.
const FRESH: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";

/// The entries of each list.
const LIMIT: u32 = 10;

/// Serves `/status.json`. `health` is the broker's, if that can be ill.
pub(crate) fn handler(node: Arc<Node>, health: Option<Health>) -> Handler {
    let status = Arc::new(Status { node, health, answer: Mutex::default() });
    Arc::new(move |_request| {
        let status = Arc::clone(&status);
        async move { status.answer().await }.boxed()
    })
}

impl Status {
    async fn answer(&self) -> Response<Bytes> {
        let mut answer = self.answer.lock().await;
        if let Some((at, body)) = &*answer
            && at.elapsed() < FRESH
        {
            return respond(StatusCode::OK, JSON, body.clone());
        }
        let body = Bytes::from(serde_json::to_vec(&self.ask().await).unwrap_or_default());
        *answer = Some((Instant::now(), body.clone()));
        respond(StatusCode::OK, JSON, body)
    }

    async fn ask(&self) -> Answer {
        let (reports, missing) = match self.node.survey_reports(LIMIT).await {
            Ok(survey) => (survey.reports, survey.missing),
            // The others have been asked too much already: this node speaks for itself.
            Err(_) => {
                let own = NodeReport { node: self.node.id().to_owned(), report: self.node.report(LIMIT).await };
                (vec![own], Missing { unasked: true, ..Missing::default() })
            }
        };
        let named = |NodeReport { node, report }: &NodeReport| {
            report.clients.iter().map(|slow| Slow::new(node, slow)).collect::<Vec<_>>()
        };
        let mut clients: Vec<_> = reports.iter().flat_map(named).collect();
        clients.sort_by_key(|client| std::cmp::Reverse(client.waiting_bytes));
        clients.truncate(LIMIT as usize);
        let sum = Report::sum(reports.into_iter().map(|node| node.report), LIMIT as usize);
        Answer {
            nodes: self.node.nodes().await.into_iter().map(NodeEntry::from).collect(),
            redis: self
                .health
                .as_ref()
                .map(|health| RedisEntry { up: health.is_up(), proof_age_ms: millis(health.proof_age()) }),
            channels: sum.channels.into_iter().map(Hot::from).collect(),
            clients,
            missing: MissingEntry {
                silent: missing.silent,
                unsupported: missing.unsupported,
                unasked: missing.unasked,
            },
        }
    }
}

#[derive(Serialize)]
struct Answer {
    /// The one that answers comes first.
    nodes: Vec<NodeEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisEntry>,
    /// Of all nodes that answered, in the last 5 seconds; most deliveries first.
    channels: Vec<Hot>,
    /// Of all nodes that answered, most bytes first.
    clients: Vec<Slow>,
    /// The nodes whose channels and clients are not listed.
    missing: MissingEntry,
}

#[derive(Serialize)]
struct NodeEntry {
    id: String,
    name: String,
    version: String,
    state: &'static str,
    /// How old all this is.
    age_ms: u64,
    uptime_ms: u64,
    clients: u64,
    users: u64,
    subscriptions: u64,
    channels: u64,
    workers: u32,
    /// These three since the node's start.
    publications: u64,
    deliveries: u64,
    delivered_bytes: u64,
    waiting_bytes: u64,
    /// In the last 5 seconds; 0 if nothing was delivered.
    median_us: u64,
    p99_us: u64,
}

#[derive(Serialize)]
struct RedisEntry {
    up: bool,
    proof_age_ms: u64,
}

#[derive(Serialize)]
struct Hot {
    channel: String,
    subscribers: u64,
    publications_per_second: f64,
    deliveries_per_second: f64,
}

#[derive(Serialize)]
struct Slow {
    node: String,
    client: String,
    user: String,
    protocol: String,
    waiting_bytes: u64,
}

#[derive(Serialize)]
struct MissingEntry {
    silent: Vec<String>,
    unsupported: Vec<String>,
    unasked: bool,
}

impl From<NodeView> for NodeEntry {
    fn from(NodeView { id, info, age, silent }: NodeView) -> Self {
        let NodeInfo { name, version, uptime, clients, users, subscriptions, channels, workers, state, traffic } = info;
        let Traffic { publications, deliveries, delivered_bytes, waiting_bytes, median, p99 } = traffic;
        Self {
            id,
            name,
            version,
            state: if silent { "silent" } else { state.name() },
            age_ms: millis(age),
            uptime_ms: millis(uptime),
            clients,
            users,
            subscriptions,
            channels,
            workers,
            publications,
            deliveries,
            delivered_bytes,
            waiting_bytes,
            median_us: median.as_micros() as u64,
            p99_us: p99.as_micros() as u64,
        }
    }
}

impl From<HotChannel> for Hot {
    fn from(hot: HotChannel) -> Self {
        let HotChannel { channel, subscribers, publications_per_second, deliveries_per_second } = hot;
        Self { channel: channel.as_str().to_owned(), subscribers, publications_per_second, deliveries_per_second }
    }
}

impl Slow {
    fn new(node: &str, SlowClient { client, user, protocol, waiting_bytes }: &SlowClient) -> Self {
        Self {
            node: node.to_owned(),
            client: client.clone(),
            user: user.clone(),
            protocol: protocol.clone(),
            waiting_bytes: *waiting_bytes,
        }
    }
}
