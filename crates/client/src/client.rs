//! The handle of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::channel::Channel;
use crate::driver::{Command, Driver};
use crate::subscription::Shared;
use crate::{Config, Error, Subscribe, Subscription};

/// A subscriber's connection. It comes back by itself until the server ends it for good.
///
/// It lives as long as this, a clone of it or one of its [`Subscription`]s.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    buffer: usize,
    ids: Arc<AtomicU64>,
}

/// Commands from handles to their connection that wait.
const MAX_COMMANDS: usize = 64;

impl Client {
    /// Connects. The first attempt must succeed; who wants to wait for a gateway tries again.
    ///
    /// # Errors
    ///
    /// Why it did not.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let buffer = config.buffer;
        let (first, connected) = oneshot::channel();
        tokio::spawn(Driver::new(config, received)?.run(first));
        connected.await.unwrap_or(Err(Error::Gone))?;
        Ok(Self { commands, buffer, ids: Arc::default() })
    }

    /// Subscribes to a channel. Whether that is permitted shows in its events.
    ///
    /// # Errors
    ///
    /// [`Error::Subscribed`], or [`Error::Gone`] if the connection has ended for good.
    pub async fn subscribe(&self, subscribe: impl Into<Subscribe>) -> Result<Subscription, Error> {
        let subscribe = subscribe.into();
        let (sender, events) = mpsc::channel(self.buffer);
        let shared = Arc::<Shared>::default();
        let (id, name) = (self.ids.fetch_add(1, Ordering::Relaxed), subscribe.channel.clone());
        let channel = Channel::new(id, subscribe, sender, Arc::clone(&shared));
        let (alive, left) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let command = Command::Subscribe { channel: Box::new(channel), left, answer };
        self.commands.send(command).await.map_err(|_| Error::Gone)?;
        answered.await.unwrap_or(Err(Error::Gone))?;
        Ok(Subscription {
            id,
            channel: name,
            events,
            shared,
            commands: self.commands.clone(),
            over: false,
            _alive: alive,
        })
    }

    /// Publishes as a client, where the channel permits it; done once the broker has applied it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::NotConnected`], [`Error::Busy`], or [`Error::Lost`], after which it may be done or not.
    pub async fn publish(&self, channel: impl Into<String>, data: impl Into<Bytes>) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Publish { channel: channel.into(), data: data.into(), answer };
        self.commands.send(command).await.map_err(|_| Error::Gone)?;
        answered.await.unwrap_or(Err(Error::Gone))
    }
}
