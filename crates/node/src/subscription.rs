//! One client's subscription to one channel.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::hub::LocalChannel;
use crate::presence::Per;

/// A subscription, from the moment it is asked for to the moment it is left.
pub(crate) struct Subscription {
    pub(crate) channel: Rc<LocalChannel>,
    pub(crate) terms: Terms,
    pub(crate) phase: Cell<Phase>,
    /// It may be listed in presence.
    pub(crate) listed: Cell<bool>,
    pub(crate) join: Cell<Join>,
    /// Shared with the one before it, of the same client and channel, whose farewell is still under way. `None` if other
    /// clients see nothing of it.
    pub(crate) turn: Option<Turn>,
    /// Its group and index in the channel, while it is live.
    pub(crate) place: Cell<Option<(u8, u32)>>,
    /// The worker's second in which it ends; 0 for never.
    pub(crate) expires: Cell<u32>,
    /// When the token for it was made, in seconds of Unix time; 0 for long ago.
    pub(crate) issued: Cell<u32>,
    /// JSON that other clients see beside the user.
    pub(crate) info: RefCell<Option<Box<Bytes>>>,
}

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
    /// Waits until nobody else changes what other clients see of it: in the order of the calls, not of the first polls.
    pub(crate) fn queue(&self) -> impl Future<Output = Option<OwnedMutexGuard<()>>> + use<> {
        let mut place = self.turn.clone().map(|turn| Box::pin(turn.lock_owned()));
        let at_once = place.as_mut().and_then(|place| place.as_mut().now_or_never());
        async move {
            match (at_once, place) {
                (None, Some(place)) => Some(place.await),
                (at_once, _) => at_once,
            }
        }
    }

    /// How long after its term it goes on: clients may be late, a backend is asked.
    pub(crate) fn grace(&self, grace: u32) -> u32 {
        if self.terms.renewed_by_hook { 0 } else { grace }
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
