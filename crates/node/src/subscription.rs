//! One client's subscription to one channel.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

use crate::hub::LocalChannel;
use crate::presence::Per;

/// A subscription, from the moment it is asked for to the moment it is left.
pub(crate) struct Subscription {
    pub(crate) channel: Rc<LocalChannel>,
    pub(crate) terms: Terms,
    pub(crate) phase: Cell<Phase>,
    /// Its group and index in the channel, while it is live.
    pub(crate) place: Cell<Option<(u8, u32)>>,
    /// The worker's second in which it ends; 0 for never.
    pub(crate) expires: Cell<u32>,
    /// JSON that other clients see beside the user.
    pub(crate) info: RefCell<Option<Box<Bytes>>>,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for the broker.
    Joining,
    /// Listed in presence; not receiving yet.
    Prepared,
    /// Receiving; its join is not announced yet, or need not be.
    Live,
    /// Receiving, and its join is announced.
    Announced,
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
}

/// Who began a subscription, by what right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The client, by the namespace's rule.
    Client,
    /// The client, by a token.
    Token,
    /// The server.
    Server,
}

impl Subscription {
    /// Whether other clients see something of it when it was this far.
    pub(crate) fn is_seen(&self, phase: Phase) -> bool {
        phase == Phase::Announced || matches!(phase, Phase::Prepared | Phase::Live) && self.terms.presence
    }

    /// Whether it receives.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase.get(), Phase::Live | Phase::Announced)
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
