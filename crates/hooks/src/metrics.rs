//! The metrics of hooks.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::event::Event;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A result.
    Ok,
    /// An error of the backend's own.
    Error,
    /// The end of the connection.
    Disconnect,
    /// No connection, or one that broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// Another status than success.
    Status,
    /// An answer that makes no sense.
    BadAnswer,
    /// Not asked: too many questions are under way.
    Full,
    /// Not asked: the backend has not answered for a while.
    Open,
    /// The one who asked is gone.
    GivenUp,
}

impl Outcome {
    const ALL: [Self; 10] = [
        Self::Ok,
        Self::Error,
        Self::Disconnect,
        Self::Unreachable,
        Self::Timeout,
        Self::Status,
        Self::BadAnswer,
        Self::Full,
        Self::Open,
        Self::GivenUp,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Disconnect => "disconnect",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::BadAnswer => "bad_answer",
            Self::Full => "full",
            Self::Open => "open",
            Self::GivenUp => "given_up",
        }
    }
}

/// Declares the metrics with the installed recorder.
pub(crate) fn describe() {
    describe_counter!("fanwire_hook_requests_total", "Questions to backends, by hook, event and outcome");
    describe_histogram!("fanwire_hook_seconds", "How long questions to backends took, retries included, by hook");
    describe_gauge!("fanwire_hook_in_flight", "Questions under way, by hook");
    describe_gauge!("fanwire_hook_open", "1 while a backend is spared because it does not answer, else 0, by hook");
}

/// Handles of one hook's metrics, made once.
pub(crate) struct Metrics {
    /// In the order of [`Event::ALL`], then of [`Outcome::ALL`].
    requests: Vec<Vec<Counter>>,
    seconds: Histogram,
    in_flight: Gauge,
    pub(crate) open: Gauge,
}

impl Metrics {
    pub(crate) fn new(hook: &str) -> Self {
        let request = |event: Event, outcome: Outcome| {
            let (event, outcome) = (event.name(), outcome.name());
            counter!("fanwire_hook_requests_total", "hook" => hook.to_owned(), "event" => event, "outcome" => outcome)
        };
        let requests = Event::ALL.map(|event| Outcome::ALL.map(|outcome| request(event, outcome)).into());
        let seconds = histogram!("fanwire_hook_seconds", "hook" => hook.to_owned());
        let in_flight = gauge!("fanwire_hook_in_flight", "hook" => hook.to_owned());
        // Shown from the beginning. One of the same name before it may still have some under way.
        in_flight.increment(0.0);
        Self {
            requests: requests.into(),
            seconds,
            in_flight,
            open: gauge!("fanwire_hook_open", "hook" => hook.to_owned()),
        }
    }

    pub(crate) fn began(&self) {
        self.in_flight.increment(1.0);
    }

    pub(crate) fn ended(&self, event: Event, outcome: Outcome, took: Duration) {
        self.in_flight.decrement(1.0);
        // Where nobody was asked, nothing took any time.
        if !matches!(outcome, Outcome::Full | Outcome::Open) {
            self.seconds.record(took);
        }
        self.requests[event as usize][outcome as usize].increment(1);
    }
}
