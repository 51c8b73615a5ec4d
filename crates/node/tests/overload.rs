//! A node that gets more than it can take: what it refuses, what it gives up, and that it takes it back.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fanwire_node::{AdmissionConfig, Failure, Namespace, Publish, Relief, SheddingConfig, SubscribeRequest};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, Disconnect, Payload, Position, Refusal};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

/// Runs `test` with a node whose memory is in use as far as the test says, in percent.
fn under_pressure(test: impl AsyncFnOnce(&Harness, &dyn Fn(u32))) {
    let namespaces = [Namespace::open(""), Namespace { name: "plain".into(), ..plain() }];
    let mut config = open_config(Namespace::open(""));
    config.namespaces = namespaces.into();
    harness::run(config, async |harness| {
        let percent = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&percent);
        let memory = move || Some(f64::from(seen.load(Ordering::Relaxed)) / 100.0);
        let node = Arc::clone(&harness.node);
        tokio::task::spawn_local(node.keep_afloat(SheddingConfig::default(), memory));
        test(harness, &|now| percent.store(now, Ordering::Relaxed)).await;
    });
}

/// A namespace without history.
fn plain() -> Namespace {
    Namespace {
        history_size: 0,
        history_ttl: Duration::ZERO,
        recovery: false,
        positioning: false,
        ..Namespace::open("")
    }
}

async fn publish(harness: &Harness, channel: &str, data: &str) {
    let payload = Payload::json(json!(data).to_string().into());
    harness.node.publish(Publish::new(Channel::new(channel).unwrap(), payload)).await.unwrap();
}

async fn subscriber(harness: &Harness, channel: &str) -> FakeClient {
    let client = harness.probe("").await;
    client.subscribe(channel).await.unwrap();
    client
}

#[test]
fn new_connections_are_turned_away_first_and_welcome_again() {
    under_pressure(async |harness, memory| {
        harness.node.admit_handshake().await.unwrap();
        memory(80);
        harness.pass(SECOND).await;
        assert_eq!(harness.node.relief(), Relief::Handshakes);
        let after = harness.node.admit_handshake().await.unwrap_err().retry_after;
        assert!((2 * SECOND..=8 * SECOND).contains(&after), "{after:?}");
        assert!(harness.node.history(&Channel::new("a").unwrap(), Default::default()).await.is_ok());
        memory(79);
        harness.pass(SECOND).await;
        assert_eq!(harness.node.relief(), Relief::Handshakes, "it does not flutter");
        harness.pass(2 * SECOND).await;
        harness.node.admit_handshake().await.unwrap();
    });
}

#[test]
fn then_reading_pauses_and_publishing_goes_on() {
    under_pressure(async |harness, memory| {
        let client = subscriber(harness, "a").await;
        memory(84);
        harness.pass(SECOND).await;
        let channel = Channel::new("a").unwrap();
        assert_eq!(harness.node.members(&channel).await, Err(Refusal::TooManyRequests));
        assert_eq!(harness.node.presence_stats(&channel).await, Err(Refusal::TooManyRequests));
        let history = harness.node.history(&channel, Default::default()).await;
        assert_eq!(history.unwrap_err(), Refusal::TooManyRequests);
        let _ = client.take();
        publish(harness, "a", "one").await;
        harness.settle().await;
        assert_eq!(client.take().len(), 1);
    });
}

#[test]
fn then_joins_and_leaves_are_not_told() {
    under_pressure(async |harness, memory| {
        let client = subscriber(harness, "a").await;
        harness.settle().await;
        let _ = client.take();
        let _other = subscriber(harness, "a").await;
        harness.settle().await;
        assert_eq!(client.take().len(), 1, "the join");
        memory(88);
        harness.pass(SECOND).await;
        let _third = subscriber(harness, "a").await;
        publish(harness, "a", "one").await;
        harness.settle().await;
        assert_eq!(client.take().len(), 1, "the publication alone");
    });
}

#[test]
fn then_slow_clients_miss_what_they_have_no_position_for_and_at_last_they_are_ended() {
    under_pressure(async |harness, memory| {
        let large = "x".repeat(100_000);
        let clients = [("a", true), ("a", false), ("plain:a", true), ("plain:a", false)];
        let mut all = Vec::new();
        for (channel, slow) in clients {
            let client = subscriber(harness, channel).await;
            if slow {
                client.socket.fill(0);
            }
            all.push(client);
        }
        harness.settle().await;
        for channel in ["a", "plain:a"] {
            publish(harness, channel, &large).await;
        }
        harness.settle().await;
        memory(92);
        harness.pass(SECOND).await;
        assert_eq!(harness.node.relief(), Relief::Publications);
        for channel in ["a", "plain:a"] {
            publish(harness, channel, "small").await;
        }
        harness.settle().await;
        for client in [&all[0], &all[2]] {
            client.socket.drain();
        }
        harness.pass(SECOND).await;
        let got = |client: &FakeClient| client.take_publications().len();
        assert_eq!([got(&all[0]), got(&all[1]), got(&all[2]), got(&all[3])], [2, 2, 1, 2]);

        all[0].socket.fill(0);
        publish(harness, "a", &large).await;
        harness.settle().await;
        memory(96);
        harness.pass(SECOND).await;
        let ended: Vec<_> = all.iter().map(|client| client.client.ended()).collect();
        assert_eq!(ended, [Some(Disconnect::Slow), None, None, None]);
    });
}

#[test]
fn what_waits_for_all_is_bounded_at_every_moment() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let shedding = SheddingConfig { queue_bytes: 30_000, ..SheddingConfig::default() };
        tokio::task::spawn_local(Arc::clone(&harness.node).keep_afloat(shedding, || None));
        let (greedy, modest) = (subscriber(harness, "a").await, subscriber(harness, "b").await);
        let neighbour = subscriber(harness, "a").await;
        harness.settle().await;
        for client in [&greedy, &modest] {
            client.socket.fill(0);
        }
        // No time passes: nobody looks how much waits.
        let publish = async |channel, bytes| {
            publish(harness, channel, &"x".repeat(bytes)).await;
            harness.settle().await;
        };
        publish("b", 1_000).await;
        publish("a", 28_000).await;
        publish("a", 5_000).await;
        publish("b", 1_000).await;
        assert_eq!([greedy.client.ended(), modest.client.ended()], [None, None], "who has least may still wait");
        publish("a", 10).await;
        assert_eq!([greedy.client.ended(), modest.client.ended()], [Some(Disconnect::Slow), None]);
        publish("b", 20_000).await;
        assert_eq!(modest.client.ended(), None, "there is room again");
        modest.socket.drain();
        harness.pass(SECOND).await;
        assert_eq!((neighbour.take_publications().len(), modest.take_publications().len()), (3, 3));
    });
}

#[test]
fn connects_subscriptions_and_recoveries_have_their_turns() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let patience = Duration::ZERO;
        let config = AdmissionConfig { connects: 1, subscribes: 1, recoveries: 1, patience, ..Default::default() };
        harness.node.admit_at_most(&config);
        let client = harness.probe("").await;
        let late = harness.probe_unconnected("");
        let refused = late.client.connect(fanwire_node::ConnectRequest::default()).await;
        assert_eq!(refused.unwrap_err(), Failure::Refusal(Refusal::TooManyRequests));
        client.subscribe("a").await.unwrap();
        let again = client.subscribe("b").await;
        assert_eq!(again.unwrap_err(), Failure::Refusal(Refusal::TooManyRequests));
        let since = Some(Position { epoch: "".into(), offset: 0 });
        let recover = SubscribeRequest { channel: "c".into(), since, ..SubscribeRequest::default() };
        client.client.subscribe(recover).await.unwrap();
        harness.pass(2 * SECOND).await;
        client.subscribe("b").await.unwrap();

        harness.node.admit_at_most(&AdmissionConfig { subscribes: 1, patience: 3 * SECOND, ..config });
        let waited = Rc::new(Cell::new(None));
        let (seen, one) = (Rc::clone(&waited), Rc::clone(&client.client));
        tokio::task::spawn_local(async move {
            let wish = SubscribeRequest { channel: "d".into(), ..SubscribeRequest::default() };
            seen.set(Some(one.subscribe(wish).await.is_ok()));
        });
        harness.settle().await;
        assert_eq!(waited.get(), None, "its turn has not come");
        harness.pass(2 * SECOND).await;
        assert_eq!(waited.get(), Some(true));
    });
}
