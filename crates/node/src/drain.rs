//! How a node goes down: its clients move to other nodes, as fast as those take them.

use std::time::Duration;

use metrics::gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

use crate::Node;
use crate::config::duration;
use crate::moving::Why;

/// The section `[drain]`: how a node lets its clients go before it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// How long the node, unready already, takes new connections while balancers find that out. Default: 5s.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// The most clients that are asked to move in any second. Default: 500.
    pub rate: u32,
    /// From the signal on; whoever is still there then is ended at once. Default: 2m.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), rate: 500, deadline: Duration::from_secs(120) }
    }
}

impl DrainConfig {
    /// The longest a node takes to end once its deadline is over.
    pub const REST: Duration = Duration::from_secs(5);

    /// Ends everything at once.
    #[must_use]
    pub fn at_once() -> Self {
        Self { grace: Duration::ZERO, deadline: Duration::ZERO, ..Self::default() }
    }

    /// What is wrong with it.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.rate == 0 {
            mistakes.push("rate: at least 1".to_owned());
        }
        if self.grace > self.deadline {
            mistakes.push("grace: at most deadline".to_owned());
        }
        mistakes
    }
}

/// How far a node is on its way down. The order is that of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    #[default]
    Active,
    /// It is to end, and still takes connections that balancers send.
    Leaving,
    /// It takes none, and its clients move.
    Moving,
    /// What is left ends now.
    Ending,
}

/// Where everybody can see how far the node is.
#[derive(Debug)]
pub(crate) struct Drain(watch::Sender<Phase>);

/// How often those still there are counted.
const LOOK: Duration = Duration::from_millis(100);

impl Drain {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Active))
    }
}

impl Node {
    /// How far the node is on its way down.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.way_down().0.borrow()
    }

    /// Waits until the node is this far on its way down.
    pub async fn reaches(&self, phase: Phase) {
        let mut phases = self.way_down().0.subscribe();
        // The sender lives as long as the node.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    /// Whether new connections are welcome.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase() < Phase::Moving && !self.handing_over().is_under_way()
    }

    /// Begins the way down; whoever waits for [`Phase::Leaving`] goes on with [`Node::drain`].
    pub fn begin_drain(&self) {
        self.advance_to(Phase::Leaving);
    }

    /// Lets the clients go: tells the cluster, waits for balancers to notice, takes no more connections, and asks the clients to
    /// come back to other nodes (3001), at the configured rate. Returns when all of them have gone, or at the deadline.
    pub async fn drain(&self, config: &DrainConfig) {
        self.begin_drain();
        let connections = self.connections();
        let needed = config.grace + Duration::from_secs_f64(connections as f64 / (0.9 * f64::from(config.rate)));
        tracing::info!(connections, rate = config.rate, ?needed, "clients move to other nodes");
        if needed > config.deadline {
            tracing::warn!(deadline = ?config.deadline, "not all clients can move at this rate: the rest is ended then");
        }
        let over = async {
            tokio::join!(self.announce_draining(), sleep(config.grace));
            self.advance_to(Phase::Moving);
            gauge!("fanwire_drain_rate").set(f64::from(config.rate));
            tokio::select! {
                () = self.move_clients(Why::Drain, f64::from(config.rate), usize::MAX) => {}
                () = self.all_are_gone() => {}
            }
        };
        if timeout(config.deadline, over).await.is_err() && self.connections() > 0 {
            tracing::warn!(connections = self.connections(), "the deadline is over: these are ended at once");
        }
    }

    /// Waits until no connection is left, and shows how many are.
    async fn all_are_gone(&self) {
        let mut ticks = interval(LOOK);
        loop {
            ticks.tick().await;
            let left = self.connections();
            gauge!("fanwire_drain_remaining_connections").set(left as f64);
            if left == 0 {
                return;
            }
        }
    }

    /// Goes on to a later phase.
    pub(crate) fn advance_to(&self, phase: Phase) {
        let went_on = self.way_down().0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
        if went_on {
            gauge!("fanwire_drain_phase").set(f64::from(phase as u8));
            gauge!("fanwire_drain_remaining_connections").set(self.connections() as f64);
            self.stop_rebalancing();
        }
    }
}
