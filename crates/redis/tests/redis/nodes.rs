//! Nodes hear each other through a real Redis.

use std::time::Duration;

use fanwire_node::{ChannelQuery, Config, ConnectRequest, Dispatcher, Missing, Namespace, Selection};
use fanwire_testkit::Harness;
use fanwire_testkit::harness::open_config;
use fanwire_wire::{Channel, Disconnect, Refusal};
use serde_json::json;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::server::cluster::Cluster;
use crate::server::{Server, words};

fn node(redis: &fanwire_redis::Config, name: &str) -> Harness {
    let dispatcher = Dispatcher::new(1);
    let redis = fanwire_redis::start(redis, dispatcher.clone()).expect("a good address");
    let config = Config { name: name.to_owned(), ..open_config(Namespace::open("")) };
    Harness::with_dispatcher(config, dispatcher, Box::new(redis.broker))
}

async fn names(harness: &Harness) -> Vec<String> {
    let mut names: Vec<_> = harness.node.nodes().await.into_iter().map(|node| node.info.name).collect();
    names.sort();
    names
}

/// Waits until a node sees these nodes.
async fn until_seen(harness: &Harness, expected: &[&str]) {
    let seen = async {
        while names(harness).await != expected {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(20), seen).await.is_ok();
    assert!(in_time, "{:?} and not {expected:?}", names(harness).await);
}

fn user(id: &str) -> Selection {
    Selection { user: id.to_owned(), ..Selection::default() }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work).await.expect("in time")
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn one_server() {
    let server = Server::start().await;
    run(async {
        let nodes = three(&server.config("fanwire")).await;
        questions_reach_all(&nodes).await;
    })
    .await;
}

#[tokio::test]
async fn several_servers() {
    let mut servers = [Server::start().await, Server::start().await];
    let urls = servers.iter().map(Server::url).collect();
    let config = fanwire_redis::Config { urls, ..servers[0].config("fanwire") };
    run(async {
        let nodes = three(&config).await;
        questions_reach_all(&nodes).await;
        servers[1].kill();
        // The first one carries what nodes say.
        assert_eq!(nodes[0].node.refresh(user("42"), None).await, Ok(Missing::default()));
    })
    .await;
}

#[tokio::test]
async fn a_cluster_and_a_slot_that_moves() {
    let cluster = Cluster::start(3, 0).await;
    run(async {
        let nodes = three(&cluster.config("fanwire")).await;
        questions_reach_all(&nodes).await;
        // The one with the number 0, as a session names it.
        let tag = "14";
        let slot = words(&cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", tag]).await).parse().expect("a slot");
        let from = cluster.primary_of(slot, 0).await;
        let name = format!("fanwire:{{{tag}}}:nodes");
        let listening = async |server: usize| {
            words(&cluster.nodes[server].ask(&["PUBSUB", "SHARDNUMSUB", &name]).await) == format!("{name} 3")
        };
        assert!(listening(from).await, "the nodes listen where the test believes");
        for to in [(from + 1) % 3, from] {
            cluster.migrate(slot, cluster.primary_of(slot, 0).await, to).await;
            within(async {
                while !listening(to).await {
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
            questions_reach_all(&nodes).await;
        }
    })
    .await;
}

#[tokio::test]
async fn revocations_are_kept_for_nodes_that_come_later() {
    let server = Server::start().await;
    run(async { revocations(&server.config("fanwire")).await }).await;
    let entries = words(&server.ask(&["XLEN", "fanwire:revocations"]).await);
    assert_eq!(entries, "2");
    let ttl: u64 = words(&server.ask(&["PTTL", "fanwire:revocations"]).await).parse().expect("a number");
    assert!(ttl > 6 * 24 * 3_600_000, "{ttl}");
}

#[tokio::test]
async fn revocations_are_kept_in_a_cluster() {
    let cluster = Cluster::start(3, 0).await;
    run(async { revocations(&cluster.config("fanwire")).await }).await;
}

/// What Redis forgets, nodes remember; and they hear of what comes behind it.
#[tokio::test]
async fn revocations_survive_a_redis_that_forgets() {
    let server = Server::start().await;
    run(async {
        let config = server.config("fanwire");
        let nodes = [node(&config, "a"), node(&config, "b")];
        until_seen(&nodes[0], &["a", "b"]).await;
        revoke(&nodes[0], "ann").await;
        within(until_refused(&nodes[1], "user:ann;age=60")).await;
        server.ask(&["FLUSHALL"]).await;
        // As an operator might, by hand, or a node that nobody hears.
        let before = (fanwire_node::clock::unix_ms() / 1000).to_string();
        server.ask(&["XADD", "fanwire:revocations", "1-1", "u", "bob", "b", &before]).await;
        for token in ["user:bob;age=60", "user:ann;age=60"] {
            within(until_refused(&nodes[0], token)).await;
            within(until_refused(&nodes[1], token)).await;
        }
    })
    .await;
}

async fn revocations(config: &fanwire_redis::Config) {
    let nodes = [node(config, "a"), node(config, "b")];
    until_seen(&nodes[0], &["a", "b"]).await;
    let old = nodes[1].probe("user:ann;age=60").await;
    revoke(&nodes[0], "ann").await;
    assert_eq!(old.client.ended(), Some(Disconnect::StateInvalidated), "done when it is answered");
    revoke(&nodes[1], "bob").await;
    let late = node(config, "late");
    for token in ["user:ann;age=60", "user:bob"] {
        within(until_refused(&late, token)).await;
        until_refused(&nodes[0], token).await;
    }
    late.probe("user:carl;age=60").await;
}

async fn revoke(node: &Harness, user: &str) {
    let before = fanwire_node::clock::unix_ms() / 1000 - 30;
    assert_eq!(node.node.revoke(user, before).await, Ok(Missing::default()));
}

async fn until_refused(node: &Harness, token: &str) {
    loop {
        let client = node.probe_unconnected("");
        let request = ConnectRequest { token: token.to_owned(), ..ConnectRequest::default() };
        match client.client.connect(request).await {
            Err(failure) => return assert_eq!(failure, Refusal::TokenExpired.into()),
            Ok(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Three nodes that see each other.
async fn three(redis: &fanwire_redis::Config) -> [Harness; 3] {
    let nodes = ["a", "b", "c"].map(|name| node(redis, name));
    for node in &nodes {
        until_seen(node, &["a", "b", "c"]).await;
    }
    nodes
}

async fn questions_reach_all(nodes: &[Harness; 3]) {
    let [a, b, c] = nodes;
    let [near, far] = [b.probe("user:42").await, c.probe("user:42").await];
    let news = Channel::new("news").expect("a good name");
    for client in [&near, &far] {
        client.subscribe("news").await.expect("anyone may subscribe");
    }
    let all = ChannelQuery { patterns: vec!["*".to_owned()], after: None, limit: 100 };
    let survey = a.node.survey_channels(all).await.expect("asked");
    assert_eq!((survey.channels, survey.missing), (vec![(news.clone(), 2)], Missing::default()));
    let survey = a.node.survey_nodes().await.expect("asked");
    assert_eq!(survey.nodes.iter().map(|node| node.info.clients).sum::<u64>(), 2);

    assert_eq!(a.node.unsubscribe(user("42"), news).await, Ok(Missing::default()));
    for client in [&near, &far] {
        assert_eq!(client.take().pop(), Some(json!({"unsubscribed": "news", "code": 2000})));
    }
    assert_eq!(a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await, Ok(Missing::default()));
    for client in [&near, &far] {
        assert_eq!(client.client.ended(), Some(Disconnect::ForceDisconnect), "done when it is answered");
    }
}

#[tokio::test]
async fn nodes_find_each_other_again_after_an_outage() {
    let mut server = Server::start().await;
    run(async {
        let nodes = ["a", "b"].map(|name| node(&server.config("fanwire"), name));
        for node in &nodes {
            until_seen(node, &["a", "b"]).await;
        }
        let [a, b] = &nodes;
        let [near, far] = [a.probe("user:42").await, b.probe("user:42").await];
        server.kill();
        // Long enough to be forgotten.
        for (node, name) in nodes.iter().zip(["a", "b"]) {
            until_seen(node, &[name]).await;
        }
        let began = Instant::now();
        let refused = a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await;
        assert_eq!(refused, Err(Refusal::OutcomeUnknown));
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!((near.client.ended(), far.client.ended()), (Some(Disconnect::ForceDisconnect), None));
        assert!(a.node.survey_nodes().await.expect("asked").missing.unasked);
        server.run().await;
        for node in &nodes {
            until_seen(node, &["a", "b"]).await;
        }
        assert_eq!(a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await, Ok(Missing::default()));
        assert_eq!(far.client.ended(), Some(Disconnect::ForceDisconnect));
    })
    .await;
}

/// The node's id is the word under which Redis knows it.
#[tokio::test]
async fn a_node_has_one_id() {
    let server = Server::start().await;
    run(async {
        let dispatcher = Dispatcher::new(1);
        let _redis = fanwire_redis::start(&server.config("fanwire"), dispatcher.clone()).expect("a good address");
        let id = dispatcher.node();
        let listening = async |name: String| {
            let answer = server.ask(&["PUBSUB", "NUMSUB", &name]).await;
            matches!(answer, redis::Value::Array(items) if items.last() == Some(&redis::Value::Int(1)))
        };
        within(async {
            for name in [format!("fanwire:node:{id}"), format!("fanwire:proof:{id}"), "fanwire:nodes".to_owned()] {
                while !listening(name.clone()).await {
                    sleep(Duration::from_millis(5)).await;
                }
            }
            while server.ask(&["HEXISTS", "fanwire:signs", id]).await != redis::Value::Int(1) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    })
    .await;
}
