//! One subscription, as its connection sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::subscription::Shared;
use crate::{Error, Event, Position, Publication, Recovery, Subscribe, Subscribed, proto};

/// A subscription. It outlives connections.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Tells it from an earlier one to the same channel.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) token: Option<String>,
    pub(crate) state: State,
    /// When another token is due.
    pub(crate) refresh: Option<Instant>,
    pub(crate) backoff: Backoff,
    joins: bool,
    /// Behind everything that was put into the queue; `None` if there is nothing to go on from.
    position: Option<Position>,
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// To be asked for.
    Idle,
    /// Asked for with this command.
    Asked(u32),
    /// Confirmed.
    Live,
    /// Refused for the moment; to be asked for again at this time.
    Waiting(Instant),
    /// A token is fetched for it.
    Fetching,
    /// The queue was full; to be asked for again when the subscriber has emptied it.
    Lagging,
}

/// The pauses between attempts to subscribe.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));

impl Channel {
    pub(crate) fn new(id: u64, subscribe: Subscribe, events: mpsc::Sender<Event>, shared: Arc<Shared>) -> Self {
        let Subscribe { channel: name, token, since: position, joins } = subscribe;
        let backoff = Backoff::new(PAUSES);
        Self { id, name, token, state: State::Idle, refresh: None, backoff, joins, position, events, shared }
    }

    /// Whether the subscriber is gone.
    pub(crate) fn is_left(&self) -> bool {
        self.events.is_closed()
    }

    /// What asks for it.
    pub(crate) fn request(&self) -> proto::SubscribeRequest {
        let position = self.position.clone();
        proto::SubscribeRequest {
            channel: self.name.clone(),
            token: self.token.clone().unwrap_or_default(),
            recover: position.is_some(),
            offset: position.as_ref().map_or(0, |position| position.offset),
            epoch: position.map(|position| position.epoch).unwrap_or_default(),
            join_leave: self.joins,
            ..proto::SubscribeRequest::default()
        }
    }

    /// It was confirmed. Returns `false` if the queue is full.
    pub(crate) fn confirmed(&mut self, result: proto::SubscribeResult) -> bool {
        self.state = State::Live;
        self.backoff.reset();
        let positioned = result.positioned || result.recoverable;
        let position = positioned.then_some(Position { offset: result.offset, epoch: result.epoch });
        let recovery = match (result.was_recovering, result.recovered) {
            (true, true) => Recovery::Whole,
            (true, false) => Recovery::Lost,
            // The channel has lost its history, or never had one: there was something to go on from, and nothing went on.
            (false, _) if self.position.is_some() => Recovery::Lost,
            (false, _) => Recovery::Fresh,
        };
        let event = Event::Subscribed(Subscribed { recovery, position: position.clone(), data: result.data });
        if !self.push(event) {
            return false;
        }
        self.position = position;
        result.publications.into_iter().all(|publication| self.published(publication))
    }

    /// Somebody published. Returns `false` if the queue is full.
    pub(crate) fn published(&mut self, publication: proto::Publication) -> bool {
        let proto::Publication { data, info, offset, tags } = publication;
        let position = match &self.position {
            // It came before, by whatever way.
            Some(known) if offset > 0 && offset <= known.offset => return true,
            Some(known) if offset > 0 => Some(Position { offset, epoch: known.epoch.clone() }),
            // Published past the history.
            _ => None,
        };
        let info = info.map(Into::into);
        if !self.push(Event::Publication(Publication { data, position: position.clone(), info, tags })) {
            return false;
        }
        self.position = position.or_else(|| self.position.take());
        true
    }

    /// Puts an event into the queue. Returns `false` if it is full: the subscription lags then.
    pub(crate) fn push(&mut self, event: Event) -> bool {
        if self.state == State::Lagging {
            return false;
        }
        // Who has left is noticed elsewhere.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            self.state = State::Lagging;
            self.shared.lagging.store(true, Ordering::Release);
            return false;
        }
        true
    }

    /// The connection is gone.
    pub(crate) fn interrupted(&mut self, error: &Arc<Error>) {
        self.refresh = None;
        if self.state == State::Live {
            self.push(Event::Interrupted(Arc::clone(error)));
        }
        if self.state != State::Lagging {
            self.state = State::Idle;
        }
    }

    /// It is over.
    pub(crate) fn end(self, error: Arc<Error>) {
        let _ = self.shared.ended.set(error);
    }
}

#[cfg(test)]
mod tests;
