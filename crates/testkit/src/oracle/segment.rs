//! One client's subscription to one channel with positions, walked from its first event to its last.

use std::collections::BTreeSet;

use super::log::{At, Event};
use super::report::{Report, Rule};
use super::truth::{Step, Truth};
use super::{INSUFFICIENT_STATE, INSUFFICIENT_STATE_UNSUBSCRIBE, Rules};

/// A subscription over all of its connections. A *segment* begins at a `subscribed` that is not recovered, and goes on over
/// recovered ones.
pub(super) struct Subscription<'a> {
    /// Who and where, for the report.
    name: String,
    truth: &'a Truth<'a>,
    rules: &'a Rules,
    live: bool,
    segment: Option<Segment>,
    /// It was told of a gap and has not come back yet.
    told: bool,
    /// What must still arrive.
    expected: BTreeSet<u64>,
}

struct Segment {
    start: u64,
    at: At,
    /// What was passed over. It may still come, out of order.
    missing: BTreeSet<u64>,
}

impl<'a> Subscription<'a> {
    pub(super) fn new(name: String, truth: &'a Truth<'a>, rules: &'a Rules) -> Self {
        Self { name, truth, rules, live: false, segment: None, told: false, expected: BTreeSet::new() }
    }

    pub(super) fn see(&mut self, event: &Event, report: &mut Report) {
        match event {
            Event::Publication { pub_id: Some(pub_id), .. } => drop(self.expected.remove(pub_id)),
            Event::Publication { .. } => {}
            _ => self.expected.clear(),
        }
        match event {
            Event::Subscribed { recovered, was_recovering, at: Some(at) } => {
                if *recovered {
                    self.recovered(at, report);
                } else {
                    self.begin(*was_recovering, at, report);
                }
                self.live = true;
            }
            Event::Publication { at: Some(at), .. } => self.publication(at, report),
            Event::Unsubscribed { code } => {
                self.told |= *code == INSUFFICIENT_STATE_UNSUBSCRIBE;
                self.live = false;
            }
            Event::Disconnected { code } => {
                self.told |= *code == INSUFFICIENT_STATE;
                self.live = false;
            }
            Event::Subscribed { at: None, .. } => {
                self.close(report);
                self.live = true;
            }
            // Judged as on plain channels.
            Event::Publication { at: None, .. } => {}
        }
    }

    /// From here on it waits for this publication, if it is live.
    pub(super) fn expect(&mut self, pub_id: u64) {
        if self.live {
            self.expected.insert(pub_id);
        }
    }

    /// Nothing is under way.
    pub(super) fn settle(&self, top: &At, report: &mut Report) {
        if let (true, Some(Segment { at, .. })) = (self.live, &self.segment)
            && at != top
        {
            report.violation(Rule::Convergence, || format!("{} has settled at {at:?}: the top is {top:?}", self.name));
        }
    }

    /// The end of the log.
    pub(super) fn end(mut self, report: &mut Report) {
        report.live += usize::from(self.live);
        if self.told {
            let needless = self.truth.top().is_some_and(|top| self.is_needless(top));
            self.tell(needless, report);
        }
        if !self.expected.is_empty() {
            report
                .violation(Rule::Convergence, || format!("{} is deaf: {:?} did not arrive", self.name, self.expected));
        }
        if let (true, Some(Segment { at, .. }), Some(top)) = (self.live, &self.segment, self.truth.top())
            && at != top
        {
            let behind = if self.truth.is_kept(at) { self.truth.behind(at) } else { 0 };
            report.lost += behind;
            report.violation(Rule::Convergence, || match behind {
                0 => format!("{} stands at {at:?}, which was lost, and was not told: the top is {top:?}", self.name),
                _ => format!("{} stands at {at:?}, {behind} before the top {top:?}", self.name),
            });
        }
        self.close(report);
    }

    /// A subscription that does not go on from an earlier one.
    fn begin(&mut self, was_recovering: bool, at: &At, report: &mut Report) {
        report.failed_recoveries += usize::from(was_recovering);
        if self.told || was_recovering {
            let needless = was_recovering && self.is_needless(at);
            self.tell(needless, report);
        }
        self.close(report);
        self.segment = Some(Segment { start: at.offset, at: at.clone(), missing: BTreeSet::new() });
    }

    fn recovered(&mut self, at: &At, report: &mut Report) {
        report.recovered += 1;
        if self.told {
            let needless = self.is_needless(at);
            self.tell(needless, report);
        }
        match &self.segment {
            // It knows a position from elsewhere.
            None => self.segment = Some(Segment { start: at.offset, at: at.clone(), missing: BTreeSet::new() }),
            Some(segment) if segment.at.epoch != at.epoch || segment.at.offset > at.offset => {
                report.violation(Rule::Contiguity, || {
                    format!("{} is recovered at {at:?}, and stood at {:?}", self.name, segment.at)
                });
            }
            Some(_) => {}
        }
    }

    fn publication(&mut self, at: &At, report: &mut Report) {
        let Some(segment) = self.segment.as_mut().filter(|_| self.live) else {
            report.violation(Rule::Contiguity, || format!("{} gets {at:?} outside of a subscription", self.name));
            return;
        };
        let before = &segment.at;
        if at.epoch == before.epoch && at.offset <= before.offset {
            let late = segment.missing.remove(&at.offset) || at.offset <= segment.start;
            *(if late { &mut report.reordered } else { &mut report.duplicated }) += 1;
            report.violation(Rule::Contiguity, || format!("{} gets {at:?} behind {before:?}", self.name));
            return;
        }
        match self.truth.step(before, at) {
            Step::Next => {}
            Step::Over(between) => {
                report.violation(Rule::Contiguity, || {
                    format!("{} gets {at:?} behind {before:?}, without {between:?}", self.name)
                });
                segment.missing.extend(between);
            }
            Step::Elsewhere => report.violation(Rule::NoSilentLoss, || {
                format!("{} gets {at:?}, which does not follow {before:?}, and was not told", self.name)
            }),
        }
        segment.at = at.clone();
    }

    /// Whether it could have gone on from where it stands, in the life of `to`.
    fn is_needless(&self, to: &At) -> bool {
        let at = self.segment.as_ref().map(|segment| &segment.at);
        at.is_some_and(|at| !self.truth.may_refuse(at, to, self.rules.recoverable))
    }

    fn tell(&mut self, needless: bool, report: &mut Report) {
        self.told = false;
        report.told += 1;
        if needless {
            report.told_without_need += 1;
            let at = self.segment.as_ref().map(|segment| &segment.at);
            report.violation(Rule::NoNeedlessTelling, || format!("{} missed nothing at {at:?}", self.name));
        }
    }

    /// Ends the segment: what has not come by now is lost.
    fn close(&mut self, report: &mut Report) {
        if let Some(segment) = self.segment.take() {
            report.lost += segment.missing.len();
        }
    }
}
