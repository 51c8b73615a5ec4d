//! Many nodes as one, over a Redis server.
//!
//! The path of a publication: [`RedisBroker`] → `store` (one function on the server: stamp, history, PUBLISH) → Redis →
//! `subscriber` of every node that wants the channel → [`Sequencer`] (gaps) → dispatch.
//!
//! - `commands`: the shared connection for commands; `functions`: what runs inside of Redis
//! - `wishes`: which channels are wanted and confirmed; [`Health`]: whether anything arrives
//! - [`RedisPresence`]: who is where; a node answers for its own clients (`registry`) as long as it gives signs of life (`lease`)

mod broker;
mod commands;
mod config;
mod functions;
mod health;
mod keys;
mod presence;
mod store;
mod subscriber;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{Dispatcher, Sequencer};
use redis::{Client, IntoConnectionInfo, ProtocolVersion, RedisResult};
use tokio::task::JoinHandle;

pub use broker::RedisBroker;
pub use config::Config;
pub use health::Health;
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

/// What a configuration cannot be turned into.
pub type Error = redis::RedisError;

/// Makes the parts of the node that owns `dispatcher`, and begins to connect. Whether Redis answers is seen later: the node
/// starts without it, too.
///
/// # Errors
///
/// If the address makes no sense.
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
    let client = client(config.urls.first().map_or("", |url| url))?;
    let node = keys::random_word();
    let store = Arc::new(store::Store {
        commands: commands::Commands::new(client.clone(), config.timeout),
        keys: keys::Keys::new(&config.prefix),
    });
    let wishes = Arc::new(wishes::Wishes::default());
    let health = Health::new();
    let reader = Arc::clone(&store);
    let sequencer = Sequencer::new(
        Arc::clone(&dispatcher),
        Box::new(move |channel, query| {
            let store = Arc::clone(&reader);
            Box::pin(async move { store.history(&channel, &query).await })
        }),
    );
    let subscriber = subscriber::Subscriber {
        client,
        store: Arc::clone(&store),
        wishes: Arc::clone(&wishes),
        dispatcher,
        sequencer: Arc::clone(&sequencer),
        health: health.clone(),
        node: node.clone(),
        timeout: config.timeout,
    };
    let presence = RedisPresence::start(Arc::clone(&store), node, config.timeout, renewal);
    let tasks = Tasks(vec![tokio::spawn(subscriber.run()), tokio::spawn(health.clone().report())]);
    Ok(Redis {
        broker: RedisBroker {
            store,
            wishes,
            sequencer,
            health: health.clone(),
            timeout: config.timeout,
            _tasks: tasks,
        },
        presence,
        health,
    })
}

fn client(url: &str) -> RedisResult<Client> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

/// Tasks that end with their owner.
#[derive(Debug)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
