//! Many nodes as one, over a Redis server.
//!
//! The path of a publication: [`RedisBroker`] → `store` (one function on the server: stamp, history, PUBLISH) → Redis →
//! `subscriber` of every node that wants the channel → [`Sequencer`] (gaps) → dispatch.
//!
//! - `url`, `partitions`, `topology`: where Redis is, and which server serves which channels
//! - `commands`, `link`: to each server a shared connection for commands; `functions`: what runs inside of Redis
//! - `reception`, `subscriber`, `session`: from each server what the node wants; `wishes`: which channels those are, and which are
//!   confirmed; [`Health`]: whether anything arrives
//! - [`RedisPresence`]: who is where

mod answers;
mod awaited;
mod broker;
mod commands;
mod config;
mod dial;
mod functions;
mod health;
mod keys;
mod link;
mod partitions;
mod presence;
mod reception;
mod revocations;
mod session;
mod store;
mod subscriber;
mod topology;
mod url;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{Dispatcher, Sequencer};
use tokio::task::JoinHandle;

pub use broker::RedisBroker;
pub use config::Config;
pub use health::{Health, Shard};
pub use presence::RedisPresence;

/// A node's parts that live on Redis.
#[derive(Debug)]
pub struct Redis {
    /// Carries publications.
    pub broker: RedisBroker,
    /// Knows who is where.
    pub presence: RedisPresence,
    /// Whether publications arrive.
    pub health: Health,
}

/// A configuration that makes no sense, or names files that cannot be read: everything that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Error(Vec<String>);

/// Makes the parts of the node that owns `dispatcher`, and begins to connect. Whether Redis answers is seen later: the node
/// starts without it, too.
///
/// # Errors
///
/// If the configuration makes no sense.
pub fn start(config: &Config, dispatcher: Arc<Dispatcher>) -> Result<Redis, Error> {
    start_with_renewal(config, dispatcher, presence::RENEWAL)
}

/// The same with another time between two signs of life, for tests: a node that gives none for five of them is taken for
/// dead.
///
/// # Errors
///
/// As there.
pub fn start_with_renewal(config: &Config, dispatcher: Arc<Dispatcher>, renewal: Duration) -> Result<Redis, Error> {
    let settings = config.read().map_err(Error)?;
    // For the TLS of the redis crate. Fails if there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let topology = Arc::new(topology::Topology::new(settings, config.timeout));
    let node = dispatcher.node().to_owned();
    let store = Arc::new(store::Store {
        commands: commands::Commands::new(Arc::clone(&topology), config.timeout),
        keys: keys::Keys::new(&config.prefix, topology.partitions.clone()),
    });
    let health = Health::new();
    let reader = Arc::clone(&store);
    let sequencer = Sequencer::new(
        Arc::clone(&dispatcher),
        Box::new(move |channel, query| {
            let store = Arc::clone(&reader);
            Box::pin(async move { store.history(&channel, &query).await })
        }),
    );
    let presence = RedisPresence::start(Arc::clone(&store), &node, config.timeout, renewal);
    let reception = Arc::new(reception::Reception {
        wishes: topology.partitions.all().map(|_| wishes::Wishes::default()).collect(),
        topology: Arc::clone(&topology),
        store: Arc::clone(&store),
        dispatcher,
        sequencer,
        health: health.clone(),
        node,
        timeout: config.timeout,
    });
    let mut tasks: Vec<_> = (0..topology.sites()).map(|site| tokio::spawn(Arc::clone(&topology).watch(site))).collect();
    tasks.push(tokio::spawn(Arc::clone(&reception).run()));
    tasks.push(tokio::spawn(health.clone().report()));
    Ok(Redis { broker: RedisBroker { store, reception, _tasks: Tasks(tasks) }, presence, health })
}

/// Tasks that end with their owner.
#[derive(Debug)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
