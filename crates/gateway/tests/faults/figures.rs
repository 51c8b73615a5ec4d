//! What a fault cost: one line each, as a row of docs/reliability.md.

use std::collections::HashMap;
use std::time::Duration;

use fanwire_testkit::oracle::{Outcome, Report};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::publisher::Sent;

/// What a fault cost.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) report: Report,
    /// Histories read from Redis since the fault began.
    pub(crate) reads: u64,
    /// Subscriptions that were made again.
    pub(crate) resubscribed: usize,
    pub(crate) times: Times,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// From the beginning of the fault until the last gateway concerned said that it is degraded. `None`: none has.
    pub(crate) detect: Option<Duration>,
    /// From the end of the fault until publishing works everywhere and nobody is late any more.
    pub(crate) converge: Duration,
    /// The longest that a publisher waited for an answer that was no acknowledgement.
    pub(crate) slowest_failure: Duration,
    /// Attempts to publish that failed, and those of them that had nothing to do with the fault: they ended before it began,
    /// or began when everything had been well for a while.
    pub(crate) failures: usize,
    pub(crate) needless_failures: usize,
}

/// What arrives so long after its acknowledgement is late.
const LATE: Duration = Duration::from_millis(250);

/// How long publishing may take to work again after a fault.
const RECOVERY: Duration = Duration::from_secs(3);

impl Times {
    /// Works them out. `seen`: which publication arrived when, at anybody.
    pub(crate) fn of(
        fault: Instant,
        healed: Instant,
        gateways: &[Gateway],
        sent: &[Sent],
        seen: &[(u64, Instant)],
    ) -> Self {
        let acked = |sent: &&Sent| matches!(sent.published.outcome, Outcome::Acked(_)) && sent.at > fault;
        let acked: HashMap<_, _> = sent.iter().filter(acked).map(|sent| (sent.published.pub_id, sent.at)).collect();
        let late =
            seen.iter().filter(|(id, at)| acked.get(id).is_some_and(|acked| *at > *acked + LATE)).map(|(_, at)| *at);
        let failures = sent.iter().flat_map(|sent| &sent.failures);
        let failed = failures.clone().map(|(end, _)| *end);
        let converged = late.chain(failed).max().unwrap_or(healed);
        let well = healed + RECOVERY;
        let needless = failures.clone().filter(|(end, length)| *end < fault || *end - *length > well);
        Self {
            detect: gateways.iter().filter_map(|gateway| gateway.detected(fault)).max().map(|at| at - fault),
            converge: converged.saturating_duration_since(healed),
            slowest_failure: failures.clone().map(|(_, length)| *length).max().unwrap_or_default(),
            failures: failures.clone().count(),
            needless_failures: needless.count(),
        }
    }
}

impl Figures {
    /// Fails unless nothing is lost, twice, out of order, or told without need.
    pub(crate) fn assert_clean(&self) -> &Self {
        let Report { acked, delivered, lost, duplicated, reordered, .. } = self.report;
        assert!(acked > 0 && delivered > 0, "{}: nothing was published", self.name);
        assert_eq!((lost, duplicated, reordered), (0, 0, 0), "{}: {}", self.name, self.report);
        self.report.assert_clean();
        assert_eq!(self.times.needless_failures, 0, "{}: publishing failed outside of the fault", self.name);
        self
    }

    /// Fails if clients noticed anything.
    pub(crate) fn assert_unnoticed(&self) {
        assert_eq!(self.resubscribed, 0, "{}: subscriptions were made again", self.name);
        assert_eq!(self.report.told, 0, "{}: somebody was told", self.name);
    }

    pub(crate) fn print(&self) {
        let Self { name, report, reads, resubscribed, times } = self;
        let Report { acked, delivered, lost, duplicated, reordered, told, told_without_need, lost_plain, .. } = report;
        let (acked_but_lost, detect) = (report.acked_but_lost, times.detect.map_or("–".to_owned(), seconds));
        let converge = seconds(times.converge);
        say(&format!(
            "| {name} | {acked} | {delivered} | {lost} | {duplicated} | {reordered} | {lost_plain} | {acked_but_lost} | {told} | \
             {told_without_need} | {resubscribed} | {reads} | {detect} | {converge} |",
        ));
        if times.failures > 0 {
            say(&format!(
                "  {} attempts to publish failed, the slowest after {}",
                times.failures,
                seconds(times.slowest_failure)
            ));
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Prints a line for whoever reads the output, below the one that the test's name has begun.
#[allow(clippy::print_stdout, reason = "the figures are what these tests are for")]
pub(crate) fn say(line: &str) {
    println!("\n{line}");
}
