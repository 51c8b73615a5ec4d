//! What the oracle found.

use std::fmt;

use super::log::Figure;

/// What the oracle found: how many of what, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Publications that were acknowledged.
    pub acked: usize,
    /// Deliveries.
    pub delivered: usize,
    /// Deliveries that are missing although nobody was told; on channels with positions.
    pub lost: usize,
    /// Publications delivered again.
    pub duplicated: usize,
    /// Publications delivered behind a later one, or in an order that contradicts another subscriber's.
    pub reordered: usize,
    /// Publications nobody made, or with damaged data.
    pub phantom: usize,
    /// Subscriptions told of a gap, each time counted once.
    pub told: usize,
    /// Those of them that had missed nothing they could not have been given.
    pub told_without_need: usize,
    /// Recoveries that were complete.
    pub recovered: usize,
    /// Recoveries that failed.
    pub failed_recoveries: usize,
    /// Acknowledged publications that the broker's server forgot.
    pub acked_but_lost: usize,
    /// Deliveries missing between others on channels without positions, which promise nothing.
    pub lost_plain: usize,
    /// Acknowledged publications on such channels that no subscriber saw.
    pub unseen_plain: usize,
    /// Live subscriptions at the end.
    pub live: usize,
    /// Measurements beside the logs.
    pub figures: Vec<Figure>,
    /// How many violations there are.
    pub violation_count: usize,
    /// The first of them.
    pub violations: Vec<Violation>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of what.
    pub rule: Rule,
    /// By whom and how.
    pub what: String,
}

/// What a cluster must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// 1. Each publication of a segment links to the one before it: no gap, no repetition, no step back.
    Contiguity,
    /// 2. One position, one publication; as acknowledged.
    Agreement,
    /// 3. What is delivered was published.
    NoPhantom,
    /// 4a. What is missing is told.
    NoSilentLoss,
    /// 4b. Nobody is told without need.
    NoNeedlessTelling,
    /// 5. At the end, every live subscription stands at the top.
    Convergence,
    /// 6. One key, one position.
    Idempotency,
    /// 7. Channels without positions: nothing twice, one order for all.
    Plain,
    /// 8 to 10. A measurement is within its bound.
    Figure,
}

/// The violations put into words; of the others there is only the number.
const MAX_VIOLATIONS: usize = 20;

impl Report {
    pub(super) fn violation(&mut self, rule: Rule, what: impl FnOnce() -> String) {
        self.violation_count += 1;
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { rule, what: what() });
        }
    }

    /// Whether there is no violation at all.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violation_count == 0
    }

    /// Fails a test unless everything is as it must be.
    ///
    /// # Panics
    ///
    /// If there is a violation.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }

    /// The same for faults under which a subscriber may be told once too often.
    ///
    /// # Panics
    ///
    /// If there is another violation.
    pub fn assert_sound(&self) {
        assert_eq!(self.violation_count, self.told_without_need, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("acked", self.acked),
            ("delivered", self.delivered),
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("phantom", self.phantom),
            ("told", self.told),
            ("told without need", self.told_without_need),
            ("recovered", self.recovered),
            ("failed recoveries", self.failed_recoveries),
            ("acked but lost", self.acked_but_lost),
            ("lost on plain channels", self.lost_plain),
            ("unseen on plain channels", self.unseen_plain),
            ("live", self.live),
        ];
        for (index, (name, count)) in counts.iter().enumerate() {
            write!(f, "{}{name} {count}", if index == 0 { "" } else { ", " })?;
        }
        for figure in &self.figures {
            write!(f, ", {} {:.3}", figure.name, figure.value)?;
        }
        if self.violation_count > 0 {
            write!(f, "\n{} violations", self.violation_count)?;
        }
        for Violation { rule, what } in &self.violations {
            write!(f, "\n{rule:?}: {what}")?;
        }
        Ok(())
    }
}
