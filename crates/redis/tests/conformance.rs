//! The broker and the presence over Redis do what every one must.

#![allow(dead_code, reason = "each test uses a part of the server")]

mod server;

use std::cell::Cell;
use std::sync::Arc;

use fanwire_node::Dispatcher;
use fanwire_testkit::conformance;
use server::Server;
use tokio::task::LocalSet;

#[tokio::test]
async fn redis_broker() {
    let server = Server::start().await;
    suite(&server).await;
}

/// A server on which functions are not permitted.
#[tokio::test]
async fn redis_broker_with_scripts() {
    let server = Server::start_with(&["--save", "", "--rename-command", "FUNCTION", ""]).await;
    suite(&server).await;
    assert!(server.calls("evalsha").await > 0 && server.calls("fcall").await == 0, "scripts were run");
}

async fn suite(server: &Server) {
    let case = Cell::new(0);
    let make = async |dispatcher| {
        case.set(case.get() + 1);
        fanwire_redis::start(&server.config(&format!("case{}", case.get())), dispatcher).expect("a good address").broker
    };
    LocalSet::new().run_until(conformance::broker(make)).await;
}

#[tokio::test]
async fn redis_broker_of_two_nodes() {
    let server = Server::start().await;
    let make =
        async |dispatcher| fanwire_redis::start(&server.config("two"), dispatcher).expect("a good address").broker;
    LocalSet::new().run_until(conformance::broker_of_two(make)).await;
}

#[tokio::test]
async fn redis_presence() {
    let server = Server::start().await;
    presence_suite(&server).await;
}

#[tokio::test]
async fn redis_presence_with_scripts() {
    let server = Server::start_with(&["--save", "", "--rename-command", "FUNCTION", ""]).await;
    presence_suite(&server).await;
    assert!(server.calls("evalsha").await > 0 && server.calls("fcall").await == 0, "scripts were run");
}

async fn presence_suite(server: &Server) {
    let make = async |prefix: &str, dispatcher: Arc<Dispatcher>| {
        let redis = fanwire_redis::start(&server.config(prefix), dispatcher).expect("a good address");
        let pair: conformance::Pair = (Box::new(redis.broker), Arc::new(redis.presence));
        pair
    };
    let local = LocalSet::new();
    local.run_until(conformance::presence(async |dispatcher| make("one", dispatcher).await)).await;
    local.run_until(conformance::presence_of_two(async |dispatcher| make("two", dispatcher).await)).await;
}
