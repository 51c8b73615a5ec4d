//! A node that hands its clients over: a few at a time, and only as long as it must.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Namespace;
use fanwire_testkit::harness::{self, open_config};
use fanwire_wire::Disconnect;

#[test]
fn clients_are_asked_over_half_a_minute() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let mut clients = Vec::new();
        for _ in 0..300 {
            clients.push(harness.probe("").await);
        }
        let node = Arc::clone(&harness.node);
        let handing_over = tokio::task::spawn_local(async move { node.hand_over().await });
        harness.settle().await;
        assert!(!harness.node.is_open());
        let mut gone = 0;
        for second in 1..=10 {
            harness.pass(Duration::from_secs(1)).await;
            let now = clients.iter().filter(|client| client.is_gone()).count();
            assert!((5..=15).contains(&(now - gone)), "{} in second {second}", now - gone);
            gone = now;
        }
        // The reason for it is gone.
        handing_over.abort();
        harness.pass(Duration::from_secs(5)).await;
        assert!(harness.node.is_open());
        assert_eq!(clients.iter().filter(|client| client.is_gone()).count(), gone, "the rest stays");
        let ended: Vec<_> = clients.iter().filter_map(|client| client.client.ended()).collect();
        assert_eq!(ended, vec![Disconnect::ForceReconnect; gone]);
    });
}

#[test]
fn the_last_one_is_asked_too() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let client = harness.probe("").await;
        let node = Arc::clone(&harness.node);
        tokio::task::spawn_local(async move { node.hand_over().await });
        harness.pass(Duration::from_secs(32)).await;
        assert!(client.is_gone());
        assert_eq!(harness.node.connections(), 0);
    });
}
