//! What keeps a connection: opens it, and opens it again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::channel::{Channel, State};
use crate::dial::Endpoint;
use crate::session::Session;
use crate::{Config, Error, TokenFor};

/// What handles ask of their connection.
#[derive(Debug)]
pub(crate) enum Command {
    /// Enters a channel. `left` ends when the subscriber is gone.
    Subscribe { channel: Box<Channel>, left: oneshot::Receiver<()>, answer: oneshot::Sender<Result<(), Error>> },
    /// Enters it again: the subscriber has taken everything.
    Resume { channel: String, id: u64 },
    /// Publishes.
    Publish { channel: String, data: Bytes, answer: oneshot::Sender<Result<(), Error>> },
}

/// All that outlives a connection.
pub(crate) struct Driver {
    pub(crate) config: Config,
    pub(crate) endpoint: Endpoint,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) channels: BTreeMap<String, Channel>,
    /// One for each subscriber: ends when it is gone.
    pub(crate) leaving: FuturesUnordered<BoxFuture<'static, (String, u64)>>,
    /// The connection token in use.
    pub(crate) token: Option<String>,
}

/// Error codes and close codes after which a token is of no more use.
const TOKEN_EXPIRED: u32 = 109;
const STALE_CODES: [u16; 2] = [3005, 3014];

impl Driver {
    pub(crate) fn new(config: Config, commands: mpsc::Receiver<Command>) -> Result<Self, Error> {
        Ok(Self {
            endpoint: Endpoint::new(&config.url, &config.roots)?,
            commands,
            channels: BTreeMap::new(),
            leaving: FuturesUnordered::new(),
            token: config.token.clone(),
            config,
        })
    }

    /// Lives until nobody wants it any more, or the server ends it for good. Says how the first attempt went.
    pub(crate) async fn run(mut self, first: oneshot::Sender<Result<(), Error>>) {
        let mut first = Some(first);
        let mut backoff = Backoff::new(self.config.backoff);
        loop {
            let error = match Session::open(&mut self).await {
                Ok(session) => {
                    backoff.reset();
                    if let Some(first) = first.take() {
                        let _ = first.send(Ok(()));
                    }
                    session.live().await
                }
                Err(error) => error,
            };
            let stale = match &error {
                Error::Refused(refusal) => refusal.code == TOKEN_EXPIRED,
                Error::Closed { code, .. } => STALE_CODES.contains(code),
                _ => false,
            };
            let renewable = stale && self.config.tokens.is_some();
            if renewable {
                self.token = None;
            }
            if let Some(waiting) = first.take() {
                // The token that was given may be an old one. It is tried once.
                if renewable && self.config.token.take().is_some() {
                    first = Some(waiting);
                    continue;
                }
                let _ = waiting.send(Err(error));
                return;
            }
            let over = match &error {
                Error::Gone | Error::Usage(_) => true,
                // A balancer between two versions of itself may answer anything.
                Error::Status { .. } | Error::Foreign { .. } | Error::Token(_) => false,
                error => !error.is_temporary() && !renewable,
            };
            let error = Arc::new(error);
            if over {
                for (_, channel) in std::mem::take(&mut self.channels) {
                    channel.end(Arc::clone(&error));
                }
                return;
            }
            for channel in self.channels.values_mut() {
                channel.interrupted(&error);
            }
            let advised = if let Error::Status { retry_after, .. } = &*error { *retry_after } else { None };
            let pause = advised.unwrap_or_default() + backoff.next();
            if !self.wait(pause).await {
                return;
            }
        }
    }

    /// Fetches a token for the connection if there is none.
    pub(crate) async fn connection_token(&mut self) -> Result<String, Error> {
        if self.token.is_none()
            && let Some(tokens) = &self.config.tokens
        {
            self.token = Some(Config::fetch(Arc::clone(tokens), TokenFor::Connection).await?);
        }
        Ok(self.token.clone().unwrap_or_default())
    }

    /// Waits without a connection. Returns `false` if nobody wants one any more.
    async fn wait(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            select! {
                () = sleep_until(until) => return true,
                Some((name, id)) = self.leaving.next(), if !self.leaving.is_empty() => {
                    self.forget(&name, id);
                }
                command = self.commands.recv() => match command {
                    None => return false,
                    Some(Command::Subscribe { channel, left, answer }) => {
                        self.forget_left(&channel.name);
                        self.enter(*channel, left, answer);
                    }
                    Some(Command::Resume { channel, id }) => {
                        self.resume(&channel, id);
                    }
                    Some(Command::Publish { answer, .. }) => {
                        let _ = answer.send(Err(Error::NotConnected));
                    }
                },
            }
        }
    }

    /// Takes a new subscription; returns its channel if it is to be asked for.
    pub(crate) fn enter(
        &mut self,
        channel: Channel,
        left: oneshot::Receiver<()>,
        answer: oneshot::Sender<Result<(), Error>>,
    ) -> Option<String> {
        let (name, id) = (channel.name.clone(), channel.id);
        match self.channels.entry(name.clone()) {
            Entry::Occupied(_) => {
                let _ = answer.send(Err(Error::Subscribed));
                None
            }
            Entry::Vacant(place) => {
                let leaving = name.clone();
                self.leaving.push(Box::pin(async move {
                    // Nothing is ever sent: the other end is dropped.
                    let _ = left.await;
                    (leaving, id)
                }));
                place.insert(channel);
                let _ = answer.send(Ok(()));
                Some(name)
            }
        }
    }

    /// A subscriber has caught up; returns whether its channel is to be asked for.
    pub(crate) fn resume(&mut self, name: &str, id: u64) -> bool {
        let found = self.channels.get_mut(name).filter(|found| found.id == id && found.state == State::Lagging);
        found.is_some_and(|channel| {
            channel.state = State::Idle;
            true
        })
    }

    /// A subscriber is gone; returns whether its channel was there.
    pub(crate) fn forget(&mut self, name: &str, id: u64) -> bool {
        let known = self.channels.get(name).is_some_and(|channel| channel.id == id);
        if known {
            self.channels.remove(name);
        }
        known
    }

    /// Forgets a channel whose subscriber is gone already; returns whether it was there.
    pub(crate) fn forget_left(&mut self, name: &str) -> bool {
        let left = self.channels.get(name).filter(|channel| channel.is_left()).map(|channel| channel.id);
        left.is_some_and(|id| self.forget(name, id))
    }
}
