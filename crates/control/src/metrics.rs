//! The control plane's metrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::methods::Method;
use crate::types::Fault;

/// Handles of the control plane's metrics, made once.
pub(crate) struct Metrics {
    /// By method, in the order of [`Method::ALL`], and outcome, in the order of [`OUTCOMES`].
    requests: Vec<[Counter; OUTCOMES.len()]>,
    /// The same for requests that name no method.
    unknown: [Counter; OUTCOMES.len()],
    seconds: Vec<Histogram>,
    /// Calls of PublishStream that are open.
    pub(crate) streams: Gauge,
}

const OUTCOMES: [&str; 6] = ["ok", "error", "malformed", "unauthorized", "denied", "limited"];

/// Handles of the metrics of one key. Its name comes from the configuration.
#[derive(Debug)]
pub(crate) struct OfKey([Counter; OUTCOMES.len()]);

impl OfKey {
    pub(crate) fn new(name: &Arc<str>) -> Self {
        describe_counter!("fanwire_api_key_requests_total", "Calls made with each API key, those in batches included");
        let counter = |outcome: &'static str| counter!("fanwire_api_key_requests_total", "key" => Arc::clone(name), "outcome" => outcome);
        Self(OUTCOMES.map(counter))
    }

    /// Counts what became of a call.
    pub(crate) fn count(&self, fault: Option<&Fault>) {
        self.0[outcome(fault)].increment(1);
    }
}

impl Metrics {
    /// Declares the metrics with the installed recorder.
    pub(crate) fn new() -> Self {
        describe_counter!("fanwire_api_requests_total", "Calls of the control plane, those in batches included");
        describe_histogram!("fanwire_api_seconds", Unit::Seconds, "How long a call of the control plane took");
        describe_gauge!("fanwire_api_publish_streams", "Calls of PublishStream that are open");
        let requests = |method: &'static str| {
            OUTCOMES.map(|outcome| counter!("fanwire_api_requests_total", "method" => method, "outcome" => outcome))
        };
        let methods = Method::ALL.iter().map(|method| method.name());
        Self {
            requests: methods.clone().map(requests).collect(),
            unknown: requests("unknown"),
            streams: gauge!("fanwire_api_publish_streams"),
            seconds: methods.map(|method| histogram!("fanwire_api_seconds", "method" => method)).collect(),
        }
    }

    /// Counts a call that was made.
    pub(crate) fn called(&self, method: Method, fault: Option<&Fault>, took: Duration) {
        self.requests[method as usize][outcome(fault)].increment(1);
        self.seconds[method as usize].record(took);
    }

    /// Counts a request that led to no call.
    pub(crate) fn turned_away(&self, method: Option<Method>, fault: &Fault) {
        let counters = method.map_or(&self.unknown, |method| &self.requests[method as usize]);
        counters[outcome(Some(fault))].increment(1);
    }
}

/// The index of an outcome in [`OUTCOMES`].
fn outcome(fault: Option<&Fault>) -> usize {
    match fault.map(|fault| fault.status) {
        None => 0,
        Some(StatusCode::BAD_REQUEST) => 2,
        Some(StatusCode::UNAUTHORIZED) => 3,
        Some(StatusCode::FORBIDDEN) => 4,
        Some(StatusCode::TOO_MANY_REQUESTS) => 5,
        Some(_) => 1,
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
