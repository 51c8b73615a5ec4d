//! What other clients see of a client changes in turns, however slow the presence is and whoever loses patience.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::broker::Error;
use fanwire_node::presence::{Change, Per, PresenceStats};
use fanwire_node::protocol::Opening;
use fanwire_node::{
    Dispatcher, MemoryBroker, MemoryPresence, Namespace, Node, Parts, Presence, SubscribeRequest, Worker,
};
use fanwire_testkit::harness::open_config;
use fanwire_testkit::{FakeClient, Probe, TokenBook};
use fanwire_wire::{Channel, ClientInfo, Disconnect};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::sleep;

/// A presence in which everything takes its time before it is done.
struct Slow {
    inner: Arc<MemoryPresence>,
    add: Duration,
    remove: Duration,
}

impl Presence for Slow {
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<Change, Error>> {
        let channel = channel.clone();
        async move {
            sleep(self.add).await;
            self.inner.add(&channel, info).await
        }
        .boxed()
    }

    fn announce(&self, channel: &Channel, info: Arc<ClientInfo>, per: Per) -> BoxFuture<'_, Result<Change, Error>> {
        self.inner.announce(channel, info, per)
    }

    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<Change, Error>> {
        let (channel, client) = (channel.clone(), client.to_owned());
        async move {
            sleep(self.remove).await;
            self.inner.remove(&channel, &client).await
        }
        .boxed()
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>> {
        self.inner.members(channel)
    }

    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>> {
        self.inner.stats(channel)
    }

    fn connections(&self, channel: &Channel, users: &[String]) -> BoxFuture<'_, Result<Vec<usize>, Error>> {
        self.inner.connections(channel, users)
    }
}

#[test]
fn who_comes_back_at_once_is_there() {
    for (add, remove) in [(1, 50), (50, 1), (0, 0)] {
        run(add, remove, async |bench| {
            let client = bench.client().await;
            for _ in 0..3 {
                client.subscribe("chat").await.unwrap();
                client.client.unsubscribe("chat").now_or_never();
            }
            client.subscribe("chat").await.unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(bench.members().await, [client.client.id()], "add {add} ms, remove {remove} ms");
        });
    }
}

#[test]
fn who_leaves_while_it_is_listed_is_not_listed() {
    for remove in [0, 50] {
        run(20, remove, async |bench| {
            let client = bench.client().await;
            let inner = Rc::clone(&client.client);
            let subscribing = tokio::task::spawn_local(async move {
                inner.subscribe(SubscribeRequest { channel: "chat".into(), ..Default::default() }).await
            });
            sleep(Duration::from_millis(10)).await;
            // The request is given up, and the connection with it.
            subscribing.abort();
            client.leave();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(bench.members().await, Vec::<String>::new());
        });
    }
}

#[test]
fn an_unsubscribe_that_is_given_up_takes_effect() {
    run(0, 20, async |bench| {
        let client = bench.client().await;
        client.subscribe("chat").await.unwrap();
        client.client.unsubscribe("chat").now_or_never();
        client.leave();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(bench.members().await, Vec::<String>::new());
    });
}

#[test]
fn joins_and_leaves_alternate() {
    run(3, 20, async |bench| {
        let observer = bench.client().await;
        observer.subscribe("chat").await.unwrap();
        let client = bench.client().await;
        for _ in 0..5 {
            client.subscribe("chat").await.unwrap();
            client.client.unsubscribe("chat").now_or_never();
        }
        client.subscribe("chat").await.unwrap();
        client.leave();
        sleep(Duration::from_secs(1)).await;
        let id = client.client.id();
        let of_client = |frame: &Value| ["join", "leave"].into_iter().find(|what| frame[what] == json!(id));
        let seen: Vec<_> = observer.take().iter().filter_map(of_client).collect();
        assert_eq!(seen, ["join", "leave"].repeat(6));
    });
}

#[test]
fn a_node_ends_when_everybody_has_left() {
    run(0, 1000, async |bench| {
        let client = bench.client().await;
        client.subscribe("chat").await.unwrap();
        client.client.close(Disconnect::ForceDisconnect);
        bench.node.shut_down().await;
        assert_eq!(bench.members().await, Vec::<String>::new());
    });
}

struct Bench {
    node: Arc<Node>,
    worker: Rc<Worker>,
}

impl Bench {
    async fn client(&self) -> FakeClient {
        let client = FakeClient::open(&self.worker, &Probe, &Opening::default()).unwrap();
        client.connect("").await;
        client
    }

    async fn members(&self) -> Vec<String> {
        let members = self.node.members(&Channel::new("chat").unwrap()).await.unwrap();
        members.iter().map(|info| info.client.to_string()).collect()
    }
}

/// Runs `test` on a paused clock, with a presence that takes this many milliseconds.
fn run(add: u64, remove: u64, test: impl AsyncFnOnce(&Bench)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let dispatcher = Dispatcher::new(1);
        let (add, remove) = (Duration::from_millis(add), Duration::from_millis(remove));
        let node = Node::new(Parts {
            config: open_config(Namespace { force_join_leave: true, ..Namespace::open("") }),
            dispatcher: Arc::clone(&dispatcher),
            broker: Box::new(MemoryBroker::new(Arc::clone(&dispatcher))),
            presence: Box::new(Slow { inner: Arc::new(MemoryPresence::new(dispatcher)), add, remove }),
            authorizer: Box::new(TokenBook),
            hooks: None,
        });
        let worker = Worker::start(&node, 0);
        test(&Bench { node, worker }).await;
    });
}
