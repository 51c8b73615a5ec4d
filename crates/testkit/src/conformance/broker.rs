//! The suite for brokers.

mod conditions;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::{History, Order};
use fanwire_node::{Broker, Config, Dispatcher, HistoryRequest, Namespace, Permission, Publish};
use fanwire_wire::{Channel, ClientInfo, Epoch, Payload, Position, Publication};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::FakeClient;
use crate::harness::{Harness, open_config};

/// How long a publication is kept where its end is waited for.
const TTL: Duration = Duration::from_secs(2);

/// How many publications are kept in these tests.
const SIZE: usize = 5;

/// Runs the suite. `make` is called once for each case and makes a broker that knows nothing of the ones before.
///
/// # Panics
///
/// When the broker does not do what it must.
pub async fn broker<B: Broker>(make: impl AsyncFn(Arc<Dispatcher>) -> B) {
    let bench = async || {
        let dispatcher = Dispatcher::new(1);
        let broker = make(Arc::clone(&dispatcher)).await;
        Bench(Harness::with_dispatcher(config(), dispatcher, Box::new(broker)))
    };
    // Two wait for seconds to pass, and need not do so one after the other.
    let (expiring, left) = (bench().await, bench().await);
    tokio::join!(
        one_by_one(&bench),
        history_expires_and_the_position_stays(&expiring),
        a_channel_left_and_entered_again_arrives(&left),
    );
}

async fn one_by_one(bench: &impl AsyncFn() -> Bench) {
    one_order_for_all(&bench().await).await;
    stamps_are_linked(&bench().await).await;
    plain_channels_have_no_stamp(&bench().await).await;
    everything_published_arrives_and_is_kept(&bench().await).await;
    history_is_bounded_and_read_in_parts(&bench().await).await;
    removed_history_keeps_the_position(&bench().await).await;
    untouched_channels_have_a_position(&bench().await).await;
    skipping_the_history(&bench().await).await;
    one_key_is_applied_once(&bench().await).await;
    conditions::suite(bench).await;
}

fn config() -> Config {
    let base = Namespace { subscribe: Permission::Anyone, ..Namespace::default() };
    let stream =
        Namespace { name: "stream".into(), history_size: SIZE, history_ttl: TTL * 150, recovery: true, ..base.clone() };
    let brief = Namespace { name: "brief".into(), history_ttl: TTL, ..stream.clone() };
    let long = Namespace { name: "long".into(), history_size: 1000, ..stream.clone() };
    let mut config = open_config(base);
    config.namespaces.extend([stream, brief, long]);
    config
}

async fn one_order_for_all(bench: &Bench) {
    for channel in ["plain", "long:a"] {
        let subscribers = join_all((0..3).map(|_| bench.subscriber(channel))).await;
        let publishers = (0..8).map(|publisher| async move {
            for n in 0..20 {
                bench.publish(channel, json!([publisher, n])).await;
            }
        });
        join_all(publishers).await;
        let seen = join_all(subscribers.iter().map(|subscriber| bench.publications(subscriber, 160))).await;
        assert!(seen.iter().all(|other| *other == seen[0]), "{channel}: subscribers see different orders");
        for publisher in 0..8 {
            let of_publisher = seen[0].iter().filter(|p| p["pub"][0] == publisher).map(|p| &p["pub"][1]);
            assert!(of_publisher.eq((0..20).map(|n| json!(n)).collect::<Vec<_>>().iter()), "{channel}: {publisher}");
        }
    }
}

async fn stamps_are_linked(bench: &Bench) {
    let subscriber = bench.subscriber("long:a").await;
    let acks = join_all((0..50).map(|n| async move { (n, bench.publish("long:a", json!(n)).await) })).await;
    let acks: BTreeMap<u64, (i32, Epoch)> = acks.into_iter().map(|(n, at)| (at.offset, (n, at.epoch))).collect();
    assert_eq!(acks.len(), 50, "every publication has an offset of its own");
    let seen = bench.publications(&subscriber, 50).await;
    let mut prev = json!(0);
    for publication in &seen {
        assert_eq!(publication["prev"], prev, "a stamp names the offset before it");
        prev = publication["offset"].clone();
        let (n, epoch) = &acks[&prev.as_u64().expect("an offset")];
        assert_eq!(
            (&publication["pub"], &publication["epoch"]),
            (&json!(n), &json!(epoch.as_str())),
            "as acknowledged"
        );
    }
    let kept = bench.history("long:a", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    assert_eq!(data(&kept), seen.iter().map(|p| p["pub"].clone()).collect::<Vec<_>>(), "kept as delivered");
    let links: Vec<u64> = kept.publications.iter().filter_map(|p| p.stamp.as_ref()).map(|stamp| stamp.prev).collect();
    let delivered: Vec<u64> = seen.iter().filter_map(|p| p["prev"].as_u64()).collect();
    assert_eq!(links, delivered, "links are kept as delivered");
    assert_eq!(json!(kept.top.offset), prev, "the top is the last publication");
}

async fn plain_channels_have_no_stamp(bench: &Bench) {
    let subscriber = bench.subscriber("plain").await;
    let published = bench.node().publish(bench.publication("plain", &json!(1))).await.expect("published");
    assert_eq!(published.position, None);
    let seen = bench.publications(&subscriber, 1).await;
    assert_eq!(seen[0], json!({"pub": 1, "channel": "plain"}));
}

async fn everything_published_arrives_and_is_kept(bench: &Bench) {
    let subscriber = bench.subscriber("long:a").await;
    let info = ClientInfo {
        user: "42".into(),
        client: "c1".into(),
        conn_info: Some(Bytes::from_static(b"{\"name\":\"x\"}")),
        chan_info: Some(Bytes::from_static(b"1")),
    };
    let everything = Publish {
        event: Some("created".into()),
        tags: vec![("z".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())].into(),
        info: Some(info),
        exclude: Some([7; 16]),
        ..Publish::new(channel("long:a"), Payload::text("{\"kept\":  \"as it is\"}".into()))
    };
    let binary = Publish::new(channel("long:a"), Payload::binary(Bytes::from_static(&[0, 255, b'\n', b'"'])));
    let json_that_is_binary = Publish::new(channel("long:a"), Payload::binary("{}".into()));
    let text = Publish::new(channel("long:a"), Payload::text("not JSON".into()));
    let empty = Publish::new(channel("long:a"), Payload::text(Bytes::new()));
    let all = [everything, binary, json_that_is_binary, text, empty];
    for publish in all.clone() {
        bench.node().publish(publish).await.expect("published");
    }
    let kept = bench.history("long:a", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    for (publish, kept) in all.iter().zip(&kept.publications) {
        let Publication { channel, payload, event, tags, info, exclude, stamp, time_ms } = &**kept;
        assert_eq!((channel, payload, event), (&publish.channel, &publish.payload, &publish.event));
        assert_eq!((tags, info, exclude), (&publish.tags, &publish.info, &publish.exclude), "tags in the order given");
        assert!(stamp.is_some() && *time_ms > 1_600_000_000_000, "{kept:?}");
    }
    let seen = bench.publications(&subscriber, 5).await;
    let bare: Vec<_> = seen.iter().map(|p| p["pub"].clone()).collect();
    let expected = [
        json!({"kept": "as it is"}),
        json!({"bytes": [0, 255, 10, 34]}),
        json!({"bytes": [123, 125]}),
        json!("not JSON"),
        json!(""),
    ];
    assert_eq!(bare, expected);
    assert_eq!(seen[0]["event"], "created");
    assert_eq!(seen[0]["tags"], json!([["z", "1"], ["a", "2"]]));
    assert_eq!(seen[0]["by"], "c1");
}

async fn history_is_bounded_and_read_in_parts(bench: &Bench) {
    for n in 0..SIZE + 2 {
        bench.publish("stream:a", json!(n)).await;
    }
    let all = bench.history("stream:a", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    assert_eq!(data(&all), (2..SIZE + 2).map(|n| json!(n)).collect::<Vec<_>>(), "the newest are kept");
    let at = |index: usize| all.publications[index].stamp.as_ref().map(|stamp| stamp.position.clone());
    let read = async |since: Option<Position>, limit, order| {
        data(&bench.history("stream:a", HistoryRequest { limit, since, order }).await)
    };
    assert!(read(None, 0, Order::Forward).await.is_empty(), "the position alone");
    assert_eq!(read(None, 2, Order::Forward).await, [json!(2), json!(3)]);
    assert_eq!(read(None, 2, Order::Reverse).await, [json!(6), json!(5)]);
    assert_eq!(
        read(at(1), 2, Order::Forward).await,
        [json!(4), json!(5)],
        "behind the position, which is not part of it"
    );
    assert_eq!(read(at(1), -1, Order::Forward).await, [json!(4), json!(5), json!(6)]);
    assert_eq!(read(at(2), -1, Order::Reverse).await, [json!(3), json!(2)], "before the position");
    assert!(read(at(SIZE - 1), -1, Order::Forward).await.is_empty(), "nothing lies behind the top");
    let beginning = Position { epoch: all.top.epoch.clone(), offset: 0 };
    assert_eq!(read(Some(beginning), -1, Order::Forward).await, data(&all));
}

async fn history_expires_and_the_position_stays(bench: &Bench) {
    let subscriber = bench.subscriber("brief:a").await;
    let before = bench.publish("brief:a", json!(1)).await;
    sleep(TTL + TTL / 2).await;
    let history = bench.history("brief:a", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    assert!(history.publications.is_empty(), "over");
    assert_eq!(history.top, before, "the position outlives the publications");
    let after = bench.publish("brief:a", json!(2)).await;
    assert_eq!(after.epoch, before.epoch);
    let seen = bench.publications(&subscriber, 2).await;
    assert_eq!(seen[1]["prev"], json!(before.offset), "linked over the hole");
    // Each goes in its own time, also while others come.
    sleep(TTL * 3 / 4).await;
    bench.publish("brief:a", json!(3)).await;
    sleep(TTL / 2).await;
    let history = bench.history("brief:a", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    assert_eq!(data(&history).last(), Some(&json!(3)));
}

async fn removed_history_keeps_the_position(bench: &Bench) {
    let subscriber = bench.subscriber("stream:a").await;
    bench.publish("stream:a", json!(1)).await;
    let before = bench.publish("stream:a", json!(2)).await;
    bench.node().remove_history(&channel("stream:a")).await.expect("removed");
    let history = bench.history("stream:a", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    assert_eq!((history.publications.len(), &history.top), (0, &before));
    let after = bench.publish("stream:a", json!(3)).await;
    assert_eq!(after.epoch, before.epoch);
    let seen = bench.publications(&subscriber, 3).await;
    assert_eq!(seen[2]["prev"], json!(before.offset));
    bench.node().remove_history(&channel("stream:untouched")).await.expect("nothing to remove is no error");
}

async fn untouched_channels_have_a_position(bench: &Bench) {
    let first = bench.history("stream:a", HistoryRequest::default()).await;
    assert!(!first.top.epoch.is_empty(), "a position can be held before the first publication");
    assert_eq!((first.top.offset, first.publications.len()), (0, 0));
    assert_eq!(bench.history("stream:a", HistoryRequest::default()).await, first);
    let other = bench.history("stream:b", HistoryRequest::default()).await;
    assert_ne!(other.top.epoch, first.top.epoch, "two streams have different lives");
    let subscriber = bench.subscriber("stream:a").await;
    let published = bench.publish("stream:a", json!(1)).await;
    assert_eq!(published.epoch, first.top.epoch);
    assert_eq!(bench.publications(&subscriber, 1).await[0]["prev"], 0);
}

async fn skipping_the_history(bench: &Bench) {
    let subscriber = bench.subscriber("stream:a").await;
    let before = bench.publish("stream:a", json!(1)).await;
    let skipping = Publish { skip_history: true, ..bench.publication("stream:a", &json!(2)) };
    assert_eq!(bench.node().publish(skipping).await.expect("published").position, None);
    let after = bench.publish("stream:a", json!(3)).await;
    assert!(after.offset > before.offset);
    let seen = bench.publications(&subscriber, 3).await;
    assert_eq!(seen.iter().map(|p| p["pub"].clone()).collect::<Vec<_>>(), [json!(1), json!(2), json!(3)]);
    assert_eq!((&seen[1]["offset"], &seen[2]["prev"]), (&Value::Null, &json!(before.offset)));
    let kept = bench.history("stream:a", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    assert_eq!(data(&kept), [json!(1), json!(3)]);
}

async fn one_key_is_applied_once(bench: &Bench) {
    for name in ["stream:a", "plain"] {
        let subscriber = bench.subscriber(name).await;
        let with_key =
            |key: &str, n: i32| Publish { idempotency_key: Some(key.into()), ..bench.publication(name, &json!(n)) };
        let raced = join_all((0..8).map(|n| bench.node().publish(with_key("raced", n)))).await;
        let raced: Vec<_> = raced.into_iter().map(|published| published.expect("published").position).collect();
        assert!(raced.iter().all(|other| *other == raced[0]), "{name}: one key, one place");
        let again = bench.node().publish(with_key("raced", 9)).await.expect("published");
        assert_eq!(again.position, raced[0], "{name}: a repetition gets the answer of the first");
        bench.node().publish(with_key("other", 10)).await.expect("published");
        bench.node().publish(bench.publication(name, &json!(10))).await.expect("published");
        let seen = bench.publications(&subscriber, 3).await;
        assert_eq!(
            [&seen[1]["pub"], &seen[2]["pub"]],
            [&json!(10), &json!(10)],
            "{name}: delivered once, no key no check"
        );
    }
    let elsewhere = Publish { idempotency_key: Some("raced".into()), ..bench.publication("stream:b", &json!(1)) };
    bench.node().publish(elsewhere).await.expect("published");
    let kept = bench.history("stream:b", HistoryRequest { limit: -1, ..HistoryRequest::default() }).await;
    assert_eq!(data(&kept), [json!(1)], "a key belongs to its channel");
}

async fn a_channel_left_and_entered_again_arrives(bench: &Bench) {
    let rounds = ["stream:a", "stream:b", "stream:c", "stream:d"].map(async |channel| {
        for n in 0..4 {
            let subscriber = bench.subscriber(channel).await;
            bench.publish(channel, json!(n)).await;
            assert_eq!(bench.publications(&subscriber, 1).await[0]["pub"], json!(n));
            subscriber.client.unsubscribe(channel).await;
            if n == 1 {
                // Long enough for the channel to be given up.
                sleep(Duration::from_secs(7)).await;
            }
        }
    });
    join_all(rounds).await;
}

/// A node over the broker in question.
struct Bench(Harness);

impl Bench {
    fn node(&self) -> &fanwire_node::Node {
        &self.0.node
    }

    async fn subscriber(&self, channel: &str) -> FakeClient {
        let client = self.0.probe("").await;
        client.subscribe(channel).await.expect("anyone may subscribe");
        client
    }

    fn publication(&self, name: &str, data: &Value) -> Publish {
        Publish::new(channel(name), Payload::json(data.to_string().into()))
    }

    async fn publish(&self, channel: &str, data: Value) -> Position {
        let published = self.node().publish(self.publication(channel, &data)).await.expect("published");
        published.position.unwrap_or_default()
    }

    async fn history(&self, name: &str, request: HistoryRequest) -> History {
        self.node().history(&channel(name), request).await.expect("read")
    }

    /// Waits for exactly `count` frames. What comes too much is found by the call that follows.
    async fn frames(&self, client: &FakeClient, count: usize) -> Vec<Value> {
        let mut frames = Vec::new();
        let enough = async {
            while frames.len() < count {
                frames.extend(client.take());
                sleep(Duration::from_millis(1)).await;
            }
            // Whatever is delivered twice comes close behind.
            sleep(Duration::from_millis(20)).await;
            frames.extend(client.take());
        };
        let in_time = timeout(Duration::from_secs(10), enough).await.is_ok();
        assert!(in_time && frames.len() == count, "{count} frames expected, got {frames:?}");
        frames
    }

    async fn publications(&self, client: &FakeClient, count: usize) -> Vec<Value> {
        let frames = self.frames(client, count).await;
        let distinct: HashSet<_> = frames.iter().filter_map(|frame| frame["offset"].as_u64()).collect();
        let stamped = frames.iter().filter(|frame| !frame["offset"].is_null()).count();
        assert_eq!(distinct.len(), stamped, "an offset comes once: {frames:?}");
        frames
    }
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}

fn data(history: &History) -> Vec<Value> {
    let parse = |publication: &Arc<Publication>| serde_json::from_slice(publication.payload.bytes());
    history.publications.iter().filter_map(|publication| parse(publication).ok()).collect()
}
