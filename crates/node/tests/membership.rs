//! Who is where: joins and leaves exactly once, presence while a subscription lasts, and nothing left behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use fanwire_node::authorizer::Grant;
use fanwire_node::{ChannelQuery, Config, ConnectRequest, Counts, Failure, Namespace, Publish, Selection};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness, Random};
use fanwire_wire::{Channel, Disconnect, Payload, Refusal};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};

#[test]
fn a_join_and_a_leave_each_in_all_orders() {
    type Way = fn(&FakeClient);
    let ways: [(&str, Way); 3] = [
        ("hangs up", |client| client.leave()),
        ("is closed", |client| client.client.close(Disconnect::ForceDisconnect)),
        ("breaks", |client| client.socket.break_down()),
    ];
    for (name, way) in ways {
        for at_once in [true, false] {
            harness::run(config(), async |harness| {
                let observer = observer(harness).await;
                let client = harness.probe("user:7").await;
                client.subscribe("chat").await.unwrap();
                if !at_once {
                    harness.settle().await;
                    assert_eq!(observer.take(), [event("join", &client)]);
                }
                way(&client);
                // A broken socket is found by the next write.
                publish(harness).await;
                harness.settle().await;
                let seen = events(&observer);
                let expected = [event("join", &client), event("leave", &client)];
                assert_eq!(seen, expected[usize::from(!at_once)..], "{name}, at once: {at_once}");
                assert_eq!(users(harness).await, ["observer"], "{name}, at once: {at_once}");
            });
        }
    }
}

#[test]
fn coming_and_going_within_one_turn() {
    harness::run(config(), async |harness| {
        let observer = observer(harness).await;
        let client = harness.probe("user:7").await;
        for _ in 0..10 {
            client.subscribe("chat").await.unwrap();
            client.client.unsubscribe("chat").await;
            assert_eq!(users(harness).await, ["observer"], "gone as soon as the unsubscribe is answered");
        }
        client.subscribe("chat").await.unwrap();
        assert_eq!(users(harness).await, ["7", "observer"], "there before the subscribe is answered");
        harness.settle().await;
        let seen = events(&observer);
        let mut expected = vec![event("join", &client)];
        for _ in 0..10 {
            expected.extend([event("leave", &client), event("join", &client)]);
        }
        assert_eq!(seen, expected);
    });
}

#[test]
fn the_own_join_comes_behind_the_reply() {
    harness::run(config(), async |harness| {
        let client = harness.probe_unconnected("");
        let request = ConnectRequest { token: "user:7;subs=chat".into(), ..ConnectRequest::default() };
        client.client.connect(request).await.unwrap();
        client.client.push(fanwire_reply()).unwrap();
        harness.settle().await;
        assert_eq!(client.take(), [json!({"reply": true}), event("join", &client)]);
    });
}

#[test]
fn who_is_not_announced_is_not_seen() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let observer = observer(harness).await;
        let client = harness.probe("user:7").await;
        let token = "sub:7@chat;presence=false;join_leave=false".to_owned();
        let quiet = fanwire_node::SubscribeRequest { channel: "chat".into(), token, ..Default::default() };
        client.client.subscribe(quiet).await.unwrap();
        assert_eq!(users(harness).await, ["observer"]);
        client.client.unsubscribe("chat").await;
        harness.settle().await;
        assert_eq!(observer.take(), Vec::<Value>::new());
    });
}

#[test]
fn more_members_than_a_client_can_take_are_only_counted() {
    let mut config = config();
    config.client.queue_size = 1000;
    harness::run(config, async |harness| {
        let observer = observer(harness).await;
        let mut clients = Vec::new();
        for _ in 1..10 {
            let client = harness.probe("user:7").await;
            client.subscribe("chat").await.unwrap();
            clients.push(client);
        }
        assert_eq!(observer.client.presence("chat").await.unwrap().len(), 10);
        let client = harness.probe("user:7").await;
        client.subscribe("chat").await.unwrap();
        assert_eq!(observer.client.presence("chat").await.unwrap_err(), Refusal::LimitExceeded);
        assert_eq!(observer.client.presence_stats("chat").await.unwrap().clients, 11);
        assert_eq!(harness.node.members(&channel("chat")).await.unwrap().len(), 11, "a backend gets them all");
    });
}

#[test]
fn a_connect_that_is_refused_leaves_nothing_behind() {
    harness::run(config(), async |harness| {
        let observer = observer(harness).await;
        let client = harness.probe_unconnected("");
        let request = ConnectRequest { token: "user:7;subs=chat,nowhere:1".into(), ..ConnectRequest::default() };
        let refused = client.client.connect(request).await.unwrap_err();
        assert_eq!(refused, Failure::Refusal(Refusal::UnknownChannel));
        harness.settle().await;
        assert_eq!(users(harness).await, ["observer"]);
        assert_eq!(events(&observer), Vec::<Value>::new());
        assert_eq!(harness.node.counts().await.subscriptions, 1);
        client.leave();
        harness.settle().await;
        assert_eq!(harness.node.counts().await.users, 1);
    });
}

#[test]
fn whoever_leaves_while_it_subscribes_was_never_there() {
    for request in [true, false] {
        for by_backend in [true, false] {
            harness::run(config(), async |harness| {
                let observer = observer(harness).await;
                let client = harness.probe("user:7").await;
                if request {
                    harness.faults.hold_requests()
                } else {
                    harness.faults.hold_answers()
                }
                let inner = Rc::clone(&client.client);
                let subscribing = tokio::task::spawn_local(async move {
                    let request = fanwire_node::SubscribeRequest { channel: "chat".into(), ..Default::default() };
                    inner.subscribe(request).await
                });
                harness.settle().await;
                if by_backend {
                    let selection = Selection { user: "7".into(), ..Selection::default() };
                    harness.node.unsubscribe(selection, channel("chat")).await.unwrap();
                } else {
                    client.leave();
                }
                harness.settle().await;
                harness.faults.heal();
                harness.settle().await;
                let outcome = subscribing.await.unwrap();
                let expected: Failure =
                    if by_backend { Refusal::Expired.into() } else { Disconnect::ConnectionClosed.into() };
                assert_eq!(outcome.unwrap_err(), expected);
                publish(harness).await;
                harness.settle().await;
                assert_eq!(client.take(), Vec::<Value>::new());
                assert_eq!(users(harness).await, ["observer"]);
                assert_eq!(events(&observer), Vec::<Value>::new());
                assert_eq!(harness.node.counts().await.subscriptions, 1);
            });
        }
    }
}

#[test]
fn a_broker_that_is_down_refuses_and_keeps_nothing() {
    harness::run(config(), async |harness| {
        let client = harness.probe("user:7").await;
        harness.faults.go_down();
        let refused = client.subscribe("chat").await.unwrap_err();
        assert_eq!(refused, Failure::Refusal(Refusal::Unavailable));
        assert_eq!(harness.node.counts().await, Counts { clients: 1, users: 1, channels: 0, subscriptions: 0 });
        harness.faults.heal();
        client.subscribe("chat").await.unwrap();
        publish(harness).await;
        harness.settle().await;
        assert_eq!(client.take_publications(), [0]);
    });
}

#[test]
fn when_all_are_gone_nothing_is_left() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        for seed in 1..20 {
            harness::run(config(), async |harness| {
                harness.faults.dawdle(seed, Duration::from_millis(5));
                let observer = observer(harness).await;
                let mut random = Random::new(seed);
                let mut clients = Vec::new();
                for _ in 0..200 {
                    match random.below(10) {
                        0..=3 => clients.push(harness.probe(&format!("user:{}", random.below(5))).await),
                        4..=6 if !clients.is_empty() => {
                            let client: &FakeClient = &clients[random.below(clients.len())];
                            let (client, name) = (Rc::clone(&client.client), ["chat", "a", "b"][random.below(3)]);
                            tokio::task::spawn_local(async move {
                                let channel = name.to_owned();
                                let request = fanwire_node::SubscribeRequest { channel, ..Default::default() };
                                // Some are there already, some are gone.
                                let _ = client.subscribe(request).await;
                            });
                        }
                        7 if !clients.is_empty() => {
                            let client = Rc::clone(&clients[random.below(clients.len())].client);
                            tokio::task::spawn_local(async move { client.unsubscribe("chat").await });
                        }
                        8 if !clients.is_empty() => drop(clients.swap_remove(random.below(clients.len()))),
                        _ => {
                            let user = random.below(5).to_string();
                            let selection = Selection { user, ..Selection::default() };
                            let node = &harness.node;
                            let done = match random.below(4) {
                                0 => node.disconnect(selection, Disconnect::ForceDisconnect).await,
                                1 => node.unsubscribe(selection, channel("chat")).await,
                                _ => node.subscribe(selection, channel("a"), Grant::default(), None).await,
                            };
                            done.unwrap();
                        }
                    }
                    if random.below(3) == 0 {
                        harness.settle().await;
                    }
                }
                harness.pass(Duration::from_secs(2)).await;
                drop(clients);
                harness.pass(Duration::from_secs(2)).await;
                let mut balance = HashMap::<String, i32>::new();
                for frame in observer.take() {
                    for (what, change) in [("join", 1), ("leave", -1)] {
                        if let Some(client) = frame[what].as_str() {
                            *balance.entry(client.to_owned()).or_default() += change;
                        }
                    }
                }
                balance.retain(|_, balance| *balance != 0);
                assert_eq!(balance, HashMap::new(), "seed {seed}: as many leaves as joins");
                assert_eq!(users(harness).await, ["observer"], "seed {seed}");
                drop(observer);
                harness.pass(Duration::from_secs(10)).await;
                for name in ["chat", "a", "b"] {
                    assert_eq!(harness.node.members(&channel(name)).await.unwrap(), [], "seed {seed}: {name}");
                }
                assert_eq!(harness.node.counts().await, Counts::default(), "seed {seed}");
                let all = ChannelQuery { patterns: vec!["*".to_owned()], after: None, limit: 100 };
                let listed = harness.node.survey_channels(all).await.unwrap().channels;
                assert_eq!((harness.node.connections(), listed), (0, vec![]));
                assert_eq!(harness.worker.clients().len(), 0);
            });
            let text = metrics.render();
            for name in ["fanwire_subscriptions", "fanwire_channels", "fanwire_queue_bytes", "fanwire_connections"] {
                let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
                assert!(line.ends_with(" 0"), "seed {seed}: {line}");
            }
        }
    });
}

fn config() -> Config {
    open_config(Namespace { force_join_leave: true, ..Namespace::open("") })
}

/// A subscriber that has seen its own join already.
async fn observer(harness: &Harness) -> FakeClient {
    let observer = harness.probe("user:observer").await;
    observer.subscribe("chat").await.unwrap();
    harness.pass(Duration::from_secs(1)).await;
    assert_eq!(observer.take(), [event("join", &observer)]);
    observer
}

/// Joins and leaves.
fn events(observer: &FakeClient) -> Vec<Value> {
    observer.take().into_iter().filter(|frame| frame.get("pub").is_none()).collect()
}

fn event(what: &str, client: &FakeClient) -> Value {
    json!({what: client.client.id(), "channel": "chat"})
}

async fn users(harness: &Harness) -> Vec<String> {
    let members = harness.node.members(&channel("chat")).await.unwrap();
    let mut users: Vec<_> = members.iter().map(|info| info.user.to_string()).collect();
    users.sort();
    users
}

async fn publish(harness: &Harness) {
    harness.node.publish(Publish::new(channel("chat"), Payload::json("0".into()))).await.unwrap();
}

/// What a session would answer.
fn fanwire_reply() -> bytes::Bytes {
    let mut frame = bytes::BytesMut::new();
    fanwire_wire::frame::append_bytes(&mut frame, fanwire_wire::frame::Opcode::Text, b"{\"reply\":true}");
    frame.freeze()
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}
