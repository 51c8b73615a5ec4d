//! Metrics and health, for the people and machines that run the node.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_net::Handler;
use futures_util::FutureExt;
use http::{Response, StatusCode, header};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

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

/// Serves `/health/ready`: new clients are welcome, until the node goes down.
///
/// A node that Redis does not reach is degraded and still ready: an outage of Redis must not take all nodes out of a
/// balancer at once.
pub(crate) fn ready(health: Option<fanwire_redis::Health>, leaving: tokio::sync::watch::Receiver<bool>) -> Handler {
    Arc::new(move |_request| {
        if *leaving.borrow() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "application/json", "{\"status\":\"shutting down\"}");
        }
        let Some(health) = &health else {
            return text(StatusCode::OK, "application/json", "{\"status\":\"ready\"}");
        };
        let status = if health.is_up() { "ready" } else { "degraded" };
        let age = health.proof_age().as_millis();
        let body =
            format!("{{\"status\":\"{status}\",\"redis\":{{\"up\":{},\"proof_age_ms\":{age}}}}}", health.is_up());
        text(StatusCode::OK, "application/json", body)
    })
}

fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> futures_util::future::BoxFuture<'static, Response<Bytes>> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    std::future::ready(response).boxed()
}
