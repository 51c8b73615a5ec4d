//! What a node says while Redis is away, and how it goes on.

use std::rc::Rc;
use std::time::Duration;

use fanwire_node::broker::Order;
use fanwire_node::{Config, Dispatcher, Failure, HistoryRequest, Namespace, Publish, SubscribeRequest};
use fanwire_redis::Health;
use fanwire_testkit::harness::open_config;
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, Payload, Position, Refusal};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::server::Server;

#[tokio::test]
async fn what_is_unknown_is_settled_by_its_key() {
    let server = Server::start().await;
    LocalSet::new()
        .run_until(async {
            let node = Bench::start(&server).await;
            let client = node.client().await;
            subscribe(&client, "long:a").await.expect("anyone may subscribe");
            server.signal("STOP");
            // On its way to a server that does not answer, then to one that cannot be connected to: both answered in time.
            assert_eq!(within_two_seconds(node.publish("long:a", 1)).await, Err(Refusal::OutcomeUnknown));
            assert_eq!(within_two_seconds(node.publish("long:a", 2)).await, Err(Refusal::Unavailable));
            let reads = HistoryRequest { limit: -1, since: None, order: Order::Forward };
            let history = within_two_seconds(node.harness.node.history(&channel("long:a"), reads)).await;
            assert_eq!(history.map(|history| history.publications.len()), Err(Refusal::Unavailable));
            server.signal("CONT");
            for n in [1, 2, 3] {
                node.publish_surely("long:a", n).await;
            }
            let mut seen = Vec::new();
            until(async || {
                seen.extend(client.take_publications());
                seen.last() == Some(&json!(3))
            })
            .await;
            assert_eq!(seen, [1, 2, 3], "each once");
        })
        .await;
}

#[tokio::test]
async fn without_redis_nobody_is_turned_away_for_good() {
    let mut server = Server::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).await;
    LocalSet::new()
        .run_until(async {
            let node = Bench::start(&server).await;
            let early = node.client().await;
            for name in ["plain", "long:a"] {
                subscribe(&early, name).await.expect("anyone may subscribe");
            }
            let before = node.publish("long:a", 1).await.expect("published");
            server.stop().await;
            until(async || !node.health.is_up()).await;
            let late = node.client().await;
            for name in ["plain", "long:a", "long:b"] {
                for _ in 0..2 {
                    let refused = within_two_seconds(subscribe(&late, name)).await;
                    assert_eq!(refused, Err(Failure::Refusal(Refusal::Unavailable)), "{name}");
                }
            }
            assert!(Refusal::Unavailable.temporary());
            assert_eq!(node.harness.node.counts().await.subscriptions, 2, "who was there stays");
            server.run().await;
            for name in ["plain", "long:b"] {
                until(async || subscribe(&late, name).await.is_ok()).await;
            }
            let since = Some(Position { offset: 0, ..before });
            let mut recovered = None;
            until(async || {
                recovered = resume(&late, "long:a", since.clone()).await.ok();
                recovered.is_some()
            })
            .await;
            let recovery = recovered.and_then(|subscribed| subscribed.recovery);
            assert!(matches!(recovery, Some(fanwire_node::Recovery::Complete(missed)) if missed.len() == 1));
            for name in ["plain", "long:a", "long:b"] {
                node.publish_surely(name, 2).await;
            }
            let (mut of_early, mut of_late) = (Vec::new(), Vec::new());
            until(async || {
                of_early.extend(early.take_publications());
                of_late.extend(late.take_publications());
                of_early.len() >= 3 && of_late.len() >= 3
            })
            .await;
            assert_eq!((of_early, of_late), (vec![json!(1), json!(2), json!(2)], vec![json!(2); 3]));
        })
        .await;
}

#[tokio::test]
async fn a_confirmed_subscription_is_a_living_one() {
    let server = Server::start().await;
    LocalSet::new()
        .run_until(async {
            let (publisher, node) = (Bench::start(&server).await, Bench::start(&server).await);
            // The channel was confirmed once, and stays wanted.
            let first = node.client().await;
            subscribe(&first, "plain").await.expect("anyone may subscribe");
            for round in 0..10 {
                server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
                server.signal("STOP");
                until(async || !node.health.is_up()).await;
                let late = node.client().await;
                let back = async {
                    sleep(Duration::from_millis(round * 5)).await;
                    server.signal("CONT");
                };
                tokio::join!(until(async || subscribe(&late, "plain").await.is_ok()), back);
                publisher.publish_surely("plain", round as i32).await;
                let mut seen = Vec::new();
                until(async || {
                    seen.extend(late.take_publications());
                    seen == [json!(round)]
                })
                .await;
                until(async || node.health.is_up() && publisher.health.is_up()).await;
            }
        })
        .await;
}

#[tokio::test]
async fn what_plain_channels_may_have_lost_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    // The node's handles are made while this recorder is in place; they keep it.
    let guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start().await;
    LocalSet::new()
        .run_until(async {
            let node = Bench::start(&server).await;
            let client = node.client().await;
            for name in ["plain", "other", "long:a"] {
                subscribe(&client, name).await.expect("anyone may subscribe");
            }
            server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            until(async || metrics.render().contains("fanwire_interrupted_channels_total 2")).await;
            until(async || node.health.is_up()).await;
            assert!(metrics.render().contains("fanwire_interrupted_channels_total 2"), "once for each interruption");
        })
        .await;
    drop(guard);
}

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
        until(async || bench.health.is_up()).await;
        bench
    }

    async fn client(&self) -> FakeClient {
        self.harness.probe("").await
    }

    async fn publish(&self, name: &str, data: i32) -> Result<Position, Refusal> {
        let publish = Publish {
            idempotency_key: Some(format!("{name}{data}").into()),
            ..Publish::new(channel(name), Payload::json(data.to_string().into()))
        };
        self.harness.node.publish(publish).await.map(|published| published.position.unwrap_or_default())
    }

    async fn publish_surely(&self, name: &str, data: i32) {
        until(async || self.publish(name, data).await.is_ok()).await;
    }
}

fn config() -> Config {
    let long = Namespace { name: "long".into(), presence: false, join_leave: false, ..Namespace::open("") };
    let plain = Namespace { recovery: false, positioning: false, history_size: 0, ..Namespace::open("") };
    let mut config =
        open_config(Namespace { history_ttl: Duration::ZERO, presence: false, join_leave: false, ..plain });
    config.namespaces.push(long);
    config
}

async fn subscribe(client: &FakeClient, name: &str) -> Result<(), Failure> {
    resume(client, name, None).await.map(|_| ())
}

async fn resume(client: &FakeClient, name: &str, since: Option<Position>) -> Result<fanwire_node::Subscribed, Failure> {
    let request = SubscribeRequest { channel: name.to_owned(), since, ..SubscribeRequest::default() };
    Rc::clone(&client.client).subscribe(request).await
}

/// For what has to be answered in a second: the other one is for a busy machine.
async fn within_two_seconds<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(2), work).await.expect("answered in time")
}

async fn until(wanted: impl AsyncFnMut() -> bool) {
    assert!(until_or(Duration::from_secs(20), wanted).await, "in time");
}

async fn until_or(patience: Duration, mut wanted: impl AsyncFnMut() -> bool) -> bool {
    let wait = async {
        while !wanted().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(patience, wait).await.is_ok()
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}
