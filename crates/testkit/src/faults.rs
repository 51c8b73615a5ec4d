//! A broker that fails, waits and dawdles when a test says so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Broker;
use fanwire_node::broker::{
    Error, History, HistoryQuery, Kept, PublishOptions, Published, Recipient, Resume, Revocation,
};
use fanwire_wire::cluster::Control;
use fanwire_wire::{Channel, Publication};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What a [`FaultyBroker`] does wrong at the moment. Clones steer the same broker.
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

struct Shared {
    mode: watch::Sender<Mode>,
    dawdle: Mutex<Option<Dawdle>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Well,
    Down,
    LoseAnswers,
    HoldRequests,
    HoldAnswers,
}

/// A small generator (xorshift): the delays of a seed are always the same.
#[derive(Clone, Copy)]
struct Dawdle {
    state: u64,
    max_ms: u64,
}

impl Faults {
    /// Everything is well again; what was held goes on.
    pub fn heal(&self) {
        self.0.mode.send_replace(Mode::Well);
    }

    /// Every request fails.
    pub fn go_down(&self) {
        self.0.mode.send_replace(Mode::Down);
    }

    /// Publications are applied, and nobody learns of it.
    pub fn lose_answers(&self) {
        self.0.mode.send_replace(Mode::LoseAnswers);
    }

    /// Subscribe and history requests wait before they are applied.
    pub fn hold_requests(&self) {
        self.0.mode.send_replace(Mode::HoldRequests);
    }

    /// History requests are applied, and their answers wait.
    pub fn hold_answers(&self) {
        self.0.mode.send_replace(Mode::HoldAnswers);
    }

    /// Requests, and answers, take up to `max` from now on, in a way that `seed` decides.
    pub fn dawdle(&self, seed: u64, max: Duration) {
        let dawdle = Dawdle { state: seed.wrapping_mul(2).wrapping_add(1), max_ms: max.as_millis() as u64 };
        *self.0.dawdle.lock() = Some(dawdle);
    }

    async fn pause(&self) {
        let delay = self.0.dawdle.lock().as_mut().map(Dawdle::next);
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
    }

    async fn before(&self, hold: Hold) -> Result<(), Error> {
        self.pause().await;
        if hold == Hold::Yes {
            self.pass(Mode::HoldRequests).await;
        }
        match *self.0.mode.borrow() {
            Mode::Down => Err(Error::Unavailable("the test says so".into())),
            _ => Ok(()),
        }
    }

    async fn after(&self, hold: Hold) {
        self.pause().await;
        if hold == Hold::Yes {
            self.pass(Mode::HoldAnswers).await;
        }
    }

    async fn pass(&self, held: Mode) {
        // The sender lives in `self`.
        let _ = self.0.mode.subscribe().wait_for(|mode| *mode != held).await;
    }
}

/// Whether requests of this kind can be held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Yes,
    No,
}

impl Dawdle {
    fn next(&mut self) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        Duration::from_millis(self.state % (self.max_ms + 1))
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(Shared { mode: watch::Sender::new(Mode::Well), dawdle: Mutex::default() }))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faults").field(&*self.0.mode.borrow()).finish()
    }
}

/// A broker in front of another one, with [`Faults`].
pub struct FaultyBroker {
    inner: Box<dyn Broker>,
    faults: Faults,
}

impl FaultyBroker {
    /// Puts `faults` in front of `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn Broker>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl Broker for FaultyBroker {
    fn publish(&self, publication: Publication, options: PublishOptions) -> BoxFuture<'_, Result<Published, Error>> {
        async move {
            self.faults.before(Hold::No).await?;
            let published = self.inner.publish(publication, options).await;
            self.faults.after(Hold::No).await;
            if *self.faults.0.mode.borrow() == Mode::LoseAnswers {
                return Err(Error::OutcomeUnknown);
            }
            published
        }
        .boxed()
    }

    fn tell(&self, to: Recipient<'_>, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        let told = self.inner.tell(to, control);
        async move {
            self.faults.before(Hold::No).await?;
            told.await
        }
        .boxed()
    }

    fn subscribe(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        // The wish is stated at once, as a broker has to.
        let subscribed = self.inner.subscribe(channel);
        async move {
            self.faults.before(Hold::Yes).await?;
            subscribed.await?;
            self.faults.after(Hold::No).await;
            Ok(())
        }
        .boxed()
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.inner.unsubscribe(channel);
    }

    fn history(&self, channel: &Channel, query: HistoryQuery) -> BoxFuture<'_, Result<History, Error>> {
        let channel = channel.clone();
        async move {
            self.faults.before(Hold::Yes).await?;
            let history = self.inner.history(&channel, query).await;
            self.faults.after(Hold::Yes).await;
            history
        }
        .boxed()
    }

    fn resume(&self, channel: &Channel, resume: Resume) -> BoxFuture<'_, Result<History, Error>> {
        let channel = channel.clone();
        async move {
            self.faults.before(Hold::Yes).await?;
            let history = self.inner.resume(&channel, resume).await;
            self.faults.after(Hold::Yes).await;
            history
        }
        .boxed()
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        let channel = channel.clone();
        async move {
            self.faults.before(Hold::No).await?;
            self.inner.remove_history(&channel).await
        }
        .boxed()
    }

    fn revoke(&self, revocation: &Revocation, keep: Duration) -> BoxFuture<'_, Result<(), Error>> {
        let revoked = self.inner.revoke(revocation, keep);
        async move {
            self.faults.before(Hold::No).await?;
            revoked.await
        }
        .boxed()
    }

    fn revocations<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Kept, Error>> {
        async move {
            self.faults.before(Hold::No).await?;
            self.inner.revocations(place).await
        }
        .boxed()
    }
}

impl fmt::Debug for FaultyBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBroker").field("faults", &self.faults).finish_non_exhaustive()
    }
}
