//! Thousands who come at once, and what Redis notices of it.

use std::rc::Rc;
use std::time::Duration;

use fanwire_node::{Config, Dispatcher, HistoryRequest, Namespace, Publish, Recovery, SubscribeRequest, Subscribed};
use fanwire_testkit::harness::open_config;
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, Payload, Position};
use futures_util::future::join_all;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::server::Server;

const CLIENTS: usize = 5000;
const CHANNELS: usize = 10;
const KEPT: u64 = 50;

#[tokio::test]
async fn those_who_come_back_cost_a_few_reads() {
    let server = Server::start().await;
    LocalSet::new()
        .run_until(async {
            let (publisher, node) = (start(&server).await, start(&server).await);
            let mut starts = Vec::new();
            for channel in 0..CHANNELS {
                starts.push(stand(&publisher, channel).await);
                for n in 1..=KEPT {
                    publish(&publisher, channel, n).await;
                }
            }

            // They were on a node that is gone, and nobody is on this one yet.
            let mut clients = connect(&node, CLIENTS).await;
            let reads = reads_of(&server).await;
            let live = async {
                for n in 1..=20 {
                    for channel in 0..CHANNELS {
                        publish(&publisher, channel, KEPT + n).await;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            };
            let since = |n: usize| Position { offset: n as u64 % KEPT, ..starts[n % CHANNELS].clone() };
            let coming = clients.iter().enumerate().map(|(n, client)| come(client, n % CHANNELS, Some(since(n))));
            let (answers, ()) = tokio::join!(join_all(coming), live);
            let cold = reads_of(&server).await - reads;
            // What is not in the answer comes behind it.
            let end = KEPT + 20;
            let mut seen: Vec<Vec<u64>> = answers.iter().map(recovered).collect();
            until(async || {
                for (client, seen) in clients.iter().zip(&mut seen) {
                    seen.extend(client.take_publications().iter().filter_map(serde_json::Value::as_u64));
                }
                seen.iter().all(|seen| seen.last() == Some(&end))
            })
            .await;
            for (n, seen) in seen.iter().enumerate() {
                assert!(seen.iter().copied().eq(since(n).offset + 1..=end), "client {n}: {seen:?}");
            }

            // Again, to a node that has just delivered what they missed. One that a busy machine keeps from hearing Redis asks it
            // once for each channel.
            clients.drain(CHANNELS..).for_each(|gone| gone.leave());
            let mut warm = u64::MAX;
            for _ in 0..5 {
                let again = connect(&node, CLIENTS).await;
                let reads = reads_of(&server).await;
                let coming = again.iter().enumerate().map(|(n, client)| come(client, n % CHANNELS, Some(since(n))));
                for (n, answer) in join_all(coming).await.iter().enumerate() {
                    assert!(recovered(answer).iter().copied().eq(since(n).offset + 1..=end), "client {n}");
                }
                warm = reads_of(&server).await - reads;
                assert!(warm <= CHANNELS as u64, "{warm} reads on a warm node");
                again.iter().for_each(FakeClient::leave);
                if warm == 0 {
                    break;
                }
            }
            println!(
                "{CLIENTS} clients come back to {CHANNELS} channels: {cold} reads on a cold node, {warm} on a warm one"
            );
            assert!(cold <= 60, "{cold} reads");
            assert_eq!(warm, 0);
        })
        .await;
}

#[tokio::test]
async fn those_who_come_new_cost_a_few_reads() {
    let server = Server::start().await;
    LocalSet::new()
        .run_until(async {
            let node = start(&server).await;
            let clients = connect(&node, CLIENTS).await;
            let reads = reads_of(&server).await;
            let coming = clients.iter().enumerate().map(|(n, client)| come(client, n % CHANNELS, None));
            join_all(coming).await;
            let reads = reads_of(&server).await - reads;
            println!("{CLIENTS} clients come new to {CHANNELS} channels: {reads} reads");
            assert!(reads <= 2 * CHANNELS as u64, "{reads} reads");
        })
        .await;
}

#[tokio::test]
async fn those_who_are_too_late_cost_a_few_reads() {
    let server = Server::start().await;
    LocalSet::new()
        .run_until(async {
            let (publisher, node) = (start(&server).await, start(&server).await);
            let mut starts = Vec::new();
            for channel in 0..CHANNELS {
                starts.push(stand(&publisher, channel).await);
                publish(&publisher, channel, 1).await;
                publish(&publisher, channel, 2).await;
            }
            let clients = connect(&node, CLIENTS).await;
            server.ask(&["FLUSHALL"]).await;
            let reads = reads_of(&server).await;
            let since = |n: usize| Position { offset: n as u64 % 3, ..starts[n % CHANNELS].clone() };
            let coming = clients.iter().enumerate().map(|(n, client)| come(client, n % CHANNELS, Some(since(n))));
            for answer in join_all(coming).await {
                assert_eq!(answer.recovery, Some(Recovery::Failed));
            }
            let reads = reads_of(&server).await - reads;
            println!("{CLIENTS} clients come too late to {CHANNELS} channels: {reads} reads");
            assert!(reads <= 100, "{reads} reads");
        })
        .await;
}

async fn start(server: &Server) -> Harness {
    let dispatcher = Dispatcher::new(1);
    let redis = fanwire_redis::start(&server.config("fanwire"), dispatcher.clone()).expect("a good address");
    let harness = Harness::with_dispatcher(config(), dispatcher, Box::new(redis.broker));
    until(async || redis.health.is_up()).await;
    harness
}

fn config() -> Config {
    open_config(Namespace { join_leave: false, presence: false, history_size: 1000, ..Namespace::open("") })
}

async fn connect(node: &Harness, count: usize) -> Vec<FakeClient> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(node.probe("").await);
    }
    clients
}

/// Subscribes; an answer that it is to be tried again is one.
async fn come(client: &FakeClient, channel: usize, since: Option<Position>) -> Subscribed {
    let client = Rc::clone(&client.client);
    let request = SubscribeRequest { channel: name(channel), since, ..SubscribeRequest::default() };
    let coming = tokio::task::spawn_local(async move { client.subscribe(request).await });
    coming.await.expect("no panic").expect("anyone may subscribe")
}

fn recovered(subscribed: &Subscribed) -> Vec<u64> {
    let Some(Recovery::Complete(publications)) = &subscribed.recovery else { panic!("not recovered: {subscribed:?}") };
    publications.iter().filter_map(|publication| publication.stamp.as_ref()).map(|s| s.position.offset).collect()
}

async fn stand(node: &Harness, channel: usize) -> Position {
    node.node.history(&self::channel(channel), HistoryRequest::default()).await.expect("read").top
}

async fn publish(node: &Harness, channel: usize, n: u64) {
    let publish = Publish::new(self::channel(channel), Payload::json(n.to_string().into()));
    let position = node.node.publish(publish).await.expect("published").position.expect("kept");
    assert_eq!(position.offset, n, "the data is the offset");
}

/// The calls that are no publications, by Redis's own account: those read streams and their positions.
async fn reads_of(server: &Server) -> u64 {
    server.calls("fcall").await + server.calls("evalsha").await - server.calls("xadd").await
}

async fn until(mut wanted: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !wanted().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.expect("in time");
}

fn channel(n: usize) -> Channel {
    Channel::new(&name(n)).expect("a good name")
}

fn name(n: usize) -> String {
    format!("c{n}")
}
