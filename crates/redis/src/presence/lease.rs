//! Signs of life: this node's own, and what becomes of the clients of a node that gives none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::broker::Error;
use fanwire_node::presence::Change;
use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::calls::{CONDEMNED, Hand, Sound};
use super::registry::{BATCH, Registry};

/// Gives signs of life, and watches those of the others.
pub(crate) struct Lease {
    registry: Arc<Registry>,
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
    registry: Arc<Registry>,
    dead: mpsc::Receiver<Dead>,
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
    pub(crate) fn new(registry: Arc<Registry>, renewal: Duration) -> (Self, Sweeper) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let sweeper = Sweeper { registry: Arc::clone(&registry), dead: receiver };
        let lease = Self { registry, renewal, epoch: 0, begun: false, beat: 0, seen: HashMap::new(), dead: sender };
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
        let Registry { store, at, node, .. } = &*self.registry;
        self.beat += 1;
        if self.begun {
            if let Some(signs) = store.presence_renew(*at, node, self.epoch, self.beat, false).await? {
                return Ok(signs);
            }
            tracing::warn!("this node was taken for dead, or forgotten: its clients are entered again");
        }
        self.begun = false;
        self.epoch += 1;
        let signs = store.presence_renew(*at, node, self.epoch, self.beat, true).await?;
        self.begun = true;
        self.registry.begin(self.epoch);
        Ok(signs.unwrap_or_default())
    }

    async fn watch(&mut self, signs: Vec<(String, String)>) -> Result<(), Error> {
        let Registry { store, at, node: own, .. } = &*self.registry;
        let mut before = std::mem::take(&mut self.seen);
        for (node, sign) in signs.into_iter().filter(|(node, _)| node != own) {
            let again = before.remove(&node).filter(|(last, _)| *last == sign).map_or(0, |(_, again)| again + 1);
            if again >= LAPSE
                && let Ok(place) = self.dead.try_reserve()
            {
                let epoch = epoch_of(&sign);
                let claim = format!("-{epoch} {own}");
                // One node sweeps; if it dies over it, its claim is as silent as the sign was.
                if store.presence_claim(*at, &node, &sign, &claim).await? {
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
        while let Some(dead) = self.dead.recv().await {
            tracing::info!(node = dead.node, "a node gives no sign of life: its clients are removed from presence");
            if let Err(error) = self.sweep(&dead).await {
                tracing::debug!(%error, node = dead.node, "somebody has to go on here later");
            }
        }
    }

    async fn sweep(&self, Dead { node, epoch, claim }: &Dead) -> Result<(), Error> {
        let Registry { store, at, .. } = &*self.registry;
        let swept = metrics::counter!("fanwire_presence_swept_total");
        let hand = Hand { node, at: *at, seal: CONDEMNED };
        loop {
            let Some(records) = store.presence_condemn(*at, node, *epoch, BATCH).await? else {
                tracing::info!(node, "the node is back");
                return Ok(());
            };
            if records.is_empty() {
                break;
            }
            let removals =
                records.iter().map(|(name, record)| store.presence_remove_record(hand, name, record, Sound::Loud));
            let removed = try_join_all(removals).await?;
            let changed = removed.iter().filter(|change| !matches!(change, None | Some(Change::Nothing)));
            swept.increment(changed.count() as u64);
        }
        store.presence_claim(*at, node, claim, "").await.map(|_| ())
    }
}

/// Of a sign (`epoch beat`) or a claim (`-epoch claimant`).
fn epoch_of(sign: &str) -> u64 {
    let epoch = sign.trim_start_matches('-').split(' ').next();
    epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(u64::MAX)
}
