//! The subscriber's end of a subscription.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};

use crate::driver::Command;
use crate::{Error, Event, Position};

/// Which channel is subscribed to, and how.
#[derive(Clone, Debug)]
pub struct Subscribe {
    pub(crate) channel: String,
    pub(crate) token: Option<String>,
    pub(crate) since: Option<Position>,
    pub(crate) joins: bool,
}

impl Subscribe {
    /// A channel, from now on.
    pub fn new(channel: impl Into<String>) -> Self {
        Self { channel: channel.into(), token: None, since: None, joins: false }
    }

    /// Goes on from a position, where the channel can be recovered. The default position is the beginning of all that is kept.
    #[must_use]
    pub fn since(mut self, position: Position) -> Self {
        self.since = Some(position);
        self
    }

    /// With a subscription token, for channels that want one.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Asks for joins and leaves, too.
    #[must_use]
    pub fn joins(mut self) -> Self {
        self.joins = true;
        self
    }
}

impl From<&str> for Subscribe {
    fn from(channel: &str) -> Self {
        Self::new(channel)
    }
}

impl From<String> for Subscribe {
    fn from(channel: String) -> Self {
        Self::new(channel)
    }
}

/// What happens in one channel. Dropping it leaves the channel.
pub struct Subscription {
    pub(crate) id: u64,
    pub(crate) channel: String,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// [`Event::Ended`] was taken.
    pub(crate) over: bool,
    /// Tells the connection by its end.
    pub(crate) _alive: oneshot::Sender<()>,
}

/// What the two ends of a subscription tell each other where the queue between them has no room.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The queue was full: nothing comes until it is empty.
    pub(crate) lagging: AtomicBool,
    /// Why it is over.
    pub(crate) ended: OnceLock<Arc<Error>>,
}

impl Subscription {
    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Waits for the next event; `None` behind [`Event::Ended`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        if self.events.is_empty() && self.shared.lagging.load(Ordering::Acquire) {
            // A client that is gone says so through the queue.
            if let Ok(permit) = self.commands.reserve().await {
                self.shared.lagging.store(false, Ordering::Release);
                permit.send(Command::Resume { channel: self.channel.clone(), id: self.id });
                return Some(Event::Interrupted(Arc::new(Error::Slow)));
            }
        }
        if let Some(event) = self.events.recv().await {
            return Some(event);
        }
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let reason = self.shared.ended.get().cloned();
        Some(Event::Ended(reason.unwrap_or_else(|| Arc::new(Error::Gone))))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("channel", &self.channel).finish_non_exhaustive()
    }
}
