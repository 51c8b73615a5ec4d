//! Other limits and rules while clients are there: what changes for whom.

use std::time::Duration;

use fanwire_node::{Config, Failure, Namespace, Permission, Publish};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, Payload, Refusal};
use serde_json::json;

async fn publish(harness: &Harness, channel: &str, data: &'static str) -> Result<Option<u64>, Refusal> {
    let channel = Channel::new(channel).expect("a good name");
    let published = harness.node.publish(Publish::new(channel, Payload::json(data.into()))).await?;
    Ok(published.position.map(|position| position.offset))
}

fn with_namespaces(harness: &Harness, namespaces: Vec<Namespace>) {
    harness.node.reconfigure(Config { namespaces, ..(*harness.node.config()).clone() });
}

async fn refused(client: &FakeClient, channel: &str) -> Refusal {
    match client.subscribe(channel).await {
        Err(Failure::Refusal(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_options_are_for_new_subscriptions() {
    harness::run(open_config(Namespace::open("chat")), async |h| {
        let (before, after) = (h.probe("").await, h.probe("").await);
        assert!(before.subscribe("chat:1").await.unwrap().recoverable);
        assert_eq!(publish(h, "chat:1", "1").await, Ok(Some(1)));
        let quiet = Namespace { recovery: false, positioning: false, join_leave: false, ..Namespace::open("chat") };
        with_namespaces(h, vec![quiet]);
        h.settle().await;
        drop(before.take());
        let subscribed = after.subscribe("chat:1").await.unwrap();
        assert!(!subscribed.recoverable && !subscribed.positioned);
        h.settle().await;
        assert_eq!(before.take(), Vec::<serde_json::Value>::new(), "its joining is announced to nobody");
        // The stream goes on for both, and for the one before with its positions.
        assert_eq!(publish(h, "chat:1", "2").await, Ok(Some(2)));
        h.settle().await;
        let (old, new) = (before.take(), after.take());
        assert_eq!((&old[0]["pub"], &old[0]["offset"]), (&json!(2), &json!(2)));
        assert_eq!(new[0]["pub"], 2);
    });
}

#[test]
fn what_is_kept_is_decided_by_each_publication() {
    harness::run(open_config(Namespace::open("chat")), async |h| {
        let client = h.probe("").await;
        client.subscribe("chat:1").await.unwrap();
        assert_eq!(publish(h, "chat:1", "1").await, Ok(Some(1)));
        let forgetful = Namespace { subscribe: Permission::Anyone, name: "chat".into(), ..Namespace::default() };
        with_namespaces(h, vec![forgetful]);
        assert_eq!(publish(h, "chat:1", "2").await, Ok(None));
        with_namespaces(h, vec![Namespace::open("chat")]);
        assert_eq!(publish(h, "chat:1", "3").await, Ok(Some(2)));
        h.settle().await;
        assert_eq!(client.take_publications(), [json!(1), json!(2), json!(3)]);
        assert!(!client.is_gone());
    });
}

#[test]
fn without_its_namespace_a_subscription_stays_and_gets_nothing() {
    harness::run(open_config(Namespace::open("chat")), async |h| {
        let client = h.probe("").await;
        client.subscribe("chat:1").await.unwrap();
        with_namespaces(h, vec![Namespace::open("news")]);
        assert_eq!(publish(h, "chat:1", "1").await, Err(Refusal::UnknownChannel));
        assert_eq!(refused(&client, "chat:2").await, Refusal::UnknownChannel);
        assert!(client.subscribe("news:1").await.is_ok());
        with_namespaces(h, vec![Namespace::open("chat")]);
        assert!(publish(h, "chat:1", "2").await.is_ok());
        h.settle().await;
        assert_eq!(client.take_publications(), [json!(2)]);
        client.client.unsubscribe("chat:1").await;
        assert!(client.subscribe("chat:1").await.is_ok());
    });
}

#[test]
fn permissions_and_limits_hold_from_the_next_request() {
    harness::run(open_config(Namespace::open("chat")), async |h| {
        let client = h.probe("user:42").await;
        client.subscribe("chat:1").await.unwrap();
        let publish = async || client.client.publish("chat:1", Payload::json("1".into())).await.map(drop);
        assert_eq!(publish().await, Ok(()));
        let mut config = (*h.node.config()).clone();
        config.namespaces[0].publish = Permission::Nobody;
        config.client.max_channels = 1;
        h.node.reconfigure(config.clone());
        assert_eq!(publish().await, Err(Failure::Refusal(Refusal::PermissionDenied)));
        assert_eq!(refused(&client, "chat:2").await, Refusal::LimitExceeded);
        config.client.max_channels = 2;
        h.node.reconfigure(Config { name: "another".into(), ..config });
        assert!(client.subscribe("chat:2").await.is_ok());
        assert_eq!(h.node.name(), h.node.id(), "the name of a node stays");
    });
}

#[test]
fn a_connection_keeps_the_queue_it_has() {
    harness::run(open_config(Namespace::open("chat")), async |h| {
        let before = h.probe("").await;
        before.subscribe("chat:1").await.unwrap();
        let mut config = (*h.node.config()).clone();
        config.client.queue_size = 99;
        h.node.reconfigure(config);
        let after = h.probe("").await;
        assert_eq!(before.client.presence("chat:1").await.unwrap().len(), 1);
        assert_eq!(after.client.presence("chat:1").await, Err(Refusal::LimitExceeded));
    });
}

#[test]
fn a_client_is_pinged_as_it_was_told() {
    harness::run(open_config(Namespace::open("")), async |h| {
        let before = h.probe("").await;
        let mut config = (*h.node.config()).clone();
        config.client.ping_interval = Duration::from_secs(3600);
        h.node.reconfigure(config);
        let after = h.probe("").await;
        let mut pings = [0, 0];
        for _ in 0..100 {
            h.pass(Duration::from_secs(1)).await;
            for (client, pings) in [&before, &after].into_iter().zip(&mut pings) {
                for _ in client.take().iter().filter(|frame| frame["ping"] == true) {
                    *pings += 1;
                    client.send(fanwire_wire::Message::Pong);
                }
            }
        }
        assert!((3..=8).contains(&pings[0]), "{pings:?}");
        assert_eq!(pings[1], 0);
    });
}
