//! Metrics and health, for the people and machines that run the node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_net::Handler;
use fanwire_node::{Node, Phase, Relief};
use futures_util::FutureExt;
use http::{Response, StatusCode, header};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use serde_json::json;

/// Installs the recorder behind every metric of the process.
///
/// # Errors
///
/// If one is installed already.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    metrics::describe_gauge!("fanwire_build_info", "Always 1; the labels say which build runs");
    metrics::gauge!("fanwire_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Histogram bounds in seconds: from a hop inside the node to a client that is hardly served.
const SECONDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Serves `/metrics`.
pub(crate) fn metrics(handle: PrometheusHandle) -> Handler {
    let process = Collector::default();
    process.describe();
    let process = Arc::new(process);
    Arc::new(move |_request| {
        process.collect();
        let body = handle.render();
        text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
    })
}

/// Serves `/health/live`: the process answers.
pub(crate) fn live() -> Handler {
    Arc::new(|_request| text(StatusCode::OK, "application/json", "{\"status\":\"live\"}"))
}

/// What `/health/ready` and the health checks of gRPC look at.
#[derive(Clone)]
pub(crate) struct Readiness {
    pub(crate) node: Arc<Node>,
    /// Of the broker, if that can be ill.
    pub(crate) health: Option<fanwire_redis::Health>,
    pub(crate) unready_when_down: bool,
}

impl Readiness {
    /// Whether new clients are welcome.
    pub(crate) fn is_ready(&self) -> bool {
        self.status().0
    }

    /// The same with the word for it.
    ///
    /// An overloaded node says so and stays ready: it turns new clients away by itself, and backends still reach it.
    /// A node that Redis does not reach is degraded, and still ready unless configured otherwise: an outage of Redis must not
    /// take all nodes out of a balancer at once.
    fn status(&self) -> (bool, &'static str) {
        match () {
            () if self.node.phase() > Phase::Active => (false, "shutting down"),
            () if !self.node.is_open() => (false, "handing over"),
            () if !self.is_up() => (!self.unready_when_down, "degraded"),
            () if self.node.relief() > Relief::Nothing => (true, "overloaded"),
            () => (true, "ready"),
        }
    }

    fn is_up(&self) -> bool {
        self.health.as_ref().is_none_or(fanwire_redis::Health::is_up)
    }

    /// Serves `/health/ready`.
    pub(crate) fn handler(self) -> Handler {
        Arc::new(move |_request| {
            let (ready, status) = self.status();
            let mut body = json!({ "status": status });
            if let Some(health) = &self.health {
                let up = self.is_up();
                let shards: Vec<_> = health.shards().iter().map(shard).collect();
                body["redis"] = json!({ "up": up, "proof_age_ms": millis(health.proof_age()), "shards": shards });
            }
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            text(code, "application/json", body.to_string())
        })
    }
}

fn shard(shard: &fanwire_redis::Shard) -> serde_json::Value {
    let fanwire_redis::Shard { shard, server, up, proof_age } = shard;
    json!({ "shard": shard, "server": server, "up": up, "proof_age_ms": millis(*proof_age) })
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> futures_util::future::BoxFuture<'static, Response<Bytes>> {
    std::future::ready(respond(status, content_type, body)).boxed()
}

pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
