//! What a node answers for in the presence of one partition, and how it makes sure that Redis says the same.
//!
//! A node changes something only under its *seal*, which the server knows. Whenever it is in doubt (no answer, a restart, a
//! server that has forgotten it, its own silence) it takes a new one, which makes every earlier command void, and
//! compares: it *settles*.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::broker::Error;
use fanwire_node::presence::{Change, Per};
use fanwire_wire::{Channel, ClientInfo};
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio::time::{Instant, timeout, timeout_at};

use super::calls::{Entered, Hand, Memory, Record, Role, Sound, entry_name};
use crate::partitions::Partition;
use crate::store::Store;

/// What this node answers for.
pub(crate) struct Registry {
    pub(super) store: Arc<Store>,
    pub(super) at: Partition,
    /// This node's name.
    pub(super) node: String,
    timeout: Duration,
    /// Shared by changes, held alone to settle: neither sees the other half-way.
    gate: RwLock<()>,
    state: Mutex<State>,
    /// There is something to settle.
    unsettled: Notify,
    /// An attempt to settle has ended.
    attempted: Notify,
}

#[derive(Default)]
struct State {
    /// By their names in the index. Bounded by the subscriptions of this node's clients: those that left stay only as long
    /// as they may stand in Redis.
    entries: HashMap<String, Entry>,
    /// Under what this node may change something; `None` before it has settled.
    seal: Option<Arc<str>>,
    /// The node's epoch; 0 before its first sign of life.
    epoch: u64,
    /// The number of the last seal.
    number: u64,
    /// How often a new seal became necessary.
    doubts: u64,
    /// This node has had clients here.
    used: bool,
}

#[derive(Clone)]
struct Entry {
    channel: Channel,
    info: Arc<ClientInfo>,
    listed: bool,
    announced: Option<Per>,
    /// The join was published.
    heard: bool,
    /// Is not, or not for certain, to be there.
    leaving: bool,
}

/// What is asked for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Be(Role),
    Leave,
}

/// A step that brings Redis in line.
enum Step {
    Add(Entry, Role, Sound),
    /// A leave is owed for a client that Redis has forgotten.
    Part(Entry, Per),
    Remove(String, Record, Sound),
}

/// The steps on their way at the same time.
pub(super) const BATCH: usize = 512;

impl Registry {
    pub(crate) fn new(store: Arc<Store>, at: Partition, node: String, timeout: Duration) -> Self {
        metrics::describe_counter!(
            "fanwire_presence_settlements_total",
            "Comparisons of this node's clients with presence in Redis, after a doubt"
        );
        Self {
            store,
            at,
            node,
            timeout,
            gate: RwLock::default(),
            state: Mutex::default(),
            unsettled: Notify::new(),
            attempted: Notify::new(),
        }
    }

    pub(super) async fn add(&self, channel: &Channel, info: &Arc<ClientInfo>) -> Result<Change, Error> {
        self.change(channel, info, Wish::Be(Role::Listed)).await
    }

    pub(super) async fn announce(&self, channel: &Channel, info: &Arc<ClientInfo>, per: Per) -> Result<Change, Error> {
        self.state.lock().note(channel, info, |entry| {
            // Whatever comes of it here: it is made up for when the node settles.
            entry.leaving = false;
            entry.announced = Some(per);
        });
        self.change(channel, info, Wish::Be(Role::Announced(per))).await
    }

    pub(super) async fn remove(&self, channel: &Channel, client: &str) -> Result<Change, Error> {
        let info = {
            let mut state = self.state.lock();
            let Some(entry) = state.entries.get_mut(&entry_name(channel, client)) else { return Ok(Change::Nothing) };
            entry.leaving = true;
            Arc::clone(&entry.info)
        };
        // As long as the entry is leaving, somebody has to see to it.
        let doubt = Doubt::of(self);
        let change = self.change(channel, &info, Wish::Leave).await?;
        doubt.dispel();
        Ok(change)
    }

    /// Begins an epoch: everything has to be settled anew.
    pub(super) fn begin(&self, epoch: u64) {
        self.state.lock().epoch = epoch;
        self.doubt();
    }

    /// Settles whenever it is necessary, and looks whether it is, for ever. Nothing is asked of Redis in a partition in which this
    /// node never had clients.
    pub(super) async fn keep_settled(self: Arc<Self>, period: Duration) {
        let settlements = metrics::counter!("fanwire_presence_settlements_total");
        settlements.increment(0);
        loop {
            if self.is_unsettled() {
                let outcome = {
                    let _alone = self.gate.write().await;
                    self.settle().await
                };
                self.attempted.notify_waiters();
                match outcome {
                    Ok(()) => settlements.increment(1),
                    Err(error) => tracing::debug!(%error, "presence cannot be settled yet"),
                }
            }
            // Somebody's need ends the pause, or time.
            if !self.state.lock().used {
                self.unsettled.notified().await;
            } else if timeout(period, self.unsettled.notified()).await.is_err() {
                self.check().await;
            }
        }
    }

    /// Whether there is something to settle. Before the first sign of life nothing can be.
    fn is_unsettled(&self) -> bool {
        let state = self.state.lock();
        state.used && state.seal.is_none() && state.epoch > 0
    }

    /// Finds out whether the server has restarted, or forgotten this node, while nothing was asked of it.
    async fn check(&self) {
        let Some(seal) = self.seal() else { return };
        if let Ok(false) = self.store.presence_check(Hand { node: &self.node, at: self.at, seal: &seal }).await {
            self.doubt();
        }
    }

    /// Brings Redis in line with what this node answers for, under a new seal. The gate is held.
    async fn settle(&self) -> Result<(), Error> {
        let (epoch, number, doubts) = {
            let mut state = self.state.lock();
            state.number += 1;
            (state.epoch, state.number, state.doubts)
        };
        let Entered { seal, memory } = self.store.presence_enter(self.at, &self.node, epoch, number).await?;
        let there = self.store.presence_index(self.at, &self.node).await?;
        let entries = self.state.lock().entries.clone();
        let steps = compare(&entries, there.into_iter().collect(), memory);
        tracing::debug!(steps = steps.len(), entries = entries.len(), ?memory, "settling presence");
        let hand = Hand { node: &self.node, at: self.at, seal: &seal };
        for batch in steps.chunks(BATCH) {
            try_join_all(batch.iter().map(|step| self.take(hand, step))).await?;
        }
        if memory == Memory::Condemned {
            self.store.presence_pardon(self.at, &self.node).await?;
        }
        let mut state = self.state.lock();
        for (name, before) in entries {
            // Removed, or noted as leaving, or announced since: by calls that are still to come.
            let Some(entry) = state.entries.get_mut(&name) else { continue };
            entry.heard |= before.announced.is_some();
            if before.leaving && entry.leaving {
                state.entries.remove(&name);
            }
        }
        if state.doubts == doubts {
            state.seal = Some(seal);
        }
        Ok(())
    }

    async fn take(&self, hand: Hand<'_>, step: &Step) -> Result<(), Error> {
        let done = match step {
            Step::Add(Entry { channel, info, .. }, role, sound) => {
                self.store.presence_add(hand, channel, info, *role, *sound).await?
            }
            Step::Part(Entry { channel, info, .. }, per) => {
                self.store.presence_add(hand, channel, info, Role::Announced(*per), Sound::Quiet).await?;
                self.store.presence_remove(hand, channel, info, Sound::Loud).await?
            }
            Step::Remove(name, record, sound) => self.store.presence_remove_record(hand, name, record, *sound).await?,
        };
        done.map(|_| ()).ok_or_else(unsettled)
    }

    /// Makes a change as soon as the node has settled.
    async fn change(&self, channel: &Channel, info: &Arc<ClientInfo>, wish: Wish) -> Result<Change, Error> {
        let deadline = Instant::now() + self.timeout;
        // That a seal is no good is learnt once.
        for _ in 0..2 {
            let (_gate, seal) = self.pass(deadline).await?;
            let doubt = Doubt::of(self);
            if wish == Wish::Be(Role::Listed) {
                self.state.lock().note(channel, info, |entry| {
                    entry.info = Arc::clone(info);
                    entry.listed = true;
                });
            }
            let hand = Hand { node: &self.node, at: self.at, seal: &seal };
            let change = match wish {
                Wish::Be(role) => self.store.presence_add(hand, channel, info, role, Sound::Loud).await?,
                Wish::Leave => self.store.presence_remove(hand, channel, info, Sound::Loud).await?,
            };
            if let Some(change) = change {
                self.state.lock().fulfilled(&entry_name(channel, &info.client), wish);
                doubt.dispel();
                return Ok(change);
            }
        }
        Err(unsettled())
    }

    async fn pass(&self, deadline: Instant) -> Result<(RwLockReadGuard<'_, ()>, Arc<str>), Error> {
        let mut attempted = pin!(self.attempted.notified());
        attempted.as_mut().enable();
        let late = |_| unsettled();
        let gate = timeout_at(deadline, self.gate.read()).await.map_err(late)?;
        if let Some(seal) = self.seal() {
            return Ok((gate, seal));
        }
        drop(gate);
        self.state.lock().used = true;
        self.unsettled.notify_one();
        timeout_at(deadline, attempted).await.map_err(late)?;
        let gate = timeout_at(deadline, self.gate.read()).await.map_err(late)?;
        let seal = self.seal().ok_or_else(unsettled)?;
        Ok((gate, seal))
    }

    fn seal(&self) -> Option<Arc<str>> {
        self.state.lock().seal.clone()
    }

    fn doubt(&self) {
        let mut state = self.state.lock();
        state.doubts += 1;
        state.seal = None;
        self.unsettled.notify_one();
    }
}

/// Makes a new seal necessary, unless it is dispelled: also when whoever holds it is dropped half-way.
struct Doubt<'a>(Option<&'a Registry>);

impl<'a> Doubt<'a> {
    fn of(registry: &'a Registry) -> Self {
        Self(Some(registry))
    }

    fn dispel(mut self) {
        self.0 = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(registry) = self.0 {
            registry.doubt();
        }
    }
}

impl State {
    /// Notes something of an entry. One that begins is leaving: if nothing else comes of it, it was never there.
    fn note(&mut self, channel: &Channel, info: &Arc<ClientInfo>, change: impl FnOnce(&mut Entry)) {
        let name = entry_name(channel, &info.client);
        change(self.entries.entry(name).or_insert_with(|| Entry::leaving(channel, info)));
    }

    fn fulfilled(&mut self, name: &str, wish: Wish) {
        match wish {
            Wish::Leave => drop(self.entries.remove(name)),
            Wish::Be(role) => {
                let Some(entry) = self.entries.get_mut(name) else { return };
                match role {
                    Role::Listed => entry.leaving = false,
                    Role::Announced(_) => entry.heard = true,
                }
            }
        }
    }
}

impl Entry {
    fn leaving(channel: &Channel, info: &Arc<ClientInfo>) -> Self {
        let (channel, info) = (channel.clone(), Arc::clone(info));
        Self { channel, info, listed: false, announced: None, heard: false, leaving: true }
    }
}

/// What is to be done so that `there`, what Redis has, becomes what the entries say.
fn compare(entries: &HashMap<String, Entry>, mut there: HashMap<String, Record>, memory: Memory) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, entry) in entries {
        let record = there.remove(name);
        if entry.leaving {
            match (record, entry.announced) {
                (Some(record), _) => steps.push(Step::Remove(name.clone(), record, Sound::Loud)),
                (None, Some(per)) if memory == Memory::Lost && entry.heard => {
                    steps.push(Step::Part(entry.clone(), per))
                }
                (None, _) => {}
            }
            continue;
        }
        let (listed, announced) = record.map_or((false, false), |record| (record.listed, record.announced));
        if entry.listed && !listed {
            steps.push(Step::Add(entry.clone(), Role::Listed, Sound::Quiet));
        }
        if let Some(per) = entry.announced.filter(|_| !announced) {
            // Who was announced and then forgotten has joined in everybody's eyes; who was swept away has left.
            let known = entry.heard && memory != Memory::Condemned;
            steps.push(Step::Add(entry.clone(), Role::Announced(per), if known { Sound::Quiet } else { Sound::Loud }));
        }
    }
    // What a server that lost its latest writes brings back: everybody knows that they left.
    steps.extend(there.into_iter().map(|(name, record)| Step::Remove(name, record, Sound::Quiet)));
    steps
}

fn unsettled() -> Error {
    Error::Unavailable("presence has to be brought in line with Redis first".into())
}
