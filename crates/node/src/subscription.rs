//! One client's subscription to one channel.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::hub::LocalChannel;
use crate::presence::Per;

/// A subscription, from the moment it is asked for to the moment it is left. A node may have millions, most of them bare:
/// what few have stands in [`Rare`].
pub(crate) struct Subscription {
    pub(crate) channel: Rc<LocalChannel>,
    pub(crate) terms: Terms,
    pub(crate) phase: Cell<Phase>,
    /// It may be listed in presence.
    pub(crate) listed: Cell<bool>,
    pub(crate) join: Cell<Join>,
    /// Its group in the channel and its index there, while it is live; [`NOWHERE`] otherwise.
    group: Cell<u8>,
    index: Cell<u32>,
    rare: OnceCell<Box<Rare>>,
}

/// What a subscription has if it has a term, or if other clients see something of it.
#[derive(Default)]
struct Rare {
    turn: Option<Turn>,
    expires: Cell<u32>,
    issued: Cell<u32>,
    info: RefCell<Option<Box<Bytes>>>,
}

/// The index of a subscription that is not live. A group never has as many entries: each takes a descriptor.
const NOWHERE: u32 = u32::MAX;

/// Lets one at a time change what other clients see of a client in a channel.
pub(crate) type Turn = Arc<Mutex<()>>;

/// Whether other clients have heard of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Join {
    /// No, and they need not.
    #[default]
    Unsaid,
    /// Not yet.
    Due,
    /// Yes.
    Said,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for the broker.
    Joining,
    /// Nothing is missing but the answer; not receiving yet.
    Prepared,
    /// Receiving.
    Live,
    /// Over. Whoever was about to do something for it stops.
    Left,
}

/// What was agreed when the subscription began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) origin: Origin,
    pub(crate) presence: bool,
    /// Its joining and leaving is announced, for this.
    pub(crate) announced: Option<Per>,
    /// It receives the joins and leaves of others.
    pub(crate) hears_joins: bool,
    pub(crate) recoverable: bool,
    pub(crate) positioned: bool,
    /// Its term is renewed by a backend, not by the client.
    pub(crate) renewed_by_hook: bool,
}

/// Who began a subscription, by what right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The client, by the namespace's rule.
    Client,
    /// The client, by a token.
    Token,
    /// The client, by a capability of its connection token.
    Capability,
    /// The client, by the word of a backend.
    Hook,
    /// The server.
    Server,
}

impl Subscription {
    /// Begins one. `turn` is shared with the one before it, of the same client and channel, whose farewell is still under way;
    /// `None` if other clients see nothing of it.
    pub(crate) fn new(channel: Rc<LocalChannel>, terms: Terms, turn: Option<Turn>) -> Self {
        let rare = OnceCell::new();
        if turn.is_some() {
            rare.get_or_init(|| Box::new(Rare { turn, ..Rare::default() }));
        }
        Self {
            channel,
            terms,
            phase: Cell::new(Phase::Joining),
            listed: Cell::default(),
            join: Cell::default(),
            group: Cell::default(),
            index: Cell::new(NOWHERE),
            rare,
        }
    }

    /// Its group in the channel and its index there, while it is live.
    pub(crate) fn place(&self) -> Option<(u8, u32)> {
        (self.index.get() != NOWHERE).then(|| (self.group.get(), self.index.get()))
    }

    pub(crate) fn set_place(&self, group: u8, index: u32) {
        self.group.set(group);
        self.index.set(index);
    }

    /// Takes its place away.
    pub(crate) fn take_place(&self) -> Option<(u8, u32)> {
        let place = self.place();
        self.index.set(NOWHERE);
        place
    }

    /// The worker's second in which it ends; 0 for never.
    pub(crate) fn expires(&self) -> u32 {
        self.rare.get().map_or(0, |rare| rare.expires.get())
    }

    pub(crate) fn set_expires(&self, second: u32) {
        if second != self.expires() {
            self.rare().expires.set(second);
        }
    }

    /// When the token for it was made, in seconds of Unix time; 0 for long ago.
    pub(crate) fn issued(&self) -> u32 {
        self.rare.get().map_or(0, |rare| rare.issued.get())
    }

    pub(crate) fn set_issued(&self, second: u32) {
        if second != self.issued() {
            self.rare().issued.set(second);
        }
    }

    /// JSON that other clients see beside the user.
    pub(crate) fn info(&self) -> Option<Bytes> {
        self.rare.get().and_then(|rare| rare.info.borrow().as_deref().cloned())
    }

    pub(crate) fn set_info(&self, info: Option<Bytes>) {
        if info.is_some() || self.rare.get().is_some() {
            *self.rare().info.borrow_mut() = info.map(Box::new);
        }
    }

    /// Lets one at a time change what other clients see of it; `None` if that is nothing.
    pub(crate) fn turn(&self) -> Option<&Turn> {
        self.rare.get().and_then(|rare| rare.turn.as_ref())
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Waits until nobody else changes what other clients see of it: in the order of the calls, not of the first polls.
    pub(crate) fn queue(&self) -> impl Future<Output = Option<OwnedMutexGuard<()>>> + use<> {
        let mut place = self.turn().cloned().map(|turn| Box::pin(turn.lock_owned()));
        let at_once = place.as_mut().and_then(|place| place.as_mut().now_or_never());
        async move {
            match (at_once, place) {
                (None, Some(place)) => Some(place.await),
                (at_once, _) => at_once,
            }
        }
    }

    /// The worker's second in which it ends: `grace` after its term, for clients may be late; at once where a backend is asked.
    pub(crate) fn ends(&self, grace: u32) -> Option<u32> {
        let grace = if self.terms.renewed_by_hook { 0 } else { grace };
        Some(self.expires()).filter(|term| *term != 0).map(|term| term + grace)
    }

    /// Whether it receives.
    pub(crate) fn is_live(&self) -> bool {
        self.phase.get() == Phase::Live
    }

    /// Whether it is over.
    pub(crate) fn has_left(&self) -> bool {
        self.phase.get() == Phase::Left
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("channel", &self.channel.name)
            .field("terms", &self.terms)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_subscription_is_small() {
        // With the counts of its `Rc` this makes 48, which is what the allocator gives.
        assert!(size_of::<Subscription>() <= 32, "{}", size_of::<Subscription>());
    }
}
