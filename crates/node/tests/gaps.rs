//! Gaps that cannot be filled: who is told, when, and what it gets until then.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{Broker, Dispatcher, HistoryRequest, MemoryBroker, Namespace, Publish, SubscribeRequest};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Broadcast, Channel, Payload, Position, Publication, Stamp};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;

#[test]
fn subscribers_are_told_one_after_the_other() {
    run(async |harness| {
        let clients = subscribers(harness, 500).await;
        deliver(harness, 1, 0).await;
        harness.settle().await;
        clients.iter().for_each(|client| assert_eq!(client.take_publications(), [1]));
        deliver(harness, 3, 2).await;
        harness.settle().await;
        deliver(harness, 4, 3).await;
        let mut told_in_step = Vec::new();
        for _ in 0..50 {
            harness.pass(Duration::from_millis(100)).await;
            let told = clients.iter().map(|client| client.take().len()).sum::<usize>();
            told_in_step.push(told);
        }
        assert_eq!(told_in_step.iter().sum::<usize>(), 500, "all, within five seconds, of nothing else");
        assert!(told_in_step.iter().all(|told| (8..=12).contains(told)), "evenly: {told_in_step:?}");
    });
}

#[test]
fn gaps_of_many_channels_are_spread_too() {
    run(async |harness| {
        let mut clients = Vec::new();
        for n in 0..200 {
            let client = harness.probe("").await;
            client.subscribe(&format!("c{n}")).await.unwrap();
            clients.push(client);
        }
        for n in 0..200 {
            deliver_to(harness, &format!("c{n}"), 1, 0).await;
            deliver_to(harness, &format!("c{n}"), 3, 2).await;
        }
        harness.settle().await;
        clients.iter().for_each(|client| drop(client.take()));
        for _ in 0..5 {
            harness.pass(Duration::from_secs(1)).await;
            let told = clients.iter().map(|client| client.take().len()).sum::<usize>();
            assert!((35..=45).contains(&told), "{told}");
        }
    });
}

#[test]
fn nothing_is_delivered_behind_a_gap() {
    run(async |harness| {
        let clients = subscribers(harness, 20).await;
        deliver(harness, 1, 0).await;
        deliver(harness, 3, 2).await;
        deliver(harness, 4, 3).await;
        harness.pass(Duration::from_secs(5)).await;
        for client in &clients {
            let frames = client.take();
            let told = frames.iter().position(|frame| frame["code"] == 2500).expect("told");
            let offsets: Vec<_> = frames[..told].iter().filter_map(|frame| frame["offset"].as_u64()).collect();
            assert!(offsets.is_empty() || offsets == [1], "{frames:?}");
            assert_eq!(frames.len(), told + 1, "nor behind that: {frames:?}");
        }
    });
}

#[test]
fn who_leaves_or_begins_anew_is_not_told() {
    run(async |harness| {
        let clients = subscribers(harness, 30).await;
        deliver(harness, 1, 0).await;
        deliver(harness, 3, 2).await;
        harness.settle().await;
        clients.iter().for_each(|client| drop(client.take()));
        for (n, client) in clients.iter().enumerate() {
            match n % 3 {
                0 => client.client.unsubscribe("chat").await,
                1 => {
                    client.client.unsubscribe("chat").await;
                    client.subscribe("chat").await.unwrap();
                }
                _ => client.leave(),
            }
        }
        // Others come, perhaps with the keys of those who left.
        let others = subscribers(harness, 30).await;
        harness.pass(Duration::from_secs(6)).await;
        for client in clients.iter().chain(&others) {
            assert!(client.take().iter().all(|frame| frame.get("unsubscribed").is_none()));
        }
        deliver(harness, 4, 3).await;
        harness.settle().await;
        assert!(others.iter().all(|client| client.take_publications() == [4]));
        assert!(clients.iter().skip(1).step_by(3).all(|client| client.take_publications() == [4]));
    });
}

#[test]
fn a_subscriber_that_waits_to_be_told_is_still_one() {
    run(async |harness| {
        let clients = subscribers(harness, 5).await;
        deliver(harness, 1, 0).await;
        deliver(harness, 3, 2).await;
        harness.settle().await;
        assert_eq!(harness.node.counts().await.subscriptions, 5);
        assert!(clients.iter().all(|client| client.client.is_connected()));
        harness.pass(Duration::from_secs(6)).await;
        assert_eq!(harness.node.counts().await.subscriptions, 0);
    });
}

#[test]
fn losses_that_nobody_can_notice_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        run(async |harness| {
            let plain = [unpositioned(harness).await, unpositioned(harness).await];
            deliver(harness, 1, 0).await;
            deliver(harness, 3, 2).await;
            deliver(harness, 2, 1).await;
            harness.settle().await;
            for client in &plain {
                assert_eq!(client.take_publications(), [1, 3]);
            }
        });
    });
    let text = metrics.render();
    let counts: HashMap<_, _> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    assert_eq!(counts["fanwire_unnoticed_losses_total{how=\"gap\"}"], "2");
    assert_eq!(counts["fanwire_unnoticed_losses_total{how=\"late\"}"], "2");
    assert_eq!(counts["fanwire_insufficient_state_total"], "0");
}

#[test]
fn a_position_for_one_takes_nothing_from_the_others() {
    // The first subscriber with a position comes while publications wait in the mailbox.
    harness::run(open_config(Namespace::open("")), async |harness| {
        let plain = unpositioned(harness).await;
        for n in 1..=3 {
            let publish = Publish::new(channel("chat"), Payload::json(n.to_string().into()));
            harness.node.publish(publish).await.unwrap();
        }
        let positioned = harness.probe("").await;
        let subscribed = positioned.subscribe("chat").await.unwrap();
        harness.settle().await;
        assert_eq!(plain.take_publications(), [1, 2, 3]);
        assert_eq!(subscribed.position.unwrap().offset, 3);
        assert_eq!(positioned.take_publications(), Vec::<serde_json::Value>::new());
    });
}

/// A node whose broker delivers nothing: the test does.
fn run(test: impl AsyncFnOnce(&Harness)) {
    let deaf = |_| -> Box<dyn Broker> { Box::new(MemoryBroker::new(Dispatcher::new(1))) };
    harness::run_with(open_config(Namespace { join_leave: false, ..Namespace::open("") }), deaf, test);
}

async fn subscribers(harness: &Harness, count: usize) -> Vec<FakeClient> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let client = harness.probe("").await;
        client.subscribe("chat").await.unwrap();
        clients.push(client);
    }
    clients
}

async fn unpositioned(harness: &Harness) -> FakeClient {
    let client = harness.probe("user:7").await;
    let token = "sub:7@chat;recovery=false;positioning=false;join_leave=false".to_owned();
    let request = SubscribeRequest { channel: "chat".into(), token, ..SubscribeRequest::default() };
    client.client.subscribe(request).await.unwrap();
    client
}

/// Delivers a publication whose data is its offset.
async fn deliver(harness: &Harness, offset: u64, prev: u64) {
    deliver_to(harness, "chat", offset, prev).await;
}

async fn deliver_to(harness: &Harness, name: &str, offset: u64, prev: u64) {
    let channel = channel(name);
    let top = async || harness.node.history(&channel, HistoryRequest::default()).await.unwrap().top;
    while top().await.offset < offset {
        // Into the stream, and to nobody.
        harness.node.publish(Publish::new(channel.clone(), Payload::json("0".into()))).await.unwrap();
    }
    let publication = Publication {
        channel: channel.clone(),
        payload: Payload::json(json!(offset).to_string().into()),
        event: None,
        tags: Arc::default(),
        info: None,
        exclude: None,
        stamp: Some(Stamp { position: Position { offset, ..top().await }, prev }),
        time_ms: 0,
    };
    harness.dispatcher.dispatch(&Broadcast::Publication(Arc::new(publication)));
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}
