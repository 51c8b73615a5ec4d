//! Several workers on threads of their own: one order per channel for all.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::protocol::Opening;
use fanwire_node::{
    ChannelQuery, Counts, Dispatcher, MemoryBroker, MemoryPresence, Namespace, Node, Parts, Publish, Selection, Worker,
};
use fanwire_testkit::harness::open_config;
use fanwire_testkit::{FakeClient, Probe, TokenBook};
use fanwire_wire::{Channel, Disconnect, Payload};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

const WORKERS: usize = 3;
const CLIENTS: usize = 4;
const PUBLISHERS: usize = 4;
const EACH: usize = 300;
const CHANNELS: [&str; 2] = ["a", "b"];

/// A test that hangs is a test that failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn one_order_for_all_workers() {
    let dispatcher = Dispatcher::new(WORKERS);
    let node = Node::new(Parts {
        config: open_config(Namespace { history_size: 10_000, ..Namespace::open("") }),
        dispatcher: Arc::clone(&dispatcher),
        broker: Box::new(MemoryBroker::new(Arc::clone(&dispatcher))),
        presence: Box::new(MemoryPresence::new(dispatcher)),
        authorizer: Box::new(TokenBook),
        hooks: None,
    });
    let (ready, mut are_ready) = mpsc::channel(WORKERS);
    let (results, mut collected) = mpsc::channel(WORKERS);
    let (stop, stopped) = watch::channel(false);
    std::thread::scope(|scope| {
        for index in 0..WORKERS {
            let (node, ready, results, stopped) = (Arc::clone(&node), ready.clone(), results.clone(), stopped.clone());
            scope.spawn(move || {
                let runtime = Builder::new_current_thread().enable_time().build().unwrap();
                LocalSet::new().block_on(&runtime, work(&node, index, ready, results, stopped));
            });
        }
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            for _ in 0..WORKERS {
                timeout(PATIENCE, are_ready.recv()).await.unwrap().unwrap();
            }
            let clients = WORKERS * CLIENTS;
            let counts = Counts { clients, users: CLIENTS, channels: 2, subscriptions: 2 * clients };
            assert_eq!(node.counts().await, counts);
            let all = ChannelQuery { patterns: vec!["*".to_owned()], after: None, limit: 100 };
            let listed = node.survey_channels(all).await.unwrap().channels;
            assert_eq!(listed, CHANNELS.map(|name| (channel(name), clients as u64)));
            let publishers = (0..PUBLISHERS).map(|publisher| tokio::spawn(publish(Arc::clone(&node), publisher)));
            for publisher in publishers.collect::<Vec<_>>() {
                publisher.await.unwrap();
            }
            let mut first: Option<[Vec<Value>; 2]> = None;
            for _ in 0..WORKERS {
                let seen: Vec<[Vec<Value>; 2]> = timeout(PATIENCE, collected.recv()).await.unwrap().unwrap();
                for client in seen {
                    assert_eq!(client[0].len(), PUBLISHERS * EACH);
                    assert_eq!(client, *first.get_or_insert_with(|| client.clone()), "one order per channel for all");
                }
            }
            // A user's connections are found wherever they are.
            let one = Selection { user: "user-1".into(), ..Selection::default() };
            node.disconnect(one, Disconnect::ForceDisconnect).await.unwrap();
            wait(async || node.connections() == (CLIENTS - 1) * WORKERS).await;
            node.shut_down().await;
            wait(async || node.counts().await == Counts::default() && node.connections() == 0).await;
            for name in CHANNELS {
                assert_eq!(node.members(&channel(name)).await.unwrap(), []);
            }
            stop.send(true).unwrap();
        });
    });
}

/// One worker's thread: subscribes its clients, and reports what each of them got, per channel.
async fn work(
    node: &Arc<Node>,
    index: usize,
    ready: mpsc::Sender<()>,
    results: mpsc::Sender<Vec<[Vec<Value>; 2]>>,
    mut stopped: watch::Receiver<bool>,
) {
    let worker = Worker::start(node, index);
    let mut clients = Vec::new();
    for user in 0..CLIENTS {
        let client = FakeClient::open(&worker, &Probe, &Opening::default()).unwrap();
        client.connect(&format!("user:user-{user}")).await;
        for name in CHANNELS {
            // Without joins: every subscriber gets the same frames.
            let request = fanwire_node::SubscribeRequest { channel: name.into(), ..Default::default() };
            Rc::clone(&client.client).subscribe(request).await.unwrap();
        }
        clients.push((client, [Vec::new(), Vec::new()]));
    }
    ready.send(()).await.unwrap();
    let all = 2 * PUBLISHERS * EACH;
    let complete = async {
        while clients.iter().any(|(_, seen)| seen.iter().map(Vec::len).sum::<usize>() < all) {
            for (client, seen) in &mut clients {
                for frame in client.take() {
                    seen[usize::from(frame["channel"] == "b")].push(frame);
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, complete).await.unwrap();
    results.send(clients.iter().map(|(_, seen)| seen.clone()).collect()).await.unwrap();
    timeout(PATIENCE, stopped.wait_for(|stopped| *stopped)).await.unwrap().unwrap();
    assert!(clients.iter().all(|(client, _)| client.is_gone()));
}

async fn publish(node: Arc<Node>, publisher: usize) {
    for n in 0..EACH {
        for name in CHANNELS {
            let data = json!([publisher, n]).to_string();
            node.publish(Publish::new(channel(name), Payload::json(data.into()))).await.unwrap();
        }
    }
}

async fn wait(mut until: impl AsyncFnMut() -> bool) {
    let arrives = async {
        while !until().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, arrives).await.unwrap();
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}
