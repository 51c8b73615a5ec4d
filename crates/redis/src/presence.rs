//! [`Presence`] over Redis: a hash of members and a hash of users for each channel, written by functions.
//!
//! - `registry`: what this node answers for in a partition, and how Redis comes to say the same
//! - `lease`: signs of life, given to each server or cluster, and what becomes of the clients of a node that gives none
//! - `calls`: what is asked of Redis (`functions.lua`)

mod calls;
mod lease;
mod registry;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Presence;
use fanwire_node::broker::Error;
use fanwire_node::presence::{Change, Per, PresenceStats};
use fanwire_wire::cluster::Member;
use fanwire_wire::{Channel, ClientInfo};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::Tasks;
use crate::answers::{items, number};
use crate::partitions::Partition;
use crate::store::{Store, unexpected};
use lease::Lease;
use registry::Registry;

pub(crate) use lease::RENEWAL;

/// Knows who is in a channel of the cluster. A node answers for its members as long as it gives signs of life.
pub struct RedisPresence {
    store: Arc<Store>,
    /// Those of each partition.
    registries: Vec<Arc<Registry>>,
    _tasks: Tasks,
}

impl RedisPresence {
    pub(crate) fn start(store: Arc<Store>, node: &str, timeout: Duration, renewal: Duration) -> Self {
        let registry = |at| Arc::new(Registry::new(Arc::clone(&store), at, node.to_owned(), timeout));
        let registries: Vec<_> = store.keys.partitions.all().map(registry).collect();
        let keepers = registries.iter().map(|registry| tokio::spawn(Arc::clone(registry).keep_settled(renewal)));
        let mut tasks: Vec<_> = keepers.collect();
        // Servers fail each by itself; a cluster is one.
        let together = if store.keys.partitions.is_cluster() { registries.len() } else { 1 };
        for registries in registries.chunks(together) {
            let (lease, sweeper) = Lease::new(Arc::clone(&store), node, registries, renewal);
            tasks.extend([tokio::spawn(lease.run()), tokio::spawn(sweeper.run())]);
        }
        Self { store, registries, _tasks: Tasks(tasks) }
    }

    fn registry(&self, channel: &Channel) -> &Registry {
        &self.registries[self.partition(channel).index()]
    }

    fn partition(&self, channel: &Channel) -> Partition {
        self.store.keys.partition(channel)
    }
}

impl Presence for RedisPresence {
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<Change, Error>> {
        let channel = channel.clone();
        async move { self.registry(&channel).add(&channel, &info).await }.boxed()
    }

    fn announce(&self, channel: &Channel, info: Arc<ClientInfo>, per: Per) -> BoxFuture<'_, Result<Change, Error>> {
        let channel = channel.clone();
        async move { self.registry(&channel).announce(&channel, &info, per).await }.boxed()
    }

    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<Change, Error>> {
        let (channel, client) = (channel.clone(), client.to_owned());
        async move { self.registry(&channel).remove(&channel, &client).await }.boxed()
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>> {
        let (at, key) = (self.partition(channel), self.store.keys.members(channel));
        async move {
            // Whoever is found twice is there once.
            let mut members = HashMap::new();
            self.store
                .scan(at, &key, |client, member| {
                    if let Ok(member) = Member::decode(member) {
                        members.insert(client, Arc::new(member.info));
                    }
                })
                .await?;
            Ok(members.into_values().collect())
        }
        .boxed()
    }

    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>> {
        let (members, users) = (self.store.keys.members(channel), self.store.keys.users(channel));
        let at = self.partition(channel);
        async move {
            let lengths = [members, users].map(|key| {
                let mut length = redis::cmd("HLEN");
                length.arg(key);
                (at, length)
            });
            let mut lengths = self.store.commands.batch(&lengths).await.into_iter();
            let mut next = || lengths.next().ok_or_else(unexpected)?.and_then(count);
            Ok(PresenceStats { clients: next()?, users: next()? })
        }
        .boxed()
    }

    fn connections(&self, channel: &Channel, users: &[String]) -> BoxFuture<'_, Result<Vec<usize>, Error>> {
        let mut counts = redis::cmd("HMGET");
        counts.arg(self.store.keys.users(channel)).arg(users);
        let at = self.partition(channel);
        let asked = users.len();
        async move {
            if asked == 0 {
                return Ok(Vec::new());
            }
            let counts = items(self.store.commands.command(at, &counts).await?);
            counts
                .into_iter()
                .map(|count| if count == redis::Value::Nil { Ok(0) } else { self::count(count) })
                .collect()
        }
        .boxed()
    }
}

fn count(value: redis::Value) -> Result<usize, Error> {
    number(value).ok_or_else(unexpected)
}

impl fmt::Debug for RedisPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPresence").finish_non_exhaustive()
    }
}
