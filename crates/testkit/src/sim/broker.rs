//! [`Broker`] of one node over a [`Server`]: what a broker over a real server does, without its sockets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire_node::broker::{Error, History, HistoryQuery, PublishOptions, Published, Recipient, Resume};
use fanwire_node::sequencer::Comparison;
use fanwire_node::{Broker, Dispatcher, Sequencer};
use fanwire_wire::cluster::Control;
use fanwire_wire::{Channel, Publication};
use fastrand::Rng;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

use super::mutant::{Mutant, Veil};
use super::server::{Push, Server};

/// A node's broker over a [`Server`]. Its connection for subscriptions is dialled for ever and trusted only as long as what
/// the node says comes back; what it brings goes through the node's [`Sequencer`].
pub struct SimBroker {
    link: Arc<Link>,
    task: JoinHandle<()>,
}

/// One node's end of its way to the server.
struct Link {
    server: Server,
    node: usize,
    dispatcher: Arc<Dispatcher>,
    sequencer: Arc<Sequencer>,
    wishes: Wishes,
    proven: Mutex<Instant>,
    up: AtomicBool,
    mutant: Option<Mutant>,
    veil: Arc<Veil>,
}

/// Which channels the node wants, and which of them the server has confirmed.
#[derive(Default)]
struct Wishes {
    channels: Mutex<BTreeMap<Channel, Wish>>,
    changed: Notify,
}

#[derive(Default)]
struct Wish {
    wanted: bool,
    stage: Stage,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Out,
    Asked,
    Confirmed,
}

/// Why a connection ended.
#[derive(Debug)]
struct Ended;

/// As over a real server.
const HEARTBEAT: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(2);
const COMPARISON: Duration = Duration::from_secs(3);
const CONFIRMATION: Duration = Duration::from_secs(1);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl SimBroker {
    /// Makes the broker of the server's node of this number, which owns `dispatcher`, and begins to connect.
    #[must_use]
    pub fn new(server: &Server, node: usize, dispatcher: Arc<Dispatcher>, mutant: Option<Mutant>) -> Self {
        let veil = Arc::new(Veil::default());
        let (reader, cover) = (server.clone(), Arc::clone(&veil));
        let sequencer = Sequencer::new(
            Arc::clone(&dispatcher),
            Box::new(move |channel, query| {
                let (server, veil) = (reader.clone(), Arc::clone(&cover));
                Box::pin(async move {
                    let history = server.history(node, channel.clone(), query.clone()).await?;
                    Ok(read(mutant, &veil, &channel, &query, history))
                })
            }),
        );
        let link = Arc::new(Link {
            server: server.clone(),
            node,
            dispatcher,
            sequencer,
            wishes: Wishes::default(),
            proven: Mutex::new(Instant::now()),
            up: AtomicBool::new(false),
            mutant,
            veil,
        });
        let task = tokio::spawn(Arc::clone(&link).run());
        Self { link, task }
    }

    /// Whether publications arrive.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.up.load(Ordering::Relaxed)
    }
}

impl Drop for SimBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Broker for SimBroker {
    fn publish(
        &self,
        publication: Publication,
        mut options: PublishOptions,
    ) -> BoxFuture<'_, Result<Published, Error>> {
        if self.link.mutant == Some(Mutant::IgnoreKeys) {
            options.idempotency_key = None;
        }
        self.link.server.publish(self.link.node, publication, options).boxed()
    }

    fn tell(&self, to: Recipient<'_>, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        let to = if let Recipient::Node(node) = to { Some(node.to_owned()) } else { None };
        self.link.server.tell(self.link.node, to, control).boxed()
    }

    fn subscribe(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        let confirmed = self.link.wishes.want(channel);
        async move {
            let Some(confirmed) = confirmed else { return Ok(()) };
            match timeout(CONFIRMATION, confirmed).await {
                Ok(Ok(())) => Ok(()),
                _ => Err(Error::Unavailable("the server has not confirmed the subscription".into())),
            }
        }
        .boxed()
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.link.wishes.leave(channel);
    }

    fn history(&self, channel: &Channel, query: HistoryQuery) -> BoxFuture<'_, Result<History, Error>> {
        let (link, channel) = (&self.link, channel.clone());
        async move {
            let history = link.server.history(link.node, channel.clone(), query.clone()).await?;
            Ok(read(link.mutant, &link.veil, &channel, &query, history))
        }
        .boxed()
    }

    fn resume(&self, channel: &Channel, resume: Resume) -> BoxFuture<'_, Result<History, Error>> {
        let how = if self.is_up() { Comparison::Routine } else { Comparison::Suspicious };
        let channel = channel.clone();
        async move { self.link.sequencer.resume(&channel, resume, how).await }.boxed()
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        self.link.server.remove_history(self.link.node, channel.clone()).boxed()
    }
}

/// What the node takes for the history.
fn read(mutant: Option<Mutant>, veil: &Veil, channel: &Channel, query: &HistoryQuery, mut history: History) -> History {
    match mutant {
        Some(Mutant::IgnoreEpoch) => veil.cover_history(channel, &mut history),
        Some(Mutant::PartialRecovery) => super::mutant::sell_as_complete(query, &mut history),
        _ => {}
    }
    history
}

impl Link {
    /// Connects, subscribes, receives; and again, for ever.
    async fn run(self: Arc<Self>) {
        let mut rng = Rng::with_seed(self.node as u64);
        let mut ceiling = BACKOFF.0;
        loop {
            let connected = self.server.connect(self.node, self.dispatcher.node()).await;
            if let Ok(connection) = connected {
                let Err(Ended) = self.session(connection).await;
                self.server.disconnect(connection);
            }
            if self.up.swap(false, Ordering::Relaxed) {
                ceiling = BACKOFF.0;
            }
            // Whoever wants a channel from here on waits until it arrives again.
            self.wishes.start_over();
            if connected.is_ok() {
                self.sequencer.interrupted(|_| true);
            }
            sleep(ceiling.mul_f64(rng.f64())).await;
            ceiling = (ceiling * 2).min(BACKOFF.1);
        }
    }

    async fn session(&self, connection: u64) -> Result<Infallible, Ended> {
        tokio::select! {
            biased;
            end = self.receive(connection) => end,
            end = self.reconcile(connection) => end,
        }
    }

    async fn receive(&self, connection: u64) -> Result<Infallible, Ended> {
        while let Some(push) = self.server.receive(connection).await {
            match push {
                Push::Subscribed(channel) => self.wishes.confirm(&channel),
                Push::Control(control) => self.dispatcher.hear(control),
                Push::Removed(channel) => self.sequencer.clear(&channel),
                Push::Heartbeat => {
                    *self.proven.lock() = Instant::now();
                    self.up.store(true, Ordering::Relaxed);
                }
                Push::Broadcast(broadcast) => {
                    self.dispatcher.ready().await;
                    match self.mutant {
                        Some(Mutant::NoSequencer) => self.dispatcher.dispatch(&broadcast),
                        Some(Mutant::IgnoreEpoch) => self.sequencer.accept(&self.veil.cover_broadcast(broadcast)),
                        _ => self.sequencer.accept(&broadcast),
                    }
                }
            }
        }
        Err(Ended)
    }

    /// Brings the server's subscriptions in line with the wishes, then keeps them there.
    async fn reconcile(&self, connection: u64) -> Result<Infallible, Ended> {
        while self.apply_wishes(connection).await? {}
        if self.mutant != Some(Mutant::NoSync) {
            self.compare(Comparison::Suspicious).await.map_err(|_| Ended)?;
        }
        tokio::select! {
            biased;
            end = self.follow_wishes(connection) => end,
            end = self.prove(connection) => end,
            end = self.compare_routinely() => end,
        }
    }

    async fn follow_wishes(&self, connection: u64) -> Result<Infallible, Ended> {
        loop {
            if !self.apply_wishes(connection).await? {
                self.wishes.changed.notified().await;
            }
        }
    }

    /// Whether there was something to do.
    async fn apply_wishes(&self, connection: u64) -> Result<bool, Ended> {
        let (subscribe, leave) = self.wishes.take();
        let any = !subscribe.is_empty() || !leave.is_empty();
        if !leave.is_empty() {
            self.server.unsubscribe(self.node, connection, leave.clone()).await.map_err(|_| Ended)?;
            leave.iter().for_each(|channel| self.sequencer.forget(channel));
        }
        if !subscribe.is_empty() {
            subscribe.iter().for_each(|channel| self.sequencer.follow(channel));
            self.server.subscribe(self.node, connection, subscribe.clone()).await.map_err(|_| Ended)?;
            let confirmed = async {
                while !self.wishes.are_confirmed(&subscribe) {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(CONFIRMATION, confirmed).await.map_err(|_| Ended)?;
        }
        Ok(any)
    }

    /// Speaks to itself until it hears nothing any more.
    async fn prove(&self, connection: u64) -> Result<Infallible, Ended> {
        let begun = Instant::now();
        let mut ticks = interval(HEARTBEAT);
        loop {
            ticks.tick().await;
            if self.proven.lock().max(begun).elapsed() > SILENCE {
                return Err(Ended);
            }
            // What does not get through is not heard either.
            let _ = self.server.beat(self.node, connection).await;
        }
    }

    async fn compare_routinely(&self) -> Result<Infallible, Ended> {
        loop {
            sleep(COMPARISON).await;
            if self.mutant != Some(Mutant::NoComparison) {
                let _ = self.compare(Comparison::Routine).await;
            }
        }
    }

    /// Compares the positions of all channels with the ends of their streams.
    async fn compare(&self, how: Comparison) -> Result<(), Error> {
        let mut positions = self.sequencer.positions();
        positions.sort_by(|(one, _), (other, _)| one.cmp(other));
        let channels = positions.iter().map(|(channel, _)| channel.clone()).collect();
        let tops = self.server.read_tops(self.node, channels).await?;
        for ((channel, position), mut top) in positions.iter().zip(tops) {
            if let (Some(Mutant::IgnoreEpoch), Some(top)) = (self.mutant, &mut top) {
                self.veil.cover(channel, &mut top.epoch);
            }
            self.sequencer.compare(channel, position, top, how);
        }
        Ok(())
    }
}

impl Wishes {
    fn want(&self, channel: &Channel) -> Option<oneshot::Receiver<()>> {
        let mut channels = self.channels.lock();
        let wish = channels.entry(channel.clone()).or_default();
        wish.wanted = true;
        if wish.stage == Stage::Confirmed {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        wish.waiting.push(sender);
        self.changed.notify_one();
        Some(receiver)
    }

    fn leave(&self, channel: &Channel) {
        if let Some(wish) = self.channels.lock().get_mut(channel) {
            wish.wanted = false;
            self.changed.notify_one();
        }
    }

    fn confirm(&self, channel: &Channel) {
        let mut channels = self.channels.lock();
        let Some(wish) = channels.get_mut(channel) else { return };
        wish.stage = Stage::Confirmed;
        // Whoever waited may have given up.
        for waiting in wish.waiting.drain(..) {
            let _ = waiting.send(());
        }
        self.changed.notify_one();
    }

    fn are_confirmed(&self, asked: &[Channel]) -> bool {
        let channels = self.channels.lock();
        asked.iter().all(|channel| channels.get(channel).is_none_or(|wish| wish.stage == Stage::Confirmed))
    }

    /// The connection is gone, and with it everything the server has confirmed.
    fn start_over(&self) {
        self.channels.lock().values_mut().for_each(|wish| wish.stage = Stage::Out);
        self.changed.notify_one();
    }

    /// Takes what is to be subscribed and what is to be left, as if it were done.
    fn take(&self) -> (Vec<Channel>, Vec<Channel>) {
        let mut channels = self.channels.lock();
        let mut subscribe = Vec::new();
        for (channel, wish) in channels.iter_mut().filter(|(_, wish)| wish.wanted && wish.stage == Stage::Out) {
            wish.stage = Stage::Asked;
            subscribe.push(channel.clone());
        }
        let over = |wish: &Wish| !wish.wanted && wish.stage != Stage::Asked;
        let leave: Vec<_> =
            channels.iter().filter(|(_, wish)| over(wish)).map(|(channel, _)| channel.clone()).collect();
        channels.retain(|_, wish| !over(wish));
        (subscribe, leave)
    }
}

impl fmt::Debug for SimBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBroker").field("node", &self.link.node).field("up", &self.is_up()).finish_non_exhaustive()
    }
}
