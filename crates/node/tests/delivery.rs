//! From dispatch to the sockets: turn batches, one write per connection and turn, who comes and goes in between.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use fanwire_node::{Client, Counts, Namespace, Permission, Publish};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness, Random};
use fanwire_wire::{Channel, Payload};
use serde_json::{Value, json};

#[test]
fn what_comes_in_one_turn_leaves_in_one_write() {
    harness::run(open_config(plain()), async |harness| {
        let clients = subscribers(harness, 3, "chat").await;
        let writes: Vec<_> = clients.iter().map(|client| client.socket.writes()).collect();
        for n in 0..50 {
            publish(harness, "chat", n).await;
        }
        harness.settle().await;
        for (client, before) in clients.iter().zip(writes) {
            assert_eq!(client.socket.writes() - before, 1);
            assert_eq!(client.take_publications(), numbers(0..50));
        }
        publish(harness, "chat", 50).await;
        harness.settle().await;
        publish(harness, "chat", 51).await;
        harness.settle().await;
        assert!(clients.iter().all(|client| client.take_publications() == numbers(50..52)));
    });
}

#[test]
fn several_channels_leave_in_one_write_too() {
    harness::run(open_config(plain()), async |harness| {
        let channels = ["a", "b", "c", "d"];
        let both = subscribers(harness, 1, "a").await.remove(0);
        for channel in &channels[1..] {
            both.subscribe(channel).await.unwrap();
        }
        let one = subscribers(harness, 1, "c").await.remove(0);
        let writes = (both.socket.writes(), one.socket.writes());
        for n in 0..20 {
            publish(harness, channels[n as usize % 4], n).await;
        }
        harness.settle().await;
        assert_eq!((both.socket.writes() - writes.0, one.socket.writes() - writes.1), (1, 1));
        let seen = both.take();
        assert_eq!(seen.len(), 20);
        for (index, channel) in channels.iter().enumerate() {
            let of_channel: Vec<_> = seen.iter().filter(|frame| frame["channel"] == *channel).collect();
            let data: Vec<_> = of_channel.iter().map(|frame| frame["pub"].clone()).collect();
            assert_eq!(data, numbers((index as i32..20).step_by(4)), "in order per channel");
        }
        assert_eq!(one.take_publications(), numbers((2..20).step_by(4)));
    });
}

#[test]
fn encodings_are_kept_apart() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let text = subscribers(harness, 2, "chat").await;
        let binary = harness.probe_unconnected("binary");
        let picky = harness.probe_unconnected("picky");
        for client in [&binary, &picky] {
            client.connect("").await;
            client.subscribe("chat").await.unwrap();
        }
        publish(harness, "chat", 1).await;
        harness.settle().await;
        let frames = binary.socket.take();
        assert!(frames.iter().all(|frame| matches!(frame, fanwire_testkit::Frame::Binary(_))), "{frames:?}");
        assert_eq!(picky.take_publications(), [1]);
        // What an encoding cannot carry ends its connections, and nobody else notices.
        let binary_data = Publish::new(channel("chat"), Payload::binary(vec![1, 2].into()));
        harness.node.publish(binary_data).await.unwrap();
        publish(harness, "chat", 2).await;
        harness.settle().await;
        assert_eq!(picky.take().last(), Some(&json!({"close": 3506})));
        assert!(picky.is_gone());
        assert_eq!(binary.take_publications(), [json!({"bytes": [1, 2]}), json!(2)]);
        for client in &text {
            assert_eq!(client.take_publications(), [json!(1), json!({"bytes": [1, 2]}), json!(2)]);
        }
    });
}

#[test]
fn a_sweep_survives_those_who_come_and_go() {
    // A thousand subscribers take several slices. Between them, some leave, some come, some do both. Each knows where it
    // began, so that whatever it gets too early, twice or not at all shows.
    let stream = Namespace { join_leave: false, presence: false, ..Namespace::open("") };
    harness::run(open_config(stream), async |harness| {
        let mut clients = Vec::new();
        for client in subscribers(harness, 1000, "chat").await {
            clients.push((client, 0));
        }
        let mut random = Random::new(1);
        let mut published = 0;
        for round in 0..20 {
            for _ in 0..3 {
                publish(harness, "chat", published).await;
                published += 1;
            }
            let mut left = Vec::new();
            for _ in 0..10 {
                // One slice, more or less.
                tokio::task::yield_now().await;
                for _ in 0..random.below(8) {
                    let (client, at) = clients.swap_remove(random.below(clients.len()));
                    client.client.unsubscribe("chat").await;
                    left.push((client, at, published));
                }
                for _ in 0..random.below(8) {
                    let client = harness.probe("").await;
                    let began = client.subscribe("chat").await.unwrap().position.unwrap();
                    clients.push((client, began.offset as i32));
                }
                if random.below(2) == 0 {
                    publish(harness, "chat", published).await;
                    published += 1;
                }
            }
            harness.settle().await;
            for (client, at) in &mut clients {
                assert_eq!(client.take_publications(), numbers(*at..published), "round {round}: all since it began");
                *at = published;
            }
            for (client, at, until) in left {
                let seen = client.take_publications();
                assert_eq!(seen, numbers(at..at + seen.len() as i32), "round {round}: a beginning, in order");
                assert!(at + seen.len() as i32 <= until, "round {round}: nothing from after it left");
            }
        }
        drop(clients);
        harness.settle().await;
        assert_eq!(harness.node.counts().await, Counts::default());
    });
}

#[test]
fn whoever_comes_during_a_sweep_gets_what_comes_after() {
    harness::run(open_config(plain()), async |harness| {
        let clients = subscribers(harness, 600, "chat").await;
        publish(harness, "chat", 0).await;
        while clients[599].socket.writes() == 0 {
            tokio::task::yield_now().await;
        }
        // The next one is dispatched, and waits for the end of the sweep.
        publish(harness, "chat", 1).await;
        tokio::task::yield_now().await;
        assert_eq!(clients[0].socket.writes(), 0, "the sweep is under way");
        let late = harness.probe("").await;
        late.subscribe("chat").await.unwrap();
        // It moves to the front, where the sweep has not been.
        clients[0].client.unsubscribe("chat").await;
        publish(harness, "chat", 2).await;
        harness.settle().await;
        assert_eq!(late.take_publications(), [2]);
        assert!(clients[1..].iter().all(|client| client.take_publications() == numbers(0..3)));
    });
}

#[test]
fn whoever_leaves_gets_nothing_more() {
    harness::run(open_config(plain()), async |harness| {
        let clients = subscribers(harness, 600, "chat").await;
        publish(harness, "chat", 0).await;
        // The first slice is written, from the end: the first subscriber is not reached.
        while clients[599].socket.writes() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(clients[0].socket.writes(), 0);
        clients[0].client.unsubscribe("chat").await;
        clients[0].subscribe("chat").await.unwrap();
        publish(harness, "chat", 1).await;
        harness.settle().await;
        assert_eq!(clients[0].take_publications(), [1], "a subscription begins where it begins");
        assert!(clients[1..].iter().all(|client| client.take_publications() == numbers(0..2)));
    });
}

#[test]
fn who_is_excluded_gets_the_rest() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let ann = harness.probe("").await;
        let binary = harness.probe_unconnected("binary");
        binary.connect("").await;
        let bob = harness.probe("").await;
        for client in [&ann, &binary, &bob] {
            client.subscribe("chat").await.unwrap();
            client.subscribe("other").await.unwrap();
        }
        harness.settle().await;
        for client in [&ann, &binary, &bob] {
            let _ = client.take();
        }
        let writes = [&ann, &binary, &bob].map(|client| client.socket.writes());
        // At the beginning, in the middle, two in a row, and at the end of a turn.
        let turn = [Some(&ann), Some(&binary), None, Some(&ann), Some(&ann), Some(&bob), None, Some(&ann)];
        for (n, exclude) in (0..).zip(turn) {
            publish_but_to(harness, "chat", n, exclude).await;
        }
        publish(harness, "other", 8).await;
        harness.settle().await;
        assert_eq!([&ann, &binary, &bob].map(|client| client.socket.writes()), writes.map(|before| before + 1));
        assert_eq!(ann.take_publications(), [1, 2, 5, 6, 8]);
        assert_eq!(binary.take_publications(), [0, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bob.take_publications(), [0, 1, 2, 3, 4, 6, 7, 8]);
        // Nothing at all, and on with the next.
        publish_but_to(harness, "chat", 9, Some(&ann)).await;
        harness.settle().await;
        assert_eq!(ann.socket.writes(), writes[0] + 1);
        publish(harness, "chat", 10).await;
        harness.settle().await;
        assert_eq!((ann.take_publications(), bob.take_publications()), (numbers([10].into_iter()), numbers(9..11)));
    });
}

#[test]
fn a_long_sweep_excludes_each_one_from_its_own() {
    // More than a slice. Whoever comes in between begins in the middle of a batch.
    harness::run(open_config(Namespace { join_leave: false, ..Namespace::open("") }), async |harness| {
        let mut clients: Vec<_> =
            subscribers(harness, 400, "chat").await.into_iter().map(|one| (one, vec![])).collect();
        let mut random = Random::new(1);
        for n in 0..600 {
            let excluded = random.below(clients.len());
            publish_but_to(harness, "chat", n, Some(&clients[excluded].0)).await;
            for (index, (_, expected)) in clients.iter_mut().enumerate() {
                if index != excluded {
                    expected.push(json!(n));
                }
            }
            if random.below(20) == 0 {
                let late = harness.probe("").await;
                let began = late.subscribe("chat").await.unwrap().position.unwrap();
                assert_eq!(began.offset as i32, n + 1);
                clients.push((late, vec![]));
            }
            if random.below(50) == 0 {
                harness.settle().await;
            }
        }
        harness.settle().await;
        for (client, expected) in clients {
            assert_eq!(client.take_publications(), expected);
        }
    });
}

#[test]
fn a_flood_is_delivered_in_order() {
    // More than the batches may hold: letters wait while sweeps run.
    harness::run(open_config(plain()), async |harness| {
        let clients = subscribers(harness, 50, "chat").await;
        let padding = "x".repeat(4000);
        for n in 0..200 {
            let data = json!([n, padding]);
            let publish = Publish::new(channel("chat"), Payload::json(data.to_string().into()));
            harness.node.publish(publish).await.unwrap();
        }
        harness.settle().await;
        for client in &clients {
            let seen: Vec<_> = client.take_publications().into_iter().map(|data| data[0].clone()).collect();
            assert_eq!(seen, numbers(0..200));
        }
    });
}

fn plain() -> Namespace {
    Namespace { subscribe: Permission::Anyone, ..Namespace::default() }
}

async fn subscribers(harness: &Harness, count: usize, channel: &str) -> Vec<FakeClient> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let client = harness.probe("").await;
        client.subscribe(channel).await.unwrap();
        clients.push(client);
    }
    clients
}

async fn publish(harness: &Harness, name: &str, n: i32) {
    publish_but_to(harness, name, n, None).await;
}

async fn publish_but_to(harness: &Harness, name: &str, n: i32, exclude: Option<&FakeClient>) {
    let exclude = exclude.and_then(|client| Client::parse_id(&client.client.id()));
    let publish = Publish { exclude, ..Publish::new(channel(name), Payload::json(n.to_string().into())) };
    harness.node.publish(publish).await.unwrap();
}

fn numbers(range: impl Iterator<Item = i32>) -> Vec<Value> {
    range.map(|n| json!(n)).collect()
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}
