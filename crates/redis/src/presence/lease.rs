//! Signs of life: this node's own, and what becomes of the clients of a node that gives none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::broker::Error;
use fanwire_node::presence::Change;
use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::calls::{CONDEMNED, Hand, Sound};
use super::registry::{BATCH, Registry};
use crate::partitions::Partition;
use crate::store::Store;

/// Gives signs of life, and watches those of the others.
pub(crate) struct Lease {
    site: Site,
    renewal: Duration,
    /// What this node may change is bound to it; a new one begins when the others took it for dead.
    epoch: u64,
    begun: bool,
    beat: u64,
    /// The last sign of each other node, and how often it has been seen again. As many as there are nodes.
    seen: HashMap<String, (String, u32)>,
    dead: mpsc::Sender<Dead>,
}

/// Removes the clients of dead nodes.
pub(crate) struct Sweeper {
    site: Site,
    dead: mpsc::Receiver<Dead>,
}

/// A server, or a cluster: a node lives or dies in it as a whole.
#[derive(Clone)]
struct Site {
    store: Arc<Store>,
    /// This node's name.
    node: Arc<str>,
    /// Those of its partitions, at least one. The first has the signs of life.
    registries: Vec<Arc<Registry>>,
}

/// A node to sweep behind.
struct Dead {
    node: String,
    epoch: u64,
    /// What stands in the place of its sign.
    claim: String,
}

/// How often a node gives a sign of life.
pub(crate) const RENEWAL: Duration = Duration::from_secs(2);

/// A node is dead when its sign was the same so many times behind each other, a renewal apart. Not a time on any clock: who
/// could not read in between, or slept, has seen nothing, and begins to count anew.
const LAPSE: u32 = 4;

/// The dead nodes that wait. Others are found again.
const QUEUE: usize = 64;

impl Lease {
    /// For a site with these registries.
    pub(crate) fn new(
        store: Arc<Store>,
        node: &str,
        registries: &[Arc<Registry>],
        renewal: Duration,
    ) -> (Self, Sweeper) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let site = Site { store, node: node.into(), registries: registries.to_vec() };
        let sweeper = Sweeper { site: site.clone(), dead: receiver };
        let lease = Self { site, renewal, epoch: 0, begun: false, beat: 0, seen: HashMap::new(), dead: sender };
        (lease, sweeper)
    }

    /// Gives signs and watches, for ever.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(self.renewal);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let watched = match self.renew().await {
                Ok(signs) => self.watch(signs).await,
                Err(error) => Err(error),
            };
            if let Err(error) = watched {
                tracing::debug!(%error, "no sign of life was possible");
                // If this node cannot reach Redis, perhaps nobody can.
                self.seen.clear();
            }
        }
    }

    async fn renew(&mut self) -> Result<Vec<(String, String)>, Error> {
        self.beat += 1;
        if self.begun {
            if let Some(signs) = self.site.renew(self.epoch, self.beat, false).await? {
                return Ok(signs);
            }
            tracing::warn!("this node was taken for dead, or forgotten: its clients are entered again");
        }
        self.begun = false;
        self.epoch += 1;
        let signs = self.site.renew(self.epoch, self.beat, true).await?;
        self.begun = true;
        self.site.registries.iter().for_each(|registry| registry.begin(self.epoch));
        Ok(signs.unwrap_or_default())
    }

    async fn watch(&mut self, signs: Vec<(String, String)>) -> Result<(), Error> {
        let mut before = std::mem::take(&mut self.seen);
        for (node, sign) in signs.into_iter().filter(|(node, _)| **node != *self.site.node) {
            let again = before.remove(&node).filter(|(last, _)| *last == sign).map_or(0, |(_, again)| again + 1);
            if again >= LAPSE
                && let Ok(place) = self.dead.try_reserve()
            {
                let epoch = epoch_of(&sign);
                let claim = format!("-{epoch} {}", self.site.node);
                // One node sweeps; if it dies over it, its claim is as silent as the sign was.
                if self.site.claim(&node, &sign, &claim).await? {
                    place.send(Dead { node, epoch, claim });
                }
            } else {
                self.seen.insert(node, (sign, again));
            }
        }
        Ok(())
    }
}

impl Sweeper {
    /// Sweeps behind the dead, for ever.
    pub(crate) async fn run(mut self) {
        metrics::describe_counter!(
            "fanwire_presence_swept_total",
            "Clients of dead nodes that this node removed from presence"
        );
        metrics::counter!("fanwire_presence_swept_total").increment(0);
        while let Some(mut dead) = self.dead.recv().await {
            match self.sweep(&mut dead).await {
                // A node that left in good order has none.
                Ok(0) => tracing::debug!(node = dead.node, "a node gives no sign of life any more"),
                Ok(clients) => tracing::info!(node = dead.node, clients, "a node is dead: its clients are removed"),
                Err(error) => {
                    tracing::warn!(%error, node = dead.node, "clients of a dead node stay: somebody tries again");
                }
            }
        }
    }

    /// Removes everything a node answered for; returns how much that was. One partition that fails does not keep the others.
    async fn sweep(&self, dead: &mut Dead) -> Result<u64, Error> {
        let mut removed = 0;
        let mut failed = None;
        for registry in &self.site.registries {
            match self.sweep_partition(dead, registry.at).await {
                Ok(Some(some)) => removed += some,
                // It is back, or another node goes on.
                Ok(None) => return Ok(removed),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.site.claim(&dead.node, &dead.claim, "").await?;
        Ok(removed)
    }

    /// `None` if the node is not this one's to sweep behind any more.
    async fn sweep_partition(&self, dead: &mut Dead, at: Partition) -> Result<Option<u64>, Error> {
        let store = &self.site.store;
        let counter = metrics::counter!("fanwire_presence_swept_total");
        let mut removed = 0;
        loop {
            let begun = Instant::now();
            let Some(records) = store.presence_condemn(at, &dead.node, dead.epoch, BATCH).await? else {
                return Ok(None);
            };
            if records.is_empty() {
                return Ok(Some(removed));
            }
            let hand = Hand { node: &dead.node, at, seal: CONDEMNED };
            let removals =
                records.iter().map(|(name, record)| store.presence_remove_record(hand, name, record, Sound::Loud));
            let changes = try_join_all(removals).await?;
            let some = changes.iter().filter(|change| !matches!(change, None | Some(Change::Nothing))).count() as u64;
            counter.increment(some);
            removed += some;
            // Leaves as much time to everything else. And shows that somebody is at it.
            sleep(begun.elapsed()).await;
            let claim = format!("-{} {} {removed}", dead.epoch, self.site.node);
            if claim != dead.claim && !self.site.claim(&dead.node, &dead.claim, &claim).await? {
                return Ok(None);
            }
            dead.claim = claim;
        }
    }
}

impl Site {
    /// Where the signs of life are.
    fn at(&self) -> Partition {
        self.registries[0].at
    }

    async fn renew(&self, epoch: u64, beat: u64, anew: bool) -> Result<Option<Vec<(String, String)>>, Error> {
        self.store.presence_renew(self.at(), &self.node, epoch, beat, anew).await
    }

    async fn claim(&self, node: &str, seen: &str, next: &str) -> Result<bool, Error> {
        self.store.presence_claim(self.at(), node, seen, next).await
    }
}

/// Of a sign (`epoch beat`) or a claim (`-epoch claimant …`).
fn epoch_of(sign: &str) -> u64 {
    let epoch = sign.trim_start_matches('-').split(' ').next();
    epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(u64::MAX)
}
