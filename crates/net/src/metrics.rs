//! What goes over sockets, counted.

use std::fmt;

use metrics::{Counter, Unit, counter, describe_counter};

use crate::tls;

/// Handles of the metrics, made once for each listener.
pub(crate) struct Metrics {
    pub(crate) messages_received: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) http_requests: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) panics: Counter,
    pub(crate) proxy_headers_refused: Counter,
    pub(crate) tls: tls::Handshakes,
    handshakes: [Counter; 4],
}

/// How an opening ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// A connection is open.
    Accepted,
    /// The request could not become one.
    Rejected,
    /// It took too long.
    Timeout,
    /// It was not HTTP, or the peer left.
    Error,
}

impl Metrics {
    /// Declares the metrics with the installed recorder.
    pub(crate) fn new() -> Self {
        describe_counter!("fanwire_messages_received_total", "Messages and pongs received from clients");
        describe_counter!("fanwire_received_bytes_total", Unit::Bytes, "Bytes received on open client connections");
        describe_counter!("fanwire_http_requests_total", "Requests other than openings of client connections");
        describe_counter!("fanwire_accept_errors_total", "Connections that could not be accepted");
        describe_counter!("fanwire_panics_total", "Panics, each of which cost one connection");
        describe_counter!("fanwire_handshakes_total", "Openings of client connections, by outcome");
        describe_counter!(
            "fanwire_proxy_headers_refused_total",
            "Connections of trusted balancers that did not begin with a PROXY header"
        );
        let outcomes = ["accepted", "rejected", "timeout", "error"];
        Self {
            messages_received: counter!("fanwire_messages_received_total"),
            received_bytes: counter!("fanwire_received_bytes_total"),
            http_requests: counter!("fanwire_http_requests_total"),
            accept_errors: counter!("fanwire_accept_errors_total"),
            panics: counter!("fanwire_panics_total"),
            proxy_headers_refused: counter!("fanwire_proxy_headers_refused_total"),
            tls: tls::Handshakes::new(),
            handshakes: outcomes.map(|outcome| counter!("fanwire_handshakes_total", "outcome" => outcome)),
        }
    }

    pub(crate) fn handshake(&self, outcome: Handshake) {
        self.handshakes[outcome as usize].increment(1);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
