//! The suite for brokers that join several nodes.

use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{
    Broker, Client, Config, Dispatcher, Namespace, Permission, Publish, Recovery, SubscribeRequest, Subscribed,
};
use fanwire_wire::{Channel, Payload, Position};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::FakeClient;
use crate::harness::{Harness, open_config};

/// Runs the suite for two nodes of one cluster: `make` is called once for each.
///
/// # Panics
///
/// When the brokers do not do what they must.
pub async fn broker_of_two<B: Broker>(make: impl AsyncFn(Arc<Dispatcher>) -> B) {
    let node = async || {
        let dispatcher = Dispatcher::new(1);
        let broker = make(Arc::clone(&dispatcher)).await;
        Harness::with_dispatcher(config(), dispatcher, Box::new(broker))
    };
    let bench = Bench([node().await, node().await]);
    both_nodes_see_one_order(&bench).await;
    who_is_excluded_is_so_on_each_node(&bench).await;
    a_client_that_moves_recovers(&bench).await;
    a_client_that_moves_under_load_misses_nothing(&bench).await;
}

fn config() -> Config {
    let plain = Namespace { subscribe: Permission::Anyone, ..Namespace::default() };
    let long = Namespace {
        name: "long".into(),
        history_size: 1000,
        history_ttl: Duration::from_secs(300),
        recovery: true,
        ..plain.clone()
    };
    let mut config = open_config(plain);
    config.namespaces.push(long);
    config
}

async fn both_nodes_see_one_order(bench: &Bench) {
    for name in ["plain", "long:order"] {
        let subscribers = [bench.subscriber(0, name).await, bench.subscriber(1, name).await];
        let publishers = (0..8).map(|publisher| async move {
            for n in 0..20 {
                bench.publish(publisher % 2, name, json!([publisher, n])).await;
            }
        });
        join_all(publishers).await;
        let seen = join_all(subscribers.iter().map(|subscriber| frames(subscriber, 160))).await;
        assert_eq!(seen[0], seen[1], "{name}: the nodes see different orders");
        for publisher in 0..8 {
            let of_publisher =
                seen[0].iter().filter(|frame| frame["pub"][0] == publisher).map(|frame| &frame["pub"][1]);
            assert!(of_publisher.eq((0..20).map(|n| json!(n)).collect::<Vec<_>>().iter()), "{name}: {publisher}");
        }
    }
}

async fn who_is_excluded_is_so_on_each_node(bench: &Bench) {
    for name in ["but", "long:but"].map(channel) {
        let subscribers = [bench.subscriber(0, name.as_str()).await, bench.subscriber(1, name.as_str()).await];
        for (n, from) in [0, 1, 0, 1].into_iter().enumerate() {
            let exclude = Client::parse_id(&subscribers[n / 2].client.id());
            let publish = Publish { exclude, ..Publish::new(name.clone(), Payload::json(n.to_string().into())) };
            bench.0[from].node.publish(publish).await.expect("published");
        }
        bench.publish(0, name.as_str(), json!("end")).await;
        assert_eq!(data(&frames(&subscribers[0], 3).await), [json!(2), json!(3), json!("end")]);
        assert_eq!(data(&frames(&subscribers[1], 3).await), [json!(0), json!(1), json!("end")]);
    }
}

async fn a_client_that_moves_recovers(bench: &Bench) {
    let first = bench.subscriber(0, "long:moved").await;
    bench.publish(1, "long:moved", json!(1)).await;
    let seen = frames(&first, 1).await;
    let position = position(&seen[0]);
    first.leave();
    // The other node has never heard of the channel.
    for n in 2..5 {
        bench.publish(n % 2, "long:moved", json!(n)).await;
    }
    let second = bench.0[1].probe("").await;
    let recovered = recovered(&recover(&second, "long:moved", &position).await).expect("recovered");
    assert_eq!(data(&recovered), [json!(2), json!(3), json!(4)]);
    bench.publish(0, "long:moved", json!(5)).await;
    assert_eq!(data(&frames(&second, 1).await), [json!(5)], "and goes on from there");
}

async fn a_client_that_moves_under_load_misses_nothing(bench: &Bench) {
    // On both nodes somebody stays, so that both follow the channel all the time.
    let _others = [bench.subscriber(0, "long:moving").await, bench.subscriber(1, "long:moving").await];
    let mut client = bench.0[0].probe("").await;
    let subscribed = client.subscribe("long:moving").await.expect("anyone may subscribe");
    let mut position = subscribed.position.expect("the channel has positions");
    let publishing = async {
        for n in 0..300 {
            bench.publish(n % 2, "long:moving", json!(n)).await;
            sleep(Duration::from_millis(1)).await;
        }
    };
    let moving = async {
        let mut seen = Vec::new();
        let mut on = 0;
        while seen.len() < 300 {
            let mut arrived = take(&client);
            if !arrived.is_empty() && seen.len() + arrived.len() < 300 {
                client.leave();
                on = 1 - on;
                client = bench.0[on].probe("").await;
                let at = arrived.last().map_or(position, self::position);
                arrived.extend(recovered(&recover(&client, "long:moving", &at).await).expect("everything is kept"));
                position = at;
            }
            position = arrived.last().map_or(position, self::position);
            seen.append(&mut arrived);
            sleep(Duration::from_millis(7)).await;
        }
        seen
    };
    let both = async { tokio::join!(publishing, moving).1 };
    let seen = timeout(Duration::from_secs(30), both).await.expect("everything arrives");
    assert_eq!(data(&seen), (0..300).map(|n| json!(n)).collect::<Vec<_>>(), "no gap, nothing twice, in order");
}

/// Two nodes over the brokers in question.
struct Bench([Harness; 2]);

impl Bench {
    async fn subscriber(&self, node: usize, channel: &str) -> FakeClient {
        let client = self.0[node].probe("").await;
        client.subscribe(channel).await.expect("anyone may subscribe");
        client
    }

    async fn publish(&self, node: usize, name: &str, data: Value) {
        let publish = Publish::new(channel(name), Payload::json(data.to_string().into()));
        self.0[node].node.publish(publish).await.expect("published");
    }
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}

async fn recover(client: &FakeClient, channel: &str, since: &Position) -> Subscribed {
    let since = Some(since.clone());
    let request = SubscribeRequest { channel: channel.to_owned(), since, ..SubscribeRequest::default() };
    client.client.subscribe(request).await.expect("anyone may subscribe")
}

/// What a complete recovery brought, as the probe would show it.
fn recovered(subscribed: &Subscribed) -> Option<Vec<Value>> {
    let Some(Recovery::Complete(publications)) = &subscribed.recovery else { return None };
    let shown = publications.iter().map(|publication| {
        let stamp = publication.stamp.as_ref()?;
        let data: Value = serde_json::from_slice(publication.payload.bytes()).ok()?;
        Some(json!({"pub": data, "epoch": stamp.position.epoch.as_str(), "offset": stamp.position.offset}))
    });
    shown.collect()
}

fn position(frame: &Value) -> Position {
    let epoch = frame["epoch"].as_str().unwrap_or_else(|| panic!("{frame} has no place"));
    Position { epoch: epoch.into(), offset: frame["offset"].as_u64().expect("a publication with a place") }
}

fn data(frames: &[Value]) -> Vec<Value> {
    frames.iter().map(|frame| frame["pub"].clone()).collect()
}

/// Waits for exactly `count` frames.
async fn frames(client: &FakeClient, count: usize) -> Vec<Value> {
    let mut frames = Vec::new();
    let enough = async {
        while frames.len() < count {
            frames.extend(take(client));
            sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(10), enough).await.is_ok();
    frames.extend(take(client));
    assert!(in_time && frames.len() == count, "{count} frames expected, got {frames:?}");
    frames
}

/// Takes what arrived but pings: clocks may run fast here.
fn take(client: &FakeClient) -> Vec<Value> {
    client.take().into_iter().filter(|frame| frame.get("ping").is_none()).collect()
}
