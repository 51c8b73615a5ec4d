//! Clients that move to other nodes: because theirs goes down, has more than its share, or because they are old.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{Config, DrainConfig, Namespace, Phase};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness, Lan};
use fanwire_wire::cluster::NodeState;
use fanwire_wire::{Channel, Disconnect, Refusal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn config(name: &str) -> Config {
    let namespace = Namespace { presence: true, join_leave: true, ..Namespace::open("") };
    Config { name: name.to_owned(), ..open_config(namespace) }
}

fn drain_config(grace: u64, rate: u32, deadline: u64) -> DrainConfig {
    DrainConfig { grace: Duration::from_secs(grace), rate, deadline: Duration::from_secs(deadline) }
}

/// Runs `test` with three nodes that have found each other.
fn three(test: impl AsyncFnOnce(&Lan, &[Harness; 3])) {
    harness::on_paused_clock(async || {
        let lan = Lan::default();
        let start = |name| Harness::start(config(name), |dispatcher| lan.broker(dispatcher));
        let nodes = [start("a"), start("b"), start("c")];
        nodes[0].settle().await;
        test(&lan, &nodes).await;
    });
}

async fn crowd(harness: &Harness, clients: usize) -> Vec<FakeClient> {
    let mut crowd = Vec::new();
    for _ in 0..clients {
        crowd.push(harness.probe("").await);
    }
    crowd
}

/// Drains the node in the background; the task returns how long that took.
fn drain(harness: &Harness, config: DrainConfig) -> JoinHandle<Duration> {
    let node = Arc::clone(&harness.node);
    tokio::task::spawn_local(async move {
        let start = Instant::now();
        node.drain(&config).await;
        start.elapsed()
    })
}

#[test]
fn a_node_that_goes_down_waits_then_lets_its_clients_go_at_its_rate() {
    harness::run(config(""), async |harness| {
        let clients = crowd(harness, 100).await;
        let gone = || clients.iter().filter(|client| client.is_gone()).count();
        assert_eq!(harness.node.phase(), Phase::Active);
        let draining = drain(harness, drain_config(5, 10, 60));
        harness.pass(4 * SECOND).await;
        assert_eq!((harness.node.phase(), gone()), (Phase::Leaving, 0));
        assert!(harness.node.is_open(), "balancers do not know yet");
        harness.pass(SECOND).await;
        harness.settle().await;
        assert_eq!(harness.node.phase(), Phase::Moving);
        assert!(!harness.node.is_open());
        let mut before = gone();
        while gone() < 100 {
            harness.pass(SECOND).await;
            assert!((1..=10).contains(&(gone() - before)), "{} in a second", gone() - before);
            before = gone();
        }
        harness.pass(3 * SECOND).await;
        let took = draining.await.unwrap();
        assert!((16.0..20.0).contains(&took.as_secs_f64()), "{took:?}");
        assert!(clients.iter().all(|client| client.client.ended() == Some(Disconnect::Shutdown)));
    });
}

#[test]
fn the_deadline_ends_who_is_left() {
    harness::run(config(""), async |harness| {
        let clients = crowd(harness, 100).await;
        let draining = drain(harness, drain_config(1, 1, 11));
        harness.pass(11 * SECOND).await;
        assert_eq!(draining.await.unwrap(), 11 * SECOND);
        let left = clients.iter().filter(|client| !client.is_gone()).count();
        assert!((90..95).contains(&left), "{left}");
        harness.node.shut_down().await;
        assert_eq!((harness.node.phase(), harness.node.connections()), (Phase::Ending, 0));
    });
}

#[test]
fn without_clients_only_the_grace_is_waited() {
    harness::run(config(""), async |harness| {
        let draining = drain(harness, drain_config(5, 1, 60));
        harness.pass(6 * SECOND).await;
        let took = draining.await.unwrap();
        assert!((5.0..5.2).contains(&took.as_secs_f64()), "{took:?}");
    });
}

#[test]
fn who_leaves_is_absent_at_once() {
    harness::run(config(""), async |harness| {
        let channel = Channel::new("room").unwrap();
        let clients = crowd(harness, 20).await;
        for client in &clients {
            client.subscribe("room").await.unwrap();
        }
        let draining = drain(harness, drain_config(0, 10, 60));
        for _ in 0..4 {
            harness.pass(SECOND / 2).await;
            let open = clients.iter().filter(|client| !client.is_gone()).count();
            assert_eq!(harness.node.members(&channel).await.unwrap().len(), open);
        }
        harness.pass(5 * SECOND).await;
        draining.await.unwrap();
        assert_eq!(harness.node.members(&channel).await.unwrap(), []);
    });
}

#[test]
fn a_node_is_told_by_another_one_to_go_down() {
    three(async |lan, [a, b, c]| {
        a.node.drain_node(b.node.id()).await.unwrap();
        assert_eq!([a, b, c].map(|harness| harness.node.phase()), [Phase::Active, Phase::Leaving, Phase::Active]);
        b.node.reaches(Phase::Leaving).await;
        let draining = drain(b, drain_config(1, 10, 60));
        a.settle().await;
        let states: Vec<_> = a.node.nodes().await.into_iter().map(|node| (node.info.name, node.info.state)).collect();
        assert!(states.contains(&("b".to_owned(), NodeState::Draining)), "{states:?}");
        a.pass(2 * SECOND).await;
        draining.await.unwrap();

        a.node.drain_node(a.node.id()).await.unwrap();
        assert_eq!(a.node.phase(), Phase::Leaving);
        lan.unplug(c.node.id());
        assert_eq!(a.node.drain_node(c.node.id()).await, Err(Refusal::OutcomeUnknown));
        assert_eq!(c.node.phase(), Phase::Active);
    });
}

#[test]
fn only_what_is_above_the_mean_moves() {
    three(async |_, [a, b, c]| {
        let crowds = [crowd(a, 40).await, crowd(b, 11).await, crowd(c, 3).await];
        let open = || crowds.each_ref().map(|crowd| crowd.iter().filter(|client| !client.is_gone()).count());
        let begun = b.node.rebalance(10.0).await.unwrap();
        assert_eq!((begun.keep, begun.missing.is_empty()), (18, true));
        let mut moving: Vec<_> = begun.nodes.into_iter().map(|(node, moving)| (node.info.name, moving)).collect();
        moving.sort();
        assert_eq!(moving, [("a".to_owned(), 22), ("b".to_owned(), 0), ("c".to_owned(), 0)]);
        let mut before = 40;
        for _ in 0..2 {
            b.pass(SECOND).await;
            assert!((7..=10).contains(&(before - open()[0])), "{} in a second", before - open()[0]);
            before = open()[0];
        }
        b.pass(5 * SECOND).await;
        assert_eq!(open(), [18, 11, 3]);
        let ended: Vec<_> = crowds[0].iter().filter_map(|client| client.client.ended()).collect();
        assert_eq!(ended, vec![Disconnect::ForceReconnect; 22]);
    });
}

#[test]
fn where_several_nodes_have_more_they_share_the_rate() {
    three(async |_, [a, b, _c]| {
        let crowds = [crowd(a, 60).await, crowd(b, 60).await];
        let gone = || crowds.iter().flatten().filter(|client| client.is_gone()).count();
        a.node.rebalance(10.0).await.unwrap();
        let mut before = 0;
        for _ in 0..3 {
            a.pass(SECOND).await;
            assert!((6..=10).contains(&(gone() - before)), "{} in a second", gone() - before);
            before = gone();
        }
        // What begins later takes its place, and a node that goes down has other worries.
        a.node.rebalance(1000.0).await.unwrap();
        a.node.begin_drain();
        a.pass(SECOND).await;
        let left = crowds.each_ref().map(|crowd| crowd.iter().filter(|client| !client.is_gone()).count());
        assert!(left[0] > 40 && left[1] < 40, "{left:?}");
    });
}

#[test]
fn the_nodes_that_go_down_do_not_count() {
    three(async |_, [a, b, c]| {
        let _crowds = [crowd(a, 10).await, crowd(b, 20).await];
        c.node.begin_drain();
        let begun = a.node.rebalance(10.0).await.unwrap();
        assert_eq!((begun.keep, begun.nodes.len()), (15, 2));
    });
}

#[test]
fn connections_live_for_a_lifetime_and_do_not_end_together() {
    let mut config = config("");
    config.client.lifetime = 100 * SECOND;
    harness::run(config, async |harness| {
        let clients = crowd(harness, 100).await;
        let gone = || clients.iter().filter(|client| client.is_gone()).count();
        // They answer every ping; an answer to none is refused, and nothing more.
        let alive = async |seconds: u32| {
            for _ in 0..seconds {
                clients.iter().filter(|client| !client.is_gone()).for_each(|client| drop(client.client.pong()));
                harness.pass(SECOND).await;
            }
        };
        alive(74).await;
        assert_eq!(gone(), 0);
        let mut before = 0;
        for _ in 0..5 {
            alive(5).await;
            assert!((5..=45).contains(&(gone() - before)), "{} in five seconds", gone() - before);
            before = gone();
        }
        alive(4).await;
        assert_eq!(gone(), 100);
        assert!(clients.iter().all(|client| client.client.ended() == Some(Disconnect::ForceReconnect)));
    });
}
