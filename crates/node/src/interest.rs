//! Which channels this node wants from the broker, and which workers want them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::cluster::{Control, ControlBody};
use fanwire_wire::{Broadcast, Channel, Position};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::{Broker, Error};
use crate::cluster::Inbox;
use crate::id;
use crate::mailbox::{Letter, Mailbox};

/// Routes what the broker receives: broadcasts to the workers that have subscribers for them, what other nodes say to the node.
///
/// Lock order: a broker's own lock, then a shard, then a mailbox.
pub struct Dispatcher {
    /// The node's id.
    node: String,
    inbox: Inbox,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    mailboxes: Box<[Arc<Mailbox>]>,
}

#[derive(Default)]
struct Shard {
    channels: HashMap<Channel, Interest>,
    /// Channels that lost their last subscriber, in the order and with the time of the loss.
    lingering: VecDeque<(Instant, Channel)>,
}

struct Interest {
    /// One bit for each worker with subscribers.
    workers: u64,
    idle_since: Option<Instant>,
}

const SHARDS: usize = 64;

/// How long an unwanted channel stays with the broker, so that a client that comes back costs nothing.
const LINGER: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// The most workers of a node.
    pub const MAX_WORKERS: usize = 64;

    /// Makes the dispatcher of a node with this many workers (1 to [`Self::MAX_WORKERS`]).
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let workers = workers.clamp(1, Self::MAX_WORKERS);
        Arc::new(Self {
            node: id::format(&id::random()),
            inbox: Inbox::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            mailboxes: (0..workers).map(|_| Arc::default()).collect(),
        })
    }

    /// The id of the node it belongs to, new with every start.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Takes what a node says, this one included. Never waits: what the node has no room for is dropped and counted.
    pub fn hear(&self, control: Control) {
        // Of what it says itself, the node has use for one thing: the sign that it is heard.
        if control.from != self.node || matches!(control.body, ControlBody::Announcement { .. }) {
            self.inbox.put(control);
        }
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Waits until the workers can take more. A broker calls it before it takes a publication.
    pub async fn ready(&self) {
        for mailbox in &self.mailboxes {
            mailbox.ready().await;
        }
    }

    /// Posts a broadcast to every worker with subscribers, all in one order per channel.
    pub fn dispatch(&self, broadcast: &Broadcast) {
        let shard = self.shard(broadcast.channel()).lock();
        let Some(interest) = shard.channels.get(broadcast.channel()) else { return };
        let now = Instant::now();
        let mut workers = interest.workers;
        while workers != 0 {
            let index = workers.trailing_zeros() as usize;
            workers &= workers - 1;
            self.mailboxes[index].post(Letter::Dispatch(broadcast.clone(), now));
        }
    }

    /// Tells the workers that what lies between two positions of a channel will never come.
    pub(crate) fn lose(&self, channel: &Channel, from: &Position, top: &Position) {
        let shard = self.shard(channel).lock();
        let Some(interest) = shard.channels.get(channel) else { return };
        let mut workers = interest.workers;
        while workers != 0 {
            let index = workers.trailing_zeros() as usize;
            workers &= workers - 1;
            let (channel, from, top) = (channel.clone(), from.clone(), top.clone());
            self.mailboxes[index].post(Letter::Run(Box::new(move |worker| worker.lose(&channel, &from, &top))));
        }
    }

    /// The channels with subscribers on this node.
    #[must_use]
    pub fn channels(&self) -> Vec<Channel> {
        let wanted = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.channels.iter().filter(|(_, i)| i.workers != 0).map(|(c, _)| c.clone()).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(wanted).collect()
    }

    /// How many there are.
    pub(crate) fn channel_count(&self) -> usize {
        let wanted = |shard: &Mutex<Shard>| shard.lock().channels.values().filter(|i| i.workers != 0).count();
        self.shards.iter().map(wanted).sum()
    }

    /// Whether a channel has subscribers on this node.
    pub(crate) fn is_wanted(&self, channel: &Channel) -> bool {
        self.shard(channel).lock().channels.get(channel).is_some_and(|interest| interest.workers != 0)
    }

    pub(crate) fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    /// Records that a worker wants a channel, and waits until the broker has confirmed it. The broker alone knows whether
    /// it arrives: it may have arrived once, and not at the moment.
    pub(crate) async fn want(&self, channel: &Channel, worker: usize, broker: &dyn Broker) -> Result<(), Error> {
        let subscribed = {
            let mut shard = self.shard(channel).lock();
            let interest = shard.channels.entry(channel.clone());
            let interest = interest.or_insert_with(|| Interest { workers: 0, idle_since: None });
            interest.workers |= 1 << worker;
            interest.idle_since = None;
            broker.subscribe(channel)
        };
        subscribed.await
    }

    /// Records that a worker has no more subscribers of a channel.
    pub(crate) fn release(&self, channel: &Channel, worker: usize) {
        let mut shard = self.shard(channel).lock();
        let Some(interest) = shard.channels.get_mut(channel) else { return };
        interest.workers &= !(1 << worker);
        if interest.workers == 0 {
            let now = Instant::now();
            interest.idle_since = Some(now);
            shard.lingering.push_back((now, channel.clone()));
        }
    }

    /// Gives up the channels nobody has wanted for a while. Called about once a second.
    pub(crate) fn sweep(&self, broker: &dyn Broker) {
        let now = Instant::now();
        for shard in &self.shards {
            let mut shard = shard.lock();
            while let Some((since, _)) = shard.lingering.front() {
                if now.duration_since(*since) < LINGER {
                    break;
                }
                let Some((since, channel)) = shard.lingering.pop_front() else { break };
                // A channel that was wanted again in the meantime has another time, or none.
                if shard.channels.get(&channel).is_some_and(|interest| interest.idle_since == Some(since)) {
                    shard.channels.remove(&channel);
                    broker.unsubscribe(&channel);
                }
            }
        }
    }

    fn shard(&self, channel: &Channel) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(channel) as usize % SHARDS]
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("workers", &self.mailboxes.len()).finish_non_exhaustive()
    }
}
