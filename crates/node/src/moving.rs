//! Moving clients to other nodes: asking them to come back, never more in a second than the others are to take.

use std::rc::Rc;
use std::time::Duration;

use fanwire_wire::Disconnect;
use tokio::time::{Instant, sleep};

use crate::{Node, Worker};

/// Why clients are asked to come back to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The node goes down.
    Drain,
    /// The node does not hear the others any more.
    HandOver,
    /// The node has more clients than the others.
    Rebalance,
    /// The connection is old.
    Lifetime,
}

impl Why {
    pub(crate) const ALL: [Self; 4] = [Self::Drain, Self::HandOver, Self::Rebalance, Self::Lifetime];

    /// The name in the metric.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::HandOver => "hand_over",
            Self::Rebalance => "rebalance",
            Self::Lifetime => "lifetime",
        }
    }

    /// What the client is told.
    pub(crate) fn disconnect(self) -> Disconnect {
        if self == Self::Drain { Disconnect::Shutdown } else { Disconnect::ForceReconnect }
    }
}

/// Hands out turns: in no second more than the rate it was made with.
///
/// A bucket that takes nine tenths of the rate and holds one. After a stall nothing is caught up: a machine that is too
/// busy to ask clients in time is too busy for more of them.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    due: f64,
    since: Instant,
}

/// How often some clients are asked.
const STEP: Duration = Duration::from_millis(40);

impl Pace {
    /// At most so many in a second, at least a thousandth of one.
    pub(crate) fn new(per_second: f64) -> Self {
        Self { per_second: per_second.max(0.001), due: 0.0, since: Instant::now() }
    }

    /// Waits for a moment; returns how many may be asked then. Those that are not go back with [`Pace::spare`].
    pub(crate) async fn step(&mut self) -> usize {
        // Uneven steps keep nodes that began together from going on together.
        sleep(STEP.mul_f64(0.5 + crate::id::share())).await;
        let gained = self.since.elapsed().as_secs_f64() * self.per_second * 0.9;
        self.since = Instant::now();
        self.due = (self.due + gained).min((self.per_second * 0.1).max(1.0));
        let now = self.due.floor();
        self.due -= now;
        now as usize
    }

    /// Gives turns back that nobody was there for.
    pub(crate) fn spare(&mut self, turns: usize) {
        self.due += turns as f64;
    }
}

impl Node {
    /// Asks clients to come back to another node, at most so many in a second, until `most` of them were asked.
    pub(crate) async fn move_clients(&self, why: Why, per_second: f64, most: usize) {
        let mut pace = Pace::new(per_second);
        let mut left = most;
        while left > 0 {
            let turns = pace.step().await;
            let asked = self.ask_to_leave(why, turns.min(left)).await;
            pace.spare(turns - asked);
            left -= asked;
        }
    }

    /// Asks so many clients, of each worker as many as it has its share of them; returns how many there were.
    async fn ask_to_leave(&self, why: Why, most: usize) -> usize {
        let mut asked = 0;
        for index in 0..self.workers() {
            let share = (most * self.connections_on(index)).div_ceil(self.connections().max(1)).min(most - asked);
            if share > 0 {
                let there = self.ask_worker(index, move |worker| ask_to_leave(worker, why, share)).await;
                asked += there.unwrap_or_default();
            }
        }
        asked
    }
}

/// Asks so many clients of a worker; returns how many there were.
fn ask_to_leave(worker: &Rc<Worker>, why: Why, most: usize) -> usize {
    let clients = worker.open_clients(most);
    clients.iter().for_each(|client| client.send_away(why));
    clients.len()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// When each turn came, in milliseconds.
    async fn turns(per_second: f64, most: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut pace = Pace::new(per_second);
        let mut turns = Vec::new();
        while turns.len() < most {
            let now = pace.step().await;
            turns.extend(std::iter::repeat_n(start.elapsed().as_millis(), now));
        }
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_the_rate() {
        for rate in [1_usize, 2, 7, 10, 100, 500, 3000] {
            let turns = turns(rate as f64, rate * 10).await;
            for (index, at) in turns.iter().enumerate() {
                let within = turns[index..].iter().take_while(|other| *other - at < 1000).count();
                assert!(within <= rate, "{within} in one second at {rate}");
            }
            let took = turns[turns.len() - 1] as f64 / 1000.0;
            assert!((9.5..14.0).contains(&took), "{took} s for what ten seconds may have at {rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_rates_are_kept() {
        let turns = turns(0.1, 3).await;
        assert!((30_000..40_000).contains(&turns[2]), "{turns:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_not_caught_up() {
        let mut pace = Pace::new(100.0);
        advance(Duration::from_secs(10)).await;
        assert_eq!(pace.step().await, 10);
        assert!(pace.step().await <= 6);
    }
}
