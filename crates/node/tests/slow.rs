//! Sockets that are full: what waits is bounded, the end is told, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::time::Duration;

use fanwire_node::{Config, Counts, Namespace, Permission, Publish};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, Disconnect, Payload};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};

const QUEUE: usize = 10_000;

#[test]
fn what_waits_is_bounded_and_the_end_is_told() {
    measured(async |harness, metrics| {
        let slow = subscriber(harness).await;
        let neighbours = [subscriber(harness).await, subscriber(harness).await];
        slow.socket.fill(10);
        let mut published = 0;
        while slow.client.ended().is_none() {
            publish(harness, published).await;
            harness.settle().await;
            published += 1;
            harness.pass(Duration::from_secs(1)).await;
            assert!(gauge(metrics, "fanwire_queue_bytes") <= QUEUE as f64, "after {published}");
            assert!(published < 100, "the bound holds");
        }
        assert!(published > 5, "up to the bound it waits");
        assert_eq!(slow.client.ended(), Some(Disconnect::Slow));
        assert_eq!(harness.node.counts().await.subscriptions, 2, "it has left");
        publish(harness, published).await;
        harness.pass(Duration::from_secs(5)).await;
        assert!(slow.is_gone(), "it is not waited for long");
        for neighbour in &neighbours {
            assert_eq!(numbers(neighbour), (0..=published).collect::<Vec<_>>());
        }
        assert_eq!(gauge(metrics, "fanwire_queue_bytes"), 0.0);
        assert_eq!(gauge(metrics, "fanwire_disconnects_total{reason=\"slow\"}"), 1.0);
    });
}

#[test]
fn a_socket_that_was_full_for_a_while_loses_nothing() {
    measured(async |harness, metrics| {
        let client = subscriber(harness).await;
        for room in [0, 1, 7, 1000] {
            client.socket.fill(room);
            let start = room as i32 * 100;
            for n in start..start + 8 {
                publish(harness, n).await;
                if n % 3 == 0 {
                    harness.settle().await;
                }
            }
            harness.pass(Duration::from_secs(1)).await;
            assert!(gauge(metrics, "fanwire_queue_bytes") > 0.0);
            // Bit by bit, then wholly.
            for room in [1, 2, 500] {
                client.socket.drain();
                client.socket.fill(room);
                harness.settle().await;
            }
            publish(harness, start + 8).await;
            client.socket.drain();
            harness.pass(Duration::from_secs(1)).await;
            assert_eq!(numbers(&client), (start..start + 9).collect::<Vec<_>>(), "with room for {room}");
            assert_eq!(gauge(metrics, "fanwire_queue_bytes"), 0.0);
        }
    });
}

#[test]
fn a_client_that_leaves_takes_its_queue_along() {
    measured(async |harness, metrics| {
        for round in 0..3 {
            let client = subscriber(harness).await;
            client.socket.fill(0);
            publish(harness, round).await;
            harness.pass(Duration::from_secs(1)).await;
            assert!(gauge(metrics, "fanwire_queue_bytes") > 0.0);
            match round {
                0 => client.leave(),
                1 => client.client.close(Disconnect::ForceDisconnect),
                _ => client.socket.break_down(),
            }
            harness.pass(Duration::from_secs(4)).await;
            assert!(client.is_gone(), "round {round}");
            assert_eq!(gauge(metrics, "fanwire_queue_bytes"), 0.0, "round {round}");
        }
        assert_eq!(harness.node.counts().await, Counts::default());
        assert_eq!(gauge(metrics, "fanwire_disconnects_total{reason=\"write_error\"}"), 1.0);
    });
}

#[test]
fn a_broken_socket_ends_its_connection_only() {
    measured(async |harness, _| {
        let broken = subscriber(harness).await;
        let neighbour = subscriber(harness).await;
        broken.socket.break_down();
        publish(harness, 1).await;
        harness.settle().await;
        assert!(broken.is_gone());
        assert_eq!(broken.client.ended(), Some(Disconnect::WriteError));
        assert_eq!(numbers(&neighbour), [1]);
        assert_eq!(harness.node.counts().await.subscriptions, 1);
    });
}

#[test]
fn the_last_frame_leaves_behind_what_waits() {
    measured(async |harness, _| {
        let client = subscriber(harness).await;
        client.socket.fill(3);
        publish(harness, 1).await;
        harness.settle().await;
        client.client.close(Disconnect::ForceDisconnect);
        publish(harness, 2).await;
        harness.settle().await;
        assert!(!client.is_gone(), "there is time to read");
        client.socket.drain();
        harness.settle().await;
        let frames = client.take();
        assert_eq!(frames.iter().filter_map(|frame| frame.get("pub").map(|data| &data[0])).collect::<Vec<_>>(), [1]);
        assert_eq!(frames.last(), Some(&json!({"close": 3503})));
        assert!(client.is_gone());
    });
}

#[test]
fn a_peer_that_ignores_the_close_frame_is_cut_off() {
    measured(async |harness, _| {
        let client = subscriber(harness).await;
        client.socket.ignore_close();
        client.client.close(Disconnect::ForceDisconnect);
        harness.settle().await;
        assert_eq!(client.take(), [json!({"close": 3503})]);
        assert!(client.socket.is_write_ended() && !client.is_gone());
        harness.pass(Duration::from_secs(3)).await;
        assert!(client.is_gone());
    });
}

/// Runs a test with a recorder of its own.
fn measured(test: impl AsyncFnOnce(&Harness, &PrometheusHandle)) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let namespace = Namespace { subscribe: Permission::Anyone, ..Namespace::default() };
        let mut config: Config = open_config(namespace);
        config.client.queue_size = QUEUE;
        harness::run(config, async |harness| test(harness, &metrics).await);
    });
}

/// The value of a metric.
fn gauge(metrics: &PrometheusHandle, name: &str) -> f64 {
    let text = metrics.render();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().unwrap()
}

async fn subscriber(harness: &Harness) -> FakeClient {
    let client = harness.probe("").await;
    client.subscribe("chat").await.unwrap();
    client
}

/// Publishes about a kilobyte.
async fn publish(harness: &Harness, n: i32) {
    let data = json!([n, "x".repeat(1000)]);
    let publish = Publish::new(Channel::new("chat").unwrap(), Payload::json(data.to_string().into()));
    harness.node.publish(publish).await.unwrap();
}

fn numbers(client: &FakeClient) -> Vec<i32> {
    client.take_publications().iter().filter_map(|data: &Value| data[0].as_i64()).map(|n| n as i32).collect()
}
