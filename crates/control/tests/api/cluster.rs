//! The same calls in a cluster: what they say about nodes that do not answer.

use std::time::Duration;

use fanwire_node::Phase;
use fanwire_testkit::Lan;
use fanwire_testkit::harness::{on_paused_clock, open_config};

use super::*;

/// Runs `test` with the control plane of one of two nodes.
fn run_two(test: impl AsyncFnOnce(&Lan, &Api, &[Harness; 2])) {
    on_paused_clock(async || {
        let lan = Lan::default();
        let start = |name: &str| {
            let config = Config { name: name.to_owned(), ..open_config(Namespace::open("")) };
            Harness::start(config, |dispatcher| lan.broker(dispatcher))
        };
        let nodes = [start("one"), start("two")];
        nodes[0].settle().await;
        let api = Api::new(Arc::clone(&nodes[0].node), &keys(), Audit::All);
        test(&lan, &api, &nodes).await;
    });
}

const COMMANDS: [&str; 4] = ["subscribe", "unsubscribe", "refresh", "disconnect"];

#[test]
fn one_node_answers_for_all() {
    run_two(async |_, api, [one, two]| {
        let client = two.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        let channels = result(api, "channels", json!({"pattern": "n*"})).await;
        assert_eq!(channels, json!({"channels": {"news": {"num_clients": 1}}}));
        let connections = result(api, "connections", json!({"user": "42"})).await;
        let expected = json!({"client": client.client.id(), "user": "42", "node": two.node.id(), "protocol": "probe", "num_subs": 1});
        assert_eq!(connections, json!({"connections": [expected]}));
        let mut info = result(api, "info", json!({})).await;
        assert_eq!(info.as_object().unwrap().len(), 1, "an answer that lacks nothing says nothing of it");
        let nodes = info["nodes"].as_array_mut().unwrap();
        let seen: Vec<_> = nodes.iter().map(|node| (&node["name"], &node["uid"], &node["num_clients"])).collect();
        let expected = [("one", one.node.id(), 0), ("two", two.node.id(), 1)];
        let expected = expected.map(|(name, id, clients)| (json!(name), json!(id), json!(clients)));
        assert_eq!(seen, expected.each_ref().map(|(name, id, clients)| (name, id, clients)));
        for method in COMMANDS {
            assert_eq!(result(api, method, json!({"user": "42", "channel": "gift"})).await, json!({}));
        }
        assert!(client.is_gone());
    });
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    run_two(async |lan, api, [_, two]| {
        let client = two.probe("user:42").await;
        lan.unplug(two.node.id());
        let id = two.node.id();
        for method in COMMANDS {
            let done = result(api, method, json!({"user": "42", "channel": "gift"})).await;
            assert_eq!(done, json!({"silent": [id]}), "{method}");
        }
        assert!(!client.is_gone());
        assert_eq!(result(api, "channels", json!({})).await, json!({"channels": {}, "silent": [id]}));
        let info = result(api, "info", json!({})).await;
        assert_eq!(info["silent"], json!([id]));
        let node = &info["nodes"][1];
        assert_eq!((&node["uid"], &node["state"]), (&json!(id), &json!("silent")));
        assert!(node["age_ms"].as_u64().unwrap() >= 3000, "{node}");
    });
}

#[test]
fn without_the_broker_a_command_says_how_far_it_came() {
    run_two(async |_, api, [one, two]| {
        let [near, far] = [one.probe("user:42").await, two.probe("user:42").await];
        one.faults.go_down();
        for method in COMMANDS {
            let params = json!({"user": "42", "channel": "gift"});
            assert_eq!(error(api, method, params, "done on this node").await, 504, "{method}");
        }
        one.settle().await;
        assert!(near.is_gone() && !far.is_gone());
        for method in ["info", "channels"] {
            assert_eq!(result(api, method, json!({})).await["unasked"], json!(true));
        }
    });
}

#[test]
fn a_node_is_let_go_by_its_id_or_its_name() {
    run_two(async |lan, api, [one, two]| {
        let _client = two.probe("user:42").await;
        error(api, "drain", json!({"node": "three"}), "no node \"three\"").await;
        two.pass(Duration::from_secs(4)).await;
        let drained = result(api, "drain", json!({"node": "two"})).await;
        assert_eq!(drained, json!({"uid": two.node.id(), "name": "two", "num_clients": 1}));
        assert_eq!((one.node.phase(), two.node.phase()), (Phase::Active, Phase::Leaving));
        let again = result(api, "drain", json!({"node": two.node.id()})).await;
        assert_eq!(again["name"], "two", "it is said twice and done once");
        let namesake =
            Harness::start(Config { name: "two".to_owned(), ..open_config(Namespace::open("")) }, |dispatcher| {
                lan.broker(dispatcher)
            });
        namesake.settle().await;
        error(api, "drain", json!({"node": "two"}), "give the uid").await;
        assert_eq!(namesake.node.phase(), Phase::Active);
        assert_eq!(result(api, "drain", json!({})).await["uid"], one.node.id());
        assert_eq!(one.node.phase(), Phase::Leaving);
    });
}

#[test]
fn clients_are_evened_out() {
    run_two(async |_, api, [one, two]| {
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(two.probe("").await);
        }
        for rate in [json!(0), json!(-1), json!(1e7)] {
            error(api, "rebalance", json!({ "rate": rate }), "rate must be").await;
        }
        let begun = result(api, "rebalance", json!({"rate": 10})).await;
        let [one, two_id] = [one.node.id(), two.node.id()];
        let expected = json!({"keep": 3, "nodes": [
            {"uid": one, "name": "one", "num_clients": 0, "moving": 0},
            {"uid": two_id, "name": "two", "num_clients": 5, "moving": 2},
        ]});
        assert_eq!(begun, expected);
        two.pass(Duration::from_secs(2)).await;
        assert_eq!(clients.iter().filter(|client| client.is_gone()).count(), 2);
    });
}
