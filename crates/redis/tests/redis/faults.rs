//! What a broken Redis does to subscribers: nothing they notice, or exactly what they have to know.

use std::time::Duration;

use fanwire_node::broker::Order;
use fanwire_node::{Config, Dispatcher, HistoryRequest, Namespace, Publish};
use fanwire_redis::Health;
use fanwire_testkit::harness::open_config;
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, Payload, Position, Refusal};
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::server::Server;

/// A node compares the positions of its channels this often, in seconds.
const COMPARISON: u64 = 3;

/// One node on a server.
struct Bench {
    harness: Harness,
    health: Health,
}

impl Bench {
    async fn start(server: &Server) -> Self {
        let dispatcher = Dispatcher::new(1);
        let redis = fanwire_redis::start(&server.config("fanwire"), dispatcher.clone()).expect("a good address");
        let harness = Harness::with_dispatcher(config(), dispatcher, Box::new(redis.broker));
        let bench = Self { harness, health: redis.health };
        bench.until_up().await;
        bench
    }

    async fn until_up(&self) {
        within(async {
            while !self.health.is_up() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn until_down(&self) {
        within(async {
            while self.health.is_up() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn subscriber(&self, channel: &str) -> FakeClient {
        let client = self.harness.probe("").await;
        client.subscribe(channel).await.expect("anyone may subscribe");
        client
    }

    async fn publish(&self, channel: &str, data: i32) -> Result<Position, Refusal> {
        let publish = Publish::new(self::channel(channel), Payload::json(data.to_string().into()));
        self.harness.node.publish(publish).await.map(|published| published.position.unwrap_or_default())
    }

    /// Publishes, again if it must be, until it is done.
    async fn publish_surely(&self, channel: &str, data: i32) -> Position {
        let key = format!("{channel}{data}");
        within(async {
            loop {
                let publish = Publish {
                    idempotency_key: Some(key.as_str().into()),
                    ..Publish::new(self::channel(channel), Payload::json(data.to_string().into()))
                };
                match self.harness.node.publish(publish).await {
                    Ok(published) => return published.position.unwrap_or_default(),
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await
    }

    async fn history(&self, channel: &str) -> fanwire_node::broker::History {
        let request = HistoryRequest { limit: -1, since: None, order: Order::Forward };
        self.harness.node.history(&self::channel(channel), request).await.expect("read")
    }
}

#[tokio::test]
async fn connections_cut_under_load_cost_one_read_and_nothing_else() {
    let server = Server::start().await;
    run(async {
        let (publisher, node) = (Bench::start(&server).await, Bench::start(&server).await);
        let mut subscribers = Vec::new();
        for _ in 0..10 {
            subscribers.push(node.subscriber("long:a").await);
        }
        let reads = || async { server.calls("xrange").await };
        for round in 0..3 {
            let (before, begun) = (reads().await, Instant::now());
            for n in 0..200 {
                if n == 100 {
                    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
                }
                publisher.publish("long:a", round * 200 + n).await.expect("commands have a connection of their own");
            }
            for client in &subscribers {
                let seen = frames_until(client, json!(round * 200 + 199)).await;
                let expected: Vec<_> = (round * 200..(round + 1) * 200).map(|n| json!(n)).collect();
                assert_eq!(seen, expected, "round {round}");
            }
            // A routine comparison finds a node behind that a busy machine keeps from what has arrived.
            let most = 1 + begun.elapsed().as_secs() / COMPARISON + 1;
            let reads = reads().await - before;
            assert!(reads <= most, "{reads} reads: one for a channel and node, however many subscribers");
            node.until_up().await;
        }
    })
    .await;
}

#[tokio::test]
async fn silence_after_a_cut_is_filled_too() {
    let server = Server::start().await;
    run(async {
        let (publisher, node) = (Bench::start(&server).await, Bench::start(&server).await);
        let client = node.subscriber("long:a").await;
        publisher.publish("long:a", 1).await.expect("published");
        assert_eq!(frames_until(&client, json!(1)).await, [json!(1)]);
        server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        publisher.publish("long:a", 2).await.expect("published");
        // Nothing follows that could show the gap.
        assert_eq!(frames_until(&client, json!(2)).await, [json!(2)]);
    })
    .await;
}

#[tokio::test]
async fn a_clean_restart_is_told_to_nobody() {
    let mut server = Server::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).await;
    run(async {
        let node = Bench::start(&server).await;
        let client = node.subscriber("long:a").await;
        let before = node.publish("long:a", 1).await.expect("published");
        server.stop().await;
        node.until_down().await;
        // Unknown, if it is the first to find out that its connection has ended.
        let refused = node.publish("long:a", 0).await;
        assert!(matches!(refused, Err(Refusal::Unavailable | Refusal::OutcomeUnknown)), "{refused:?}");
        server.run().await;
        let after = node.publish_surely("long:a", 2).await;
        assert_eq!(after.epoch, before.epoch);
        assert!(after.offset > before.offset + 1, "another incarnation jumps");
        assert_eq!(frames_until(&client, json!(2)).await, [json!(1), json!(2)]);
    })
    .await;
}

#[tokio::test]
async fn a_lost_memory_is_told() {
    let server = Server::start().await;
    run(async {
        let node = Bench::start(&server).await;
        let client = node.subscriber("long:a").await;
        let before = node.publish("long:a", 1).await.expect("published");
        assert_eq!(frames_until(&client, json!(1)).await, [json!(1)]);
        server.ask(&["FLUSHALL"]).await;
        // Found by comparison alone: nothing is published.
        let told = frame(&client, |frame| frame.get("unsubscribed").is_some()).await;
        assert_eq!(told["code"], 2500, "insufficient state");
        assert_ne!(node.history("long:a").await.top.epoch, before.epoch);
        client.subscribe("long:a").await.expect("again");
        node.publish("long:a", 2).await.expect("published");
        assert_eq!(frames_until(&client, json!(2)).await, [json!(2)]);
    })
    .await;
}

#[tokio::test]
async fn an_older_snapshot_is_told_to_those_who_saw_more() {
    let mut server = Server::start_with(&["--save", "", "--appendonly", "no"]).await;
    run(async {
        let node = Bench::start(&server).await;
        let (more, less) = (node.subscriber("long:more").await, node.subscriber("long:less").await);
        node.publish("long:less", 1).await.expect("published");
        node.publish("long:more", 1).await.expect("published");
        server.ask(&["SAVE"]).await;
        let lost = node.publish("long:more", 2).await.expect("published");
        assert_eq!(frames_until(&more, json!(2)).await, [json!(1), json!(2)]);
        assert_eq!(frames_until(&less, json!(1)).await, [json!(1)]);
        server.kill();
        server.run().await;
        let after = node.publish_surely("long:more", 3).await;
        assert_eq!(after.epoch, lost.epoch, "the snapshot has the same epoch");
        assert!(after.offset > 1 << 40, "an offset of the lost future is never minted again");
        let told = frame(&more, |frame| frame.get("unsubscribed").is_some()).await;
        assert_eq!(told["code"], 2500);
        node.publish_surely("long:less", 2).await;
        assert_eq!(frames_until(&less, json!(2)).await, [json!(2)], "who has seen nothing of it goes on");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_is_found_and_found_again() {
    let server = Server::start().await;
    run(async {
        let node = Bench::start(&server).await;
        let client = node.subscriber("long:a").await;
        server.signal("STOP");
        // Answered while the server hangs.
        assert_eq!(node.publish("long:a", 1).await, Err(Refusal::OutcomeUnknown));
        node.until_down().await;
        server.signal("CONT");
        node.until_up().await;
        node.publish_surely("long:a", 2).await;
        let seen = frames_until(&client, json!(2)).await;
        // The first one was on its way: its outcome was unknown.
        assert!(seen == [json!(2)] || seen == [json!(1), json!(2)], "{seen:?}");
    })
    .await;
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

fn config() -> Config {
    let long = Namespace {
        name: "long".into(),
        history_size: 1000,
        history_ttl: Duration::from_secs(300),
        recovery: true,
        ..Namespace::open("long")
    };
    let mut config = open_config(Namespace::open(""));
    config.namespaces.push(long);
    config
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work).await.expect("in time")
}

/// The data of everything that arrives up to and with `last`.
async fn frames_until(client: &FakeClient, last: Value) -> Vec<Value> {
    let mut seen = Vec::new();
    let all = async {
        while seen.last() != Some(&last) {
            for frame in client.take() {
                assert!(frame.get("unsubscribed").is_none(), "told without need: {frame}");
                seen.extend(frame.get("pub").cloned());
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(20), all).await.is_ok();
    assert!(in_time, "{last} did not come: {seen:?}");
    seen
}

async fn frame(client: &FakeClient, wanted: impl Fn(&Value) -> bool) -> Value {
    within(async {
        loop {
            if let Some(frame) = client.take().into_iter().find(&wanted) {
                return frame;
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}
