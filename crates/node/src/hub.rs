//! A worker's local subscribers, and the dispatch of broadcasts into turn batches.

mod joining;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use bytes::BytesMut;
use fanwire_wire::{Broadcast, Channel, Disconnect, Position, Publication, Stamp};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::meter::{Heat, Meter};
use crate::outlet::Outlet;
use crate::protocol::Encoder;
use crate::subscription::Subscription;
pub(crate) use joining::JoinGuard;
use joining::Joining;

/// The channels with subscribers on one worker.
#[derive(Default)]
pub(crate) struct Hub {
    channels: RefCell<HashMap<Channel, Rc<LocalChannel>>>,
    /// Channels with an open batch, each once.
    pub(crate) dirty: RefCell<Vec<Rc<LocalChannel>>>,
    /// The bytes in all open batches.
    pub(crate) open_bytes: Cell<usize>,
    pub(crate) meter: Meter,
}

/// What dispatching a broadcast asks of the worker.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Connections that cannot go on, by key.
    pub(crate) ended: Vec<(u32, Disconnect)>,
    /// Something is missing before it.
    pub(crate) gap: Option<Gap>,
    /// Subscribers it came too late for: the channel had gone on without it, and they have no position to notice.
    pub(crate) late: u64,
}

/// Who misses something that will not come.
#[derive(Debug, Default)]
pub(crate) struct Gap {
    /// The subscriptions whose position cannot be continued, each with its connection's key.
    pub(crate) positioned: Vec<(u32, Rc<Subscription>)>,
    /// The other ones.
    pub(crate) unpositioned: u64,
}

impl Hub {
    /// Finds a channel, or begins it.
    pub(crate) fn channel(&self, name: &Channel) -> Rc<LocalChannel> {
        let mut channels = self.channels.borrow_mut();
        if let Some(channel) = channels.get(name) {
            return Rc::clone(channel);
        }
        let channel = Rc::new(LocalChannel {
            name: name.clone(),
            groups: RefCell::default(),
            stream: OnceCell::new(),
            members: Cell::new(0),
            dirty: Cell::new(false),
            heat: Heat::default(),
        });
        channels.insert(name.clone(), Rc::clone(&channel));
        channel
    }

    /// Ends a channel that lost its last member.
    pub(crate) fn remove(&self, channel: &LocalChannel) {
        self.channels.borrow_mut().remove(&channel.name);
    }

    /// How many channels have members here.
    pub(crate) fn len(&self) -> usize {
        self.channels.borrow().len()
    }

    /// Shows all channels and how many subscriptions each has, in no order.
    pub(crate) fn for_each_channel(&self, mut show: impl FnMut(&Channel, usize)) {
        self.channels.borrow().values().for_each(|channel| show(&channel.name, channel.members.get() as usize));
    }

    /// Brings a channel that stands at `from` to `top` although nothing in between will come: who misses it.
    #[must_use]
    pub(crate) fn lose(&self, channel: &Channel, from: &Position, top: &Position) -> Option<Gap> {
        let channel = self.channels.borrow().get(channel).cloned()?;
        if let Some(stream) = channel.stream.get() {
            stream.joining.borrow().iter().for_each(|joining| joining.lose(from, top));
            // A channel that a subscriber's own read has brought further stays there.
            if let Some(at) = stream.position.borrow_mut().as_mut().filter(|at| *at == from) {
                *at = top.clone();
            }
        }
        Some(channel.gap())
    }

    /// Appends a broadcast to the open batches of its channel, encoded once per encoder.
    pub(crate) fn dispatch(&self, broadcast: &Broadcast, at: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(channel) = self.channels.borrow().get(broadcast.channel()).cloned() else { return outcome };
        if let Broadcast::Publication(publication) = broadcast {
            let new = channel.advance(publication, &mut outcome);
            // Old for the channel may be new for a subscriber that read the history earlier than another one.
            if let Some(stream) = channel.stream.get() {
                stream.joining.borrow().iter().for_each(|joining| joining.hold(publication));
            }
            if !new {
                outcome.late = channel.gap().unpositioned;
                return outcome;
            }
            let subscribers = channel.groups.borrow().iter().map(|group| group.entries.len()).sum();
            self.meter.dispatched(&channel, subscribers);
        }
        let added = channel.append(broadcast, at, &mut outcome);
        if added > 0 {
            self.open_bytes.set(self.open_bytes.get() + added);
            if !channel.dirty.replace(true) {
                self.dirty.borrow_mut().push(channel);
            }
        }
        outcome
    }
}

/// One channel on one worker.
pub(crate) struct LocalChannel {
    pub(crate) name: Channel,
    pub(crate) groups: RefCell<SmallVec<[Group; 1]>>,
    /// `None` until there is a position, or somebody reads the history.
    stream: OnceCell<Box<Stream>>,
    /// Subscriptions in any state.
    members: Cell<u32>,
    pub(crate) dirty: Cell<bool>,
    pub(crate) heat: Heat,
}

/// Where a channel with history stands on one worker.
#[derive(Default)]
struct Stream {
    /// Subscribers whose history is being read.
    joining: RefCell<Vec<Rc<Joining>>>,
    /// The last publication dispatched here.
    position: RefCell<Option<Position>>,
}

impl LocalChannel {
    /// How many subscriptions it has.
    pub(crate) fn members(&self) -> u32 {
        self.members.get()
    }

    /// Counts a new member.
    pub(crate) fn enter(&self) {
        self.members.set(self.members.get() + 1);
    }

    /// Counts a member out; true if it was the last.
    pub(crate) fn leave(&self) -> bool {
        self.members.set(self.members.get() - 1);
        self.members.get() == 0
    }

    /// Begins to hold publications for a subscriber whose history is being read.
    pub(crate) fn begin_join(self: &Rc<Self>) -> JoinGuard {
        let joining = Rc::new(Joining::default());
        self.stream().joining.borrow_mut().push(Rc::clone(&joining));
        JoinGuard { channel: Rc::clone(self), joining }
    }

    /// Makes a subscriber live: it gets what is dispatched from here on.
    pub(crate) fn activate(
        &self,
        subscription: &Rc<Subscription>,
        outlet: &Rc<Outlet>,
        encoder: &'static dyn Encoder,
        audience: Audience,
    ) {
        let mut groups = self.groups.borrow_mut();
        let found = groups
            .iter()
            .position(|group| group.audience == audience && group.encoder.name() == encoder.name())
            .unwrap_or_else(|| {
                groups.push(Group::new(encoder, audience));
                groups.len() - 1
            });
        let group = &mut groups[found];
        subscription.set_place(found as u8, group.entries.len() as u32);
        make_room(&mut group.entries);
        group.entries.push(Entry {
            outlet: Rc::clone(outlet),
            subscription: Rc::clone(subscription),
            done: group.sealed,
            skip: group.batch.len() as u32,
        });
    }

    /// Ends the delivery to a live subscriber.
    pub(crate) fn deactivate(&self, subscription: &Subscription) {
        let Some((number, index)) = subscription.take_place() else { return };
        let group = &mut self.groups.borrow_mut()[number as usize];
        // The last entry moves into the hole; `done` keeps a running sweep from serving it twice.
        group.entries.swap_remove(index as usize);
        if let Some(moved) = group.entries.get(index as usize) {
            moved.subscription.set_place(number, index);
        }
        if group.entries.is_empty() {
            group.entries.shrink_to_fit();
        }
    }

    /// Checks a publication's place against the one before. False for what was dispatched already.
    fn advance(&self, publication: &Publication, outcome: &mut Outcome) -> bool {
        let Some(Stamp { position, prev }) = &publication.stamp else { return true };
        let mut current = self.stream().position.borrow_mut();
        if let Some(current) = current.as_ref() {
            let same_life = current.epoch == position.epoch;
            if same_life && position.offset <= current.offset {
                return false;
            }
            if !same_life || *prev != current.offset {
                outcome.gap = Some(self.gap());
            }
        }
        *current = Some(position.clone());
        true
    }

    fn stream(&self) -> &Stream {
        self.stream.get_or_init(Box::default)
    }

    /// The live subscriptions, as those who miss something.
    fn gap(&self) -> Gap {
        let mut gap = Gap::default();
        for entry in self.groups.borrow().iter().flat_map(|group| &group.entries) {
            if entry.subscription.terms.positioned {
                gap.positioned.push((entry.outlet.key.get(), Rc::clone(&entry.subscription)));
            } else {
                gap.unpositioned += 1;
            }
        }
        gap
    }

    /// Encodes into the batch of every group concerned; returns the bytes added.
    fn append(&self, broadcast: &Broadcast, at: Instant, outcome: &mut Outcome) -> usize {
        let (for_all, exclude, time_ms) = match broadcast {
            Broadcast::Publication(publication) => (true, publication.exclude, publication.time_ms),
            Broadcast::Join(..) | Broadcast::Leave(..) => (false, None, 0),
        };
        let mut groups = self.groups.borrow_mut();
        // What each group before has got.
        let mut fresh: SmallVec<[usize; 4]> = SmallVec::new();
        for index in 0..groups.len() {
            fresh.push(0);
            let (earlier, rest) = groups.split_at_mut(index);
            let group = &mut rest[0];
            if group.entries.is_empty() || !(for_all || group.audience == Audience::JoinLeave) {
                continue;
            }
            let start = group.batch.len();
            let mut others = earlier.iter().zip(&fresh);
            let twin = others.find(|(twin, fresh)| **fresh > 0 && twin.encoder.name() == group.encoder.name());
            if let Some((twin, fresh)) = twin {
                group.batch.extend_from_slice(&twin.batch[twin.batch.len() - fresh..]);
            } else if let Err(disconnect) = group.encoder.encode(broadcast, &mut group.batch) {
                let ended = group.entries.iter().map(|entry| (entry.outlet.key.get(), disconnect.clone()));
                outcome.ended.extend(ended);
            }
            fresh[index] = group.batch.len() - start;
            if fresh[index] > 0 {
                group.marks.push(Mark { end: group.batch.len() as u32, exclude, at, time_ms });
            }
        }
        fresh.iter().sum()
    }
}

/// What a group's subscribers want beside publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Nothing.
    Publications,
    /// Joins and leaves.
    JoinLeave,
}

/// The subscribers of a channel that share their bytes, and the batch of the turn.
pub(crate) struct Group {
    encoder: &'static dyn Encoder,
    audience: Audience,
    /// Dense, in no order.
    pub(crate) entries: Vec<Entry>,
    /// Finished bytes that no sweep has taken yet.
    pub(crate) batch: BytesMut,
    /// Where in `batch` each broadcast ends.
    pub(crate) marks: Vec<Mark>,
    /// The number of the last batch a sweep has taken.
    pub(crate) sealed: u32,
    /// A sweep of an earlier batch is on its way.
    pub(crate) sweeping: bool,
}

impl Group {
    fn new(encoder: &'static dyn Encoder, audience: Audience) -> Self {
        Self {
            encoder,
            audience,
            entries: Vec::new(),
            batch: BytesMut::new(),
            marks: Vec::new(),
            sealed: 0,
            sweeping: false,
        }
    }
}

/// One subscriber in a group.
pub(crate) struct Entry {
    pub(crate) outlet: Rc<Outlet>,
    pub(crate) subscription: Rc<Subscription>,
    /// The number of the last batch it was given.
    pub(crate) done: u32,
    /// The bytes of its first batch that were there before it came.
    pub(crate) skip: u32,
}

/// The end of one broadcast in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) end: u32,
    /// The id of the client that does not get it.
    pub(crate) exclude: Option<[u8; 16]>,
    /// When it was dispatched to the workers.
    pub(crate) at: Instant,
    /// When it was published, in milliseconds of Unix time by the clock of the node that took it; 0 for joins and leaves.
    pub(crate) time_ms: i64,
}

/// Makes room for one more, and for few beyond it: there are so many lists that doubling each would be a third of their memory.
pub(crate) fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 4 + 1);
    }
}

impl fmt::Debug for LocalChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalChannel").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_small() {
        // With the counts of its `Rc` this makes 192, a size the allocator has.
        assert!(size_of::<LocalChannel>() <= 176, "{}", size_of::<LocalChannel>());
        assert!(size_of::<Entry>() <= 32, "{}", size_of::<Entry>());
    }
}
