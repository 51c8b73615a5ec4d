//! Nodes for tests of presence, and who listens to them.

use std::sync::Arc;
use std::time::Duration;

use fanwire_node::presence::{Per, PresenceStats};
use fanwire_node::{Dispatcher, Namespace, Permission, Presence};
use fanwire_redis::{Config, Health, Redis, RedisPresence};
use fanwire_testkit::harness::open_config;
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, ClientInfo};
use tokio::time::{sleep, timeout};

/// Short, so that the death of a node is soon found; long enough for a busy machine.
pub(crate) const RENEWAL: Duration = Duration::from_millis(200);

/// A node of which only the presence matters. Dropped, it is gone without a word.
pub(crate) struct Member {
    pub(crate) presence: RedisPresence,
    _rest: (fanwire_redis::RedisBroker, Health),
}

impl Member {
    pub(crate) fn start(config: &Config) -> Self {
        let Redis { broker, presence, health } = start(config, Dispatcher::new(1));
        Self { presence, _rest: (broker, health) }
    }

    pub(crate) async fn enter(&self, room: &Channel, info: &Arc<ClientInfo>, per: Per) {
        self.presence.add(room, Arc::clone(info)).await.expect("added");
        self.presence.announce(room, Arc::clone(info), per).await.expect("announced");
    }
}

/// A node with subscribers that hear joins and leaves.
pub(crate) struct Watcher {
    pub(crate) harness: Harness,
    health: Health,
}

impl Watcher {
    pub(crate) async fn start(config: &Config) -> Self {
        let dispatcher = Dispatcher::new(1);
        let Redis { broker, presence, health } = start(config, Arc::clone(&dispatcher));
        let quiet = Namespace { subscribe: Permission::Anyone, join_leave: true, ..Namespace::default() };
        let harness = Harness::with_presence(open_config(quiet), dispatcher, Box::new(broker), Box::new(presence));
        let watcher = Self { harness, health };
        watcher.until_up().await;
        watcher
    }

    /// Waits until everything it is subscribed to arrives (again).
    pub(crate) async fn until_up(&self) {
        within("Redis carries", async {
            while !self.health.is_up() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub(crate) async fn observer(&self, room: &Channel) -> Observer {
        let client = self.harness.probe("").await;
        client.subscribe(room.as_str()).await.expect("anyone may subscribe");
        let mut observer = Observer { own: client.client.id(), client, heard: Vec::new() };
        let own = event("join", &observer.own);
        within("the own join", async {
            while observer.heard.last() != Some(&own) {
                observer.listen().await;
            }
        })
        .await;
        observer.heard.clear();
        observer
    }
}

/// A subscriber, and what it has heard: `+client` and `-client`.
pub(crate) struct Observer {
    client: FakeClient,
    own: String,
    pub(crate) heard: Vec<String>,
}

impl Observer {
    pub(crate) async fn listen(&mut self) {
        sleep(Duration::from_millis(2)).await;
        let frames = self.client.take();
        self.heard.extend(frames.iter().filter_map(|frame| {
            let name = |what: &str| frame[what].as_str().map(|client| event(what, client));
            name("join").or_else(|| name("leave"))
        }));
    }

    /// Waits until it has heard this, in any order, and nothing else.
    pub(crate) async fn hears(&mut self, expected: &[&str]) {
        let mut expected: Vec<_> = expected.iter().map(|&event| event.to_owned()).collect();
        expected.sort();
        within(&format!("{expected:?}"), async {
            while self.heard.len() < expected.len() {
                self.listen().await;
            }
        })
        .await;
        self.rest().await;
        self.heard.sort();
        assert_eq!(self.heard, expected);
        self.heard.clear();
    }

    /// Listens long enough for what should not come.
    pub(crate) async fn rest(&mut self) {
        for _ in 0..25 {
            self.listen().await;
        }
    }
}

fn start(config: &Config, dispatcher: Arc<Dispatcher>) -> Redis {
    fanwire_redis::start_with_renewal(config, dispatcher, RENEWAL).expect("a good address")
}

pub(crate) async fn until_counted(presence: &RedisPresence, room: &Channel, expected: PresenceStats) {
    within(&format!("{expected:?}"), async {
        while presence.stats(room).await != Ok(expected) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(crate) async fn clients(presence: &RedisPresence, room: &Channel) -> Vec<String> {
    let members = presence.members(room).await.unwrap_or_default();
    let mut clients: Vec<_> = members.iter().map(|info| info.client.to_string()).collect();
    clients.sort();
    clients
}

fn event(what: &str, client: &str) -> String {
    format!("{}{client}", if what == "join" { '+' } else { '-' })
}

pub(crate) fn info(user: &str, client: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { user: user.into(), client: client.into(), ..ClientInfo::default() })
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = timeout(Duration::from_secs(20), work).await;
    done.unwrap_or_else(|_| panic!("not in time: {what}"))
}
