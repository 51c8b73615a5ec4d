//! The control plane over a real node with fake connections.

mod access;
mod audit;
mod batch;
mod channels;
mod clients;
mod cluster;
mod conditions;
mod grpc;
mod health;
mod keys;
mod publish;
mod publish_stream;
mod reflection;
mod reload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_control::{Api, ApiKey, Audit, Keys};
use fanwire_node::{ClientConfig, Config, Namespace};
use fanwire_testkit::{Harness, harness};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

const SECRET: &str = "0123456789abcdef";

/// Runs `test` with a control plane whose key is [`SECRET`]. Namespaces: `""` with everything on, `bare` with nothing,
/// `cheap` with a position but no recovery.
fn run(test: impl AsyncFnOnce(&Harness, &Api)) {
    let namespaces = vec![
        Namespace::open(""),
        Namespace { name: "bare".into(), ..Namespace::default() },
        Namespace { history_size: 3, history_ttl: Duration::from_secs(60), ..bare("cheap") },
    ];
    let client = ClientConfig { anonymous: true, expiry_grace: Duration::from_secs(1), ..ClientConfig::default() };
    let config = Config { client, namespaces, ..Config::default() };
    harness::run(config, async |harness| {
        let api = Api::new(Arc::clone(&harness.node), &keys(), Audit::All);
        test(harness, &api).await;
    });
}

fn bare(name: &str) -> Namespace {
    Namespace { name: name.into(), ..Namespace::default() }
}

fn keys() -> Keys {
    Keys::load(&[ApiKey { name: "backend".into(), secret: Some(SECRET.into()), ..ApiKey::default() }])
        .expect("a good key")
}

/// A request with the key.
fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::builder().method(method).uri(path).header("X-API-Key", SECRET).body(body.into()).expect("a request")
}

/// Posts a body as it is; returns status and answer.
async fn post(api: &Api, path: &str, body: &str) -> (StatusCode, Value) {
    let response = api.handle(request(Method::POST, path, body.to_owned())).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    (response.status(), answer(&response))
}

/// Calls a method; returns its answer, which has status 200.
async fn call(api: &Api, method: &str, params: Value) -> Value {
    let (status, answer) = post(api, &format!("/api/{method}"), &params.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

/// Calls a method that works; returns its result.
async fn result(api: &Api, method: &str, params: Value) -> Value {
    let mut answer = call(api, method, params).await;
    let result = answer["result"].take();
    assert!(result.is_object(), "{method}: {answer}");
    result
}

/// Calls a method that fails; returns the code, once the message has been seen to hold `word`.
async fn error(api: &Api, method: &str, params: Value, word: &str) -> u64 {
    let answer = call(api, method, params).await;
    let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{method}: {answer}"));
    assert!(message.contains(word), "{message:?} does not say {word:?}");
    answer["error"]["code"].as_u64().expect("a code")
}

fn answer(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).expect("an answer in JSON")
}

#[test]
fn info_counts_what_the_node_has() {
    run(async |harness, api| {
        let one = harness.probe("user:42").await;
        let _two = harness.probe("user:42").await;
        let _nobody = harness.probe("").await;
        one.subscribe("a").await.unwrap();
        one.subscribe("b").await.unwrap();
        harness.pass(Duration::from_secs(5)).await;
        result(api, "publish", json!({"channel": "a", "data": 1})).await;
        let mut info = result(api, "info", json!({})).await;
        let id = harness.node.id();
        // How many bytes a delivery has is for its protocol to say, how long it took for the machine.
        for measured in ["delivered_bytes", "median_us", "p99_us"] {
            let measured = info["nodes"][0].as_object_mut().unwrap().remove(measured);
            assert!(measured.is_some_and(|number| number.is_u64()));
        }
        let expected = json!({"nodes": [{
            "uid": id, "name": id, "version": env!("CARGO_PKG_VERSION"),
            "num_clients": 3, "num_users": 2, "num_subs": 2, "num_channels": 2, "uptime": 5,
            "num_workers": 1, "state": "active", "age_ms": 0,
            // The joins of one client to two channels are deliveries, too.
            "publications": 1, "deliveries": 3, "waiting_bytes": 0,
        }]});
        assert_eq!(info, expected);
        let mut nodes = result(api, "nodes", json!({})).await;
        for measured in ["delivered_bytes", "median_us", "p99_us"] {
            nodes["nodes"][0].as_object_mut().unwrap().remove(measured);
        }
        assert_eq!(nodes, expected, "a node knows the same of itself without asking");
    });
}
