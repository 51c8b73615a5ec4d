//! [`Presence`] over Redis: a hash of members and a hash of users for each channel, written by functions.
//!
//! - `registry`: what this node answers for, and how Redis comes to say the same
//! - `lease`: signs of life, and what becomes of the clients of a node that gives none
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
use crate::commands::{items, text};
use crate::store::{Store, unexpected};
use lease::Lease;
use registry::Registry;

pub(crate) use lease::RENEWAL;

/// Knows who is in a channel of the cluster. A node answers for its members as long as it gives signs of life.
pub struct RedisPresence {
    registry: Arc<Registry>,
    _tasks: Tasks,
}

impl RedisPresence {
    pub(crate) fn start(store: Arc<Store>, node: String, timeout: Duration, renewal: Duration) -> Self {
        let registry = Arc::new(Registry::new(store, node, timeout));
        let (lease, sweeper) = Lease::new(Arc::clone(&registry), renewal);
        let keeper = Arc::clone(&registry).keep_settled(renewal);
        let tasks = Tasks(vec![tokio::spawn(lease.run()), tokio::spawn(sweeper.run()), tokio::spawn(keeper)]);
        Self { registry, _tasks: tasks }
    }

    fn store(&self) -> &Store {
        &self.registry.store
    }
}

impl Presence for RedisPresence {
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<Change, Error>> {
        let channel = channel.clone();
        async move { self.registry.add(&channel, &info).await }.boxed()
    }

    fn announce(&self, channel: &Channel, info: Arc<ClientInfo>, per: Per) -> BoxFuture<'_, Result<Change, Error>> {
        let channel = channel.clone();
        async move { self.registry.announce(&channel, &info, per).await }.boxed()
    }

    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<Change, Error>> {
        let (channel, client) = (channel.clone(), client.to_owned());
        async move { self.registry.remove(&channel, &client).await }.boxed()
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>> {
        let key = self.store().keys.members(channel);
        async move {
            // Whoever is found twice is there once.
            let mut members = HashMap::new();
            self.store()
                .scan(&key, |client, member| {
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
        let (members, users) = (self.store().keys.members(channel), self.store().keys.users(channel));
        async move {
            let mut lengths = redis::pipe();
            lengths.cmd("HLEN").arg(members).cmd("HLEN").arg(users);
            let [clients, users] =
                <[_; 2]>::try_from(self.store().commands.pipeline(&lengths).await?).map_err(|_| unexpected())?;
            Ok(PresenceStats { clients: number(clients)?, users: number(users)? })
        }
        .boxed()
    }

    fn connections(&self, channel: &Channel, users: &[String]) -> BoxFuture<'_, Result<Vec<usize>, Error>> {
        let mut counts = redis::cmd("HMGET");
        counts.arg(self.store().keys.users(channel)).arg(users);
        let asked = users.len();
        async move {
            if asked == 0 {
                return Ok(Vec::new());
            }
            let counts = items(self.store().commands.command(&counts).await?);
            counts.into_iter().map(|count| if count == redis::Value::Nil { Ok(0) } else { number(count) }).collect()
        }
        .boxed()
    }
}

fn number(value: redis::Value) -> Result<usize, Error> {
    text(value).and_then(|text| text.parse().ok()).ok_or_else(unexpected)
}

impl fmt::Debug for RedisPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPresence").finish_non_exhaustive()
    }
}
