//! One life of a connection for subscriptions: what is asked of the server, and what arrives.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::sequencer::Comparison;
use fanwire_wire::Channel;
use fanwire_wire::cluster::{Envelope, Heartbeat};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::answers::{bytes, text};
use crate::awaited::{Awaited, Way};
use crate::keys::random_share;
use crate::partitions::Partition;
use crate::reception::Reception;
use crate::subscriber::End;
use crate::topology::{Map, Server};
use crate::wishes::{Batch, Servant};

/// How often the node speaks to itself, and how long it may hear nothing.
const HEARTBEAT: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(2);

/// How often the positions of all channels are compared.
const COMPARISON: Duration = Duration::from_secs(3);

/// How long a server that sends the node to another one is left alone.
const PAUSE: Duration = Duration::from_millis(25);

pub(crate) struct Session<'a> {
    shared: &'a Reception,
    server: &'a Server,
    shard: usize,
    servant: Arc<Servant>,
    /// What this connection serves.
    serves: Mutex<BTreeSet<Partition>>,
    /// Where publications may have been missed without a trace.
    suspects: Mutex<BTreeSet<Partition>>,
    /// Where the node hears itself.
    proof: Mutex<Option<Proof>>,
    /// Whether it hears the other nodes, if this connection serves their partition.
    hears_nodes: AtomicBool,
    awaited: Awaited,
}

/// A pub/sub channel on which the node hears itself.
#[derive(Clone)]
struct Proof {
    partition: Partition,
    name: String,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Confirmed,
    /// Another server serves this now.
    Moved,
}

impl<'a> Session<'a> {
    pub(crate) fn new(shared: &'a Reception, server: &'a Server, shard: usize) -> Self {
        Self {
            shared,
            server,
            shard,
            servant: Arc::new(Servant { shard, called: Notify::new() }),
            serves: Mutex::default(),
            suspects: Mutex::default(),
            proof: Mutex::default(),
            hears_nodes: AtomicBool::new(false),
            awaited: Awaited::default(),
        }
    }

    /// Takes what the server pushes, in order.
    pub(crate) async fn receive(
        &self,
        mut pushes: mpsc::Receiver<PushInfo>,
        overflowed: &AtomicBool,
    ) -> Result<Infallible, End> {
        while let Some(PushInfo { kind, data }) = pushes.recv().await {
            if overflowed.load(Ordering::Relaxed) {
                return Err(End::Overflow);
            }
            let mut data = data.into_iter();
            match kind {
                PushKind::Disconnection => return Err(End::Disconnected),
                PushKind::Subscribe | PushKind::SSubscribe => {
                    let name = data.next().and_then(text).unwrap_or_default();
                    if let Some(channel) = self.shared.store.keys.channel_of(&name) {
                        let partition = self.shared.store.keys.partition(&channel);
                        self.shared.wishes(partition).confirm(&self.servant, &channel);
                    }
                    self.awaited.confirm(Way::In, name);
                }
                PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                    let name = data.next().and_then(text).unwrap_or_default();
                    if !self.awaited.confirm(Way::Out, name.clone()) {
                        self.lose(&name);
                    }
                }
                PushKind::Message | PushKind::SMessage => {
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
                self.shared.dispatcher.ready().await;
                self.shared.sequencer.accept(&broadcast);
            }
            Some(Ok(Envelope::Control(control))) => self.shared.dispatcher.hear(*control),
            Some(Ok(Envelope::HistoryRemoved(channel))) => self.shared.sequencer.clear(&channel),
            Some(Ok(Envelope::Heartbeat(heartbeat))) if heartbeat.node == self.shared.node => {
                self.shared.health.proven(self.shard);
            }
            // Of a later version, or not ours.
            _ => tracing::debug!("a message through Redis makes no sense"),
        }
    }

    /// The server says by itself that it delivers something no more: the slot has moved.
    fn lose(&self, name: &str) {
        tracing::debug!(shard = self.shard, name, "the server ends a subscription");
        if let Some(channel) = self.shared.store.keys.channel_of(name) {
            let partition = self.shared.store.keys.partition(&channel);
            self.shared.wishes(partition).lost(&self.servant, &channel);
            if self.suspects.lock().insert(partition) {
                self.interrupted(|at| at == partition);
            }
        } else if let Some(proof) = self.proof.lock().take_if(|proof| proof.name == name) {
            self.suspects.lock().insert(proof.partition);
        } else if self.node_names().contains(name) {
            self.hears_nodes.store(false, Ordering::Relaxed);
            self.suspects.lock().insert(Partition::NODES);
        }
        self.servant.called.notify_one();
    }

    /// Brings the server's subscriptions in line with the wishes, then keeps them there.
    pub(crate) async fn reconcile(&self, mut connection: MultiplexedConnection) -> Result<Infallible, End> {
        let mut map = self.shared.topology.map();
        self.settle(&mut connection, &mut map).await?;
        tokio::select! {
            end = self.follow(&mut connection, &mut map) => end,
            end = self.prove() => end,
            end = self.compare_routinely() => end,
        }
    }

    async fn follow(
        &self,
        connection: &mut MultiplexedConnection,
        map: &mut watch::Receiver<Arc<Map>>,
    ) -> Result<Infallible, End> {
        loop {
            tokio::select! {
                () = self.servant.called.notified() => {}
                // Its end is that of the node.
                _ = map.changed() => {}
            }
            self.settle(connection, map).await?;
        }
    }

    /// Does what there is to do: takes over what the server serves, subscribes, and compares where something may be missing.
    async fn settle(
        &self,
        connection: &mut MultiplexedConnection,
        map: &mut watch::Receiver<Arc<Map>>,
    ) -> Result<(), End> {
        let in_doubt = !self.suspects.lock().is_empty();
        if in_doubt {
            self.shared.topology.refresh(self.server.site).await;
        }
        self.adopt(&map.borrow_and_update())?;
        // What the server does not serve, against expectation. Where it is then is asked next time.
        let mut moved = BTreeSet::new();
        if let Some(partition) = self.proof_missing()
            && self.subscribe_proof(connection, partition).await? == Outcome::Moved
        {
            moved.insert(partition);
        }
        if self.is_deaf_to_nodes() && self.subscribe_nodes(connection).await? == Outcome::Moved {
            moved.insert(Partition::NODES);
        }
        while let Some((partition, batch)) = self.next_batch(&moved) {
            if self.apply(connection, partition, batch).await? == Outcome::Moved {
                moved.insert(partition);
            }
        }
        // From here on everything arrives; what was published before may be missing.
        let suspects = std::mem::replace(&mut *self.suspects.lock(), moved.clone());
        let sound = |at| suspects.contains(&at) && !moved.contains(&at);
        if !suspects.is_empty() && !self.compare(Comparison::Suspicious, sound).await {
            return Err(End::Unsynced);
        }
        if !moved.is_empty() {
            sleep(PAUSE).await;
            self.servant.called.notify_one();
        }
        Ok(())
    }

    /// Takes over what the server has got, and lets go what it has lost.
    fn adopt(&self, map: &Map) -> Result<(), End> {
        let serves: BTreeSet<_> = map.of(self.server).collect();
        let before = std::mem::replace(&mut *self.serves.lock(), serves.clone());
        let lost: BTreeSet<_> = before.difference(&serves).copied().collect();
        if !lost.is_empty() {
            lost.iter().for_each(|partition| self.shared.wishes(*partition).release(&self.servant));
            self.interrupted(|at| lost.contains(&at));
        }
        for gained in serves.difference(&before) {
            self.shared.wishes(*gained).take_over(&self.servant);
            self.suspects.lock().insert(*gained);
        }
        self.suspects.lock().retain(|suspect| serves.contains(suspect));
        self.proof.lock().take_if(|proof| !serves.contains(&proof.partition));
        self.hears_nodes.fetch_and(serves.contains(&Partition::NODES), Ordering::Relaxed);
        if serves.is_empty() { Err(End::Idle) } else { Ok(()) }
    }

    /// Where the node has to hear itself, if it does not.
    fn proof_missing(&self) -> Option<Partition> {
        if self.proof.lock().is_some() { None } else { self.serves.lock().first().copied() }
    }

    async fn subscribe_proof(
        &self,
        connection: &mut MultiplexedConnection,
        partition: Partition,
    ) -> Result<Outcome, End> {
        let name = self.shared.store.keys.proof(partition, &self.shared.node);
        let outcome = self.ask(connection, Way::In, HashSet::from([name.clone()])).await?;
        if outcome == Outcome::Confirmed {
            *self.proof.lock() = Some(Proof { partition, name });
        }
        Ok(outcome)
    }

    fn is_deaf_to_nodes(&self) -> bool {
        self.serves.lock().contains(&Partition::NODES) && !self.hears_nodes.load(Ordering::Relaxed)
    }

    async fn subscribe_nodes(&self, connection: &mut MultiplexedConnection) -> Result<Outcome, End> {
        let outcome = self.ask(connection, Way::In, self.node_names()).await?;
        self.hears_nodes.store(outcome == Outcome::Confirmed, Ordering::Relaxed);
        Ok(outcome)
    }

    /// What other nodes say arrives here.
    fn node_names(&self) -> HashSet<String> {
        let keys = &self.shared.store.keys;
        HashSet::from([keys.nodes(), keys.node(&self.shared.node)])
    }

    fn next_batch(&self, moved: &BTreeSet<Partition>) -> Option<(Partition, Batch)> {
        let serves = self.serves.lock();
        let take = |partition: &Partition| {
            let batch = self.shared.wishes(*partition).take(&self.servant);
            (!batch.is_empty()).then_some((*partition, batch))
        };
        serves.difference(moved).find_map(take)
    }

    /// Carries out the wishes of one partition: in a cluster a command must not concern several slots.
    async fn apply(
        &self,
        connection: &mut MultiplexedConnection,
        partition: Partition,
        batch: Batch,
    ) -> Result<Outcome, End> {
        let names =
            |channels: &[Channel]| channels.iter().map(|channel| self.shared.store.keys.channel(channel)).collect();
        if !batch.unsubscribe.is_empty() {
            // A server that does not serve them any more has ended them by itself.
            self.ask(connection, Way::Out, names(&batch.unsubscribe)).await?;
            batch.unsubscribe.iter().for_each(|channel| self.shared.sequencer.forget(channel));
        }
        if !batch.subscribe.is_empty() {
            batch.subscribe.iter().for_each(|channel| self.shared.sequencer.follow(channel));
            if self.ask(connection, Way::In, names(&batch.subscribe)).await? == Outcome::Moved {
                let wishes = self.shared.wishes(partition);
                batch.subscribe.iter().for_each(|channel| wishes.lost(&self.servant, channel));
                return Ok(Outcome::Moved);
            }
        }
        Ok(Outcome::Confirmed)
    }

    /// Subscribes or unsubscribes, and waits until all of it is confirmed.
    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        way: Way,
        names: HashSet<String>,
    ) -> Result<Outcome, End> {
        let (subscribe, unsubscribe) = self.shared.store.keys.subscribe();
        let mut command = redis::cmd(if way == Way::In { subscribe } else { unsubscribe });
        names.iter().for_each(|name| {
            command.arg(name);
        });
        self.awaited.expect(way, names);
        let asked = async {
            command.query_async::<Value>(connection).await?;
            self.awaited.all().await;
            Ok(Outcome::Confirmed)
        };
        match timeout(self.shared.timeout, asked).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) if is_moved(&error) => Ok(Outcome::Moved),
            Ok(Err(error)) => {
                tracing::debug!(shard = self.shard, %error, "Redis does not confirm a subscription");
                Err(End::Unconfirmed)
            }
            Err(_) => Err(End::Unconfirmed),
        }
    }

    /// Speaks to itself until it hears nothing any more.
    async fn prove(&self) -> Result<Infallible, End> {
        let begun = Instant::now();
        let mut ticks = interval(HEARTBEAT);
        let mut number = 0;
        loop {
            ticks.tick().await;
            if self.shared.health.shard_proof_age(self.shard).min(begun.elapsed()) > SILENCE {
                return Err(End::Silent);
            }
            let Some(Proof { partition, name }) = self.proof.lock().clone() else { continue };
            number += 1;
            let heartbeat: Bytes = Envelope::Heartbeat(Heartbeat { node: self.shared.node.clone(), number }).encode();
            // What does not get through is not heard either.
            let _ = self.shared.store.send(partition, &name, &heartbeat).await;
        }
    }

    async fn compare_routinely(&self) -> Result<Infallible, End> {
        loop {
            sleep(COMPARISON.mul_f64(0.75 + random_share() / 2.0)).await;
            // Whether Redis answers at all is for the heartbeats to find out.
            self.compare(Comparison::Routine, |at| self.serves.lock().contains(&at)).await;
        }
    }

    /// What was published in some partitions may not have arrived.
    fn interrupted(&self, concerned: impl Fn(Partition) -> bool) {
        self.shared.sequencer.interrupted(|channel| concerned(self.shared.store.keys.partition(channel)));
    }

    /// Compares the positions of the channels in some partitions with the ends of their streams. False if not all could be read.
    async fn compare(&self, how: Comparison, concerned: impl Fn(Partition) -> bool) -> bool {
        let all = self.shared.sequencer.positions().into_iter();
        let (channels, positions): (Vec<_>, Vec<_>) =
            all.filter(|(channel, _)| concerned(self.shared.store.keys.partition(channel))).unzip();
        let tops = self.shared.store.tops(&channels).await;
        let mut complete = true;
        for ((channel, position), top) in channels.iter().zip(&positions).zip(tops) {
            match top {
                Ok(top) => self.shared.sequencer.compare(channel, position, top, how),
                Err(_) => complete = false,
            }
        }
        complete
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let serves = std::mem::take(&mut *self.serves.lock());
        // Whoever wants a channel from here on waits until it arrives again.
        serves.iter().for_each(|partition| self.shared.wishes(*partition).release(&self.servant));
        self.interrupted(|at| serves.contains(&at));
    }
}

/// Whether another server, or soon this one, does what was asked.
fn is_moved(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    matches!(error.kind(), ErrorKind::Server(Ask | ClusterDown | Moved | TryAgain))
}
