//! The connection for subscriptions: dialled for ever, trusted only as long as what the node says comes back.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::sequencer::Comparison;
use fanwire_node::{Dispatcher, Sequencer};
use fanwire_wire::Channel;
use fanwire_wire::cluster::{Envelope, Heartbeat};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::commands::{bytes, text};
use crate::health::Health;
use crate::keys::random_share;
use crate::store::Store;
use crate::wishes::{Batch, Wishes};

pub(crate) struct Subscriber {
    pub(crate) client: Client,
    pub(crate) store: Arc<Store>,
    pub(crate) wishes: Arc<Wishes>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) sequencer: Arc<Sequencer>,
    pub(crate) health: Health,
    /// This node's name for itself.
    pub(crate) node: String,
    pub(crate) timeout: Duration,
}

/// Messages read from the socket and not dispatched. More, and the connection is given up: what is missed then is noticed
/// and repaired like any other gap.
const QUEUE: usize = 64 * 1024;

/// How often the node speaks to itself, and how long it may hear nothing.
const HEARTBEAT: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(2);

/// How often the positions of all channels are compared.
const COMPARISON: Duration = Duration::from_secs(3);

/// The time between two attempts to connect grows from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a connection ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Connect,
    Disconnected,
    Silent,
    Overflow,
    Unconfirmed,
    Unsynced,
}

impl End {
    const ALL: [Self; 6] =
        [Self::Connect, Self::Disconnected, Self::Silent, Self::Overflow, Self::Unconfirmed, Self::Unsynced];

    fn count(self) -> metrics::Counter {
        metrics::counter!("fanwire_redis_reconnects_total", "reason" => self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnected => "disconnected",
            Self::Silent => "silent",
            Self::Overflow => "overflow",
            Self::Unconfirmed => "unconfirmed",
            Self::Unsynced => "unsynced",
        }
    }
}

impl Subscriber {
    /// Connects, subscribes, receives; and again, for ever.
    pub(crate) async fn run(self) {
        End::ALL.iter().for_each(|end| end.count().increment(0));
        let mut ceiling = BACKOFF.0;
        loop {
            let Err(end) = self.session().await;
            if self.health.is_up() {
                ceiling = BACKOFF.0;
            }
            self.health.down(end.name());
            // Whoever wants a channel from here on waits until it arrives again.
            self.wishes.start_over();
            if !matches!(end, End::Connect) {
                self.sequencer.interrupted(|_| true);
            }
            end.count().increment(1);
            sleep(ceiling.mul_f64(random_share())).await;
            ceiling = (ceiling * 2).min(BACKOFF.1);
        }
    }

    async fn session(&self) -> Result<Infallible, End> {
        let (sender, pushes) = mpsc::channel(QUEUE);
        let overflowed = Arc::new(AtomicBool::new(false));
        let overflow = Arc::clone(&overflowed);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                sender.try_send(push).inspect_err(|_| overflow.store(true, Ordering::Relaxed))
            });
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connected.map_err(|error| {
            tracing::debug!(%error, "cannot connect to Redis");
            End::Connect
        })?;
        tokio::select! {
            end = self.receive(pushes, &overflowed) => end,
            end = self.reconcile(&mut connection) => end,
        }
    }

    /// Takes what the server pushes, in order.
    async fn receive(&self, mut pushes: mpsc::Receiver<PushInfo>, overflowed: &AtomicBool) -> Result<Infallible, End> {
        while let Some(PushInfo { kind, data }) = pushes.recv().await {
            if overflowed.load(Ordering::Relaxed) {
                return Err(End::Overflow);
            }
            let mut data = data.into_iter();
            match kind {
                PushKind::Disconnection => return Err(End::Disconnected),
                PushKind::Subscribe => {
                    let name = data.next().and_then(text).unwrap_or_default();
                    if let Some(channel) = self.store.keys.channel_of(&name) {
                        self.wishes.confirm(&channel);
                    }
                }
                PushKind::Message => {
                    if let Some(payload) = data.nth(1) {
                        self.take(payload).await;
                    }
                }
                _ => {}
            }
        }
        Err(End::Disconnected)
    }

    async fn take(&self, payload: Value) {
        match bytes(payload).map(Envelope::decode) {
            Some(Ok(Envelope::Broadcast(broadcast))) => {
                self.dispatcher.ready().await;
                self.sequencer.accept(&broadcast);
            }
            Some(Ok(Envelope::HistoryRemoved(channel))) => self.sequencer.clear(&channel),
            Some(Ok(Envelope::Heartbeat(heartbeat))) if heartbeat.node == self.node => self.health.proven(),
            // Of a later version, or not ours.
            _ => tracing::debug!("a message through Redis makes no sense"),
        }
    }

    /// Brings the server's subscriptions in line with the wishes, then keeps them there.
    async fn reconcile(&self, connection: &mut MultiplexedConnection) -> Result<Infallible, End> {
        let own = self.store.keys.node(&self.node);
        self.confirmed(connection.subscribe(&own)).await?;
        loop {
            let batch = self.wishes.take();
            if batch.is_empty() {
                break;
            }
            self.apply(connection, batch).await?;
        }
        // From here on everything arrives; what was published before may be missing.
        self.compare(Comparison::Suspicious).await.map_err(|_| End::Unsynced)?;
        tokio::select! {
            end = self.follow_wishes(connection) => end,
            end = self.prove(&own) => end,
            end = self.compare_routinely() => end,
        }
    }

    async fn follow_wishes(&self, connection: &mut MultiplexedConnection) -> Result<Infallible, End> {
        loop {
            let batch = self.wishes.take();
            if batch.is_empty() {
                self.wishes.changed().await;
            } else {
                self.apply(connection, batch).await?;
            }
        }
    }

    async fn apply(&self, connection: &mut MultiplexedConnection, batch: Batch) -> Result<(), End> {
        let names =
            |channels: &[Channel]| channels.iter().map(|channel| self.store.keys.channel(channel)).collect::<Vec<_>>();
        if !batch.unsubscribe.is_empty() {
            self.confirmed(connection.unsubscribe(names(&batch.unsubscribe))).await?;
            batch.unsubscribe.iter().for_each(|channel| self.sequencer.forget(channel));
        }
        if !batch.subscribe.is_empty() {
            batch.subscribe.iter().for_each(|channel| self.sequencer.follow(channel));
            self.confirmed(connection.subscribe(names(&batch.subscribe))).await?;
        }
        Ok(())
    }

    async fn confirmed(&self, request: impl Future<Output = Result<(), RedisError>>) -> Result<(), End> {
        match timeout(self.timeout, request).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "Redis does not confirm a subscription");
                Err(End::Unconfirmed)
            }
            Err(_) => Err(End::Unconfirmed),
        }
    }

    /// Speaks to itself until it hears nothing any more.
    async fn prove(&self, own: &str) -> Result<Infallible, End> {
        let begun = Instant::now();
        let mut ticks = interval(HEARTBEAT);
        let mut number = 0;
        loop {
            ticks.tick().await;
            if self.health.proof_age().min(begun.elapsed()) > SILENCE {
                return Err(End::Silent);
            }
            number += 1;
            let heartbeat: Bytes = Envelope::Heartbeat(Heartbeat { node: self.node.clone(), number }).encode();
            // What does not get through is not heard either.
            let _ = self.store.send(own, &heartbeat).await;
        }
    }

    async fn compare_routinely(&self) -> Result<Infallible, End> {
        loop {
            sleep(COMPARISON.mul_f64(0.75 + random_share() / 2.0)).await;
            // Whether Redis answers at all is for the heartbeats to find out.
            let _ = self.compare(Comparison::Routine).await;
        }
    }

    /// Compares the positions of all channels with the ends of their streams.
    async fn compare(&self, how: Comparison) -> Result<(), fanwire_node::broker::Error> {
        let (channels, positions): (Vec<_>, Vec<_>) = self.sequencer.positions().into_iter().unzip();
        let tops = self.store.tops(&channels).await?;
        for ((channel, position), top) in channels.iter().zip(&positions).zip(tops) {
            self.sequencer.compare(channel, position, top, how);
        }
        Ok(())
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.subscribe.is_empty() && self.unsubscribe.is_empty()
    }
}
