//! [`Presence`] over Redis: a hash for each channel, a lease for each node.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Presence;
use fanwire_node::broker::Error;
use fanwire_node::presence::PresenceStats;
use fanwire_wire::cluster::Member;
use fanwire_wire::{Channel, ClientInfo};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::Value;
use tokio::time::{Instant, interval};

use crate::Tasks;
use crate::commands::{bytes, items, text};
use crate::store::Store;

/// Knows who is in a channel of the cluster. A node answers for its members as long as its lease lasts.
pub struct RedisPresence {
    pub(crate) registry: Arc<Registry>,
    pub(crate) _tasks: Tasks,
}

/// What this node has told Redis, or still has to.
pub(crate) struct Registry {
    store: Arc<Store>,
    node: String,
    mine: Mutex<HashMap<Channel, Members>>,
    /// Members that may stand in Redis although they left.
    stale: Mutex<HashSet<(Channel, Arc<str>)>>,
}

/// A channel's clients by id.
type Members = HashMap<Arc<str>, Arc<ClientInfo>>;

/// How long a node's members outlive it, and how often it renews its lease.
const LEASE: Duration = Duration::from_secs(12);
const RENEWAL: Duration = Duration::from_secs(4);

/// A hash nobody writes to is forgotten after the first; every node writes its members anew in the time of the second.
const HASH_TTL: Duration = Duration::from_secs(24 * 3600);
const REWRITE: Duration = Duration::from_secs(8 * 3600);

/// The members written in one round trip.
const BATCH: usize = 512;

impl Registry {
    pub(crate) fn new(store: Arc<Store>, node: String) -> Self {
        Self { store, node, mine: Mutex::default(), stale: Mutex::default() }
    }

    /// Renews the lease for ever, and repairs what could not be told in time.
    pub(crate) async fn renew(self: Arc<Self>) {
        let mut ticks = interval(RENEWAL);
        let mut rewritten = Instant::now();
        loop {
            ticks.tick().await;
            let Ok(lapsed) = self.renew_lease().await else { continue };
            // While the lease was gone, anybody may have cleaned up behind this node.
            let due = lapsed || rewritten.elapsed() > REWRITE;
            if due && self.rewrite().await.is_ok() {
                rewritten = Instant::now();
            } else if due {
                // Found lapsed again next time.
                let _ = self.store.commands.command(redis::cmd("DEL").arg(self.store.keys.lease(&self.node))).await;
            }
            let stale = std::mem::take(&mut *self.stale.lock());
            for (channel, client) in stale {
                if !self.has(&channel, &client) && self.erase(&channel, &client).await.is_err() {
                    self.stale.lock().insert((channel, client));
                }
            }
        }
    }

    /// True if there was no lease.
    async fn renew_lease(&self) -> Result<bool, Error> {
        let mut command = redis::cmd("SET");
        command.arg(self.store.keys.lease(&self.node)).arg(1).arg("PX").arg(LEASE.as_millis() as u64).arg("GET");
        Ok(self.store.commands.command(&command).await? == Value::Nil)
    }

    async fn rewrite(&self) -> Result<(), Error> {
        let all: Vec<_> = {
            let mine = self.mine.lock();
            let members = |(channel, members): (&Channel, &Members)| {
                members.values().map(|info| (channel.clone(), Arc::clone(info))).collect::<Vec<_>>()
            };
            mine.iter().flat_map(members).collect()
        };
        for batch in all.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            for (channel, info) in batch {
                self.write(&mut pipeline, channel, info);
            }
            self.store.commands.pipeline(&pipeline).await?;
            let left = batch.iter().filter(|(channel, info)| !self.has(channel, &info.client));
            self.stale.lock().extend(left.map(|(channel, info)| (channel.clone(), Arc::clone(&info.client))));
        }
        Ok(())
    }

    fn write(&self, pipeline: &mut redis::Pipeline, channel: &Channel, info: &ClientInfo) {
        let key = self.store.keys.presence(channel);
        let member = Member { node: self.node.clone(), info: info.clone() }.encode();
        pipeline.cmd("HSET").arg(&key).arg(&*info.client).arg(&*member).ignore();
        pipeline.cmd("PEXPIRE").arg(&key).arg(HASH_TTL.as_millis() as u64).ignore();
    }

    async fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> Result<(), Error> {
        let client = Arc::clone(&info.client);
        self.mine.lock().entry(channel.clone()).or_default().insert(Arc::clone(&client), Arc::clone(&info));
        let mut pipeline = redis::pipe();
        // A member without a lease would be taken for a dead node's.
        let lease = self.store.keys.lease(&self.node);
        pipeline.cmd("SET").arg(lease).arg(1).arg("NX").arg("PX").arg(LEASE.as_millis() as u64).ignore();
        self.write(&mut pipeline, channel, &info);
        let added = self.store.commands.pipeline(&pipeline).await;
        if added.is_err() {
            self.forget(channel, &client);
            self.stale.lock().insert((channel.clone(), client));
        }
        added.map(|_| ())
    }

    async fn remove(&self, channel: &Channel, client: &str) -> Result<(), Error> {
        self.forget(channel, client);
        let removed = self.erase(channel, client).await;
        if removed.is_err() {
            self.stale.lock().insert((channel.clone(), client.into()));
        }
        removed
    }

    async fn erase(&self, channel: &Channel, client: &str) -> Result<(), Error> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.store.keys.presence(channel)).arg(client);
        self.store.commands.command(&command).await.map(|_| ())
    }

    fn has(&self, channel: &Channel, client: &str) -> bool {
        self.mine.lock().get(channel).is_some_and(|members| members.contains_key(client))
    }

    fn forget(&self, channel: &Channel, client: &str) {
        let mut mine = self.mine.lock();
        if let Some(members) = mine.get_mut(channel) {
            members.remove(client);
            if members.is_empty() {
                mine.remove(channel);
            }
        }
    }

    /// Reads the members of living nodes, and cleans up behind dead ones.
    async fn members(&self, channel: &Channel) -> Result<Vec<Arc<ClientInfo>>, Error> {
        let key = self.store.keys.presence(channel);
        let answer = self.store.commands.command(redis::cmd("HGETALL").arg(&key)).await?;
        let mut answer = items(answer).into_iter();
        let mut members = Vec::new();
        while let (Some(client), Some(member)) = (answer.next(), answer.next()) {
            if let (Some(client), Some(Ok(member))) = (text(client), bytes(member).map(Member::decode)) {
                members.push((client, member));
            }
        }
        let nodes: HashSet<_> = members.iter().map(|(_, member)| member.node.clone()).collect();
        let dead = self.dead(nodes.into_iter().collect()).await?;
        let (gone, living): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, member)| dead.contains(&member.node));
        if !gone.is_empty() {
            let mut clean = redis::cmd("HDEL");
            clean.arg(&key);
            gone.iter().for_each(|(client, _)| {
                clean.arg(client);
            });
            self.store.commands.command(&clean).await?;
        }
        Ok(living.into_iter().map(|(_, member)| Arc::new(member.info)).collect())
    }

    async fn dead(&self, nodes: Vec<String>) -> Result<HashSet<String>, Error> {
        if nodes.is_empty() {
            return Ok(HashSet::new());
        }
        let mut leases = redis::cmd("MGET");
        nodes.iter().for_each(|node| {
            leases.arg(self.store.keys.lease(node));
        });
        let leases = items(self.store.commands.command(&leases).await?);
        let dead = nodes.into_iter().zip(leases).filter(|(node, lease)| *lease == Value::Nil && *node != self.node);
        Ok(dead.map(|(node, _)| node).collect())
    }
}

impl Presence for RedisPresence {
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<(), Error>> {
        let channel = channel.clone();
        async move { self.registry.add(&channel, info).await }.boxed()
    }

    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<(), Error>> {
        let (channel, client) = (channel.clone(), client.to_owned());
        async move { self.registry.remove(&channel, &client).await }.boxed()
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>> {
        let channel = channel.clone();
        async move { self.registry.members(&channel).await }.boxed()
    }

    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>> {
        let channel = channel.clone();
        async move {
            let members = self.registry.members(&channel).await?;
            let users = members.iter().map(|info| &info.user).collect::<HashSet<_>>().len();
            Ok(PresenceStats { clients: members.len(), users })
        }
        .boxed()
    }
}

impl fmt::Debug for RedisPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPresence").field("node", &self.registry.node).finish_non_exhaustive()
    }
}
