//! What goes wrong in a schedule.

use std::time::Duration;

use fanwire_wire::Channel;
use fastrand::Rng;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::server::{GOOD, Memory, Way};
use crate::oracle::{At, Record, Trimmed};

/// Lets things go wrong until the cluster is to come to rest; then all is well again.
pub(super) async fn happen(cluster: &Cluster, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    // Some schedules are about the network, some about the server, most about both.
    let (network, server) = *rng.choice(&[(3, 1), (2, 0), (0, 2), (1, 1), (4, 4)]).expect("there are some");
    let mut network_rng = rng.fork();
    tokio::join!(
        async {
            while network > 0 && cluster.is_restless() {
                sleep(Duration::from_millis(network_rng.u64(..4000 / network))).await;
                on_a_way(cluster, &mut network_rng).await;
            }
        },
        async {
            while server > 0 && cluster.is_restless() {
                sleep(Duration::from_millis(rng.u64(..8000 / server))).await;
                on_the_server(cluster, &mut rng).await;
            }
        }
    );
    (0..cluster.nodes.len()).for_each(|node| cluster.server.change_way(node, |way| *way = GOOD));
    cluster.note("all is well");
}

async fn on_a_way(cluster: &Cluster, rng: &mut Rng) {
    let server = &cluster.server;
    let node = rng.usize(..cluster.nodes.len());
    let length = Duration::from_millis(*rng.choice(&[100, 700, 2500, 6000]).expect("there are some"));
    let change = |what: &str, change: fn(&mut Way)| {
        cluster.note(format!("node {node}: {what}"));
        server.change_way(node, change);
    };
    match rng.u8(..10) {
        0 => change("slow", |way| way.delay = Duration::from_millis(300)),
        1 => change("lossy", |way| way.lost = 0.2),
        2 => change("repeats itself", |way| way.doubled = 0.3),
        3 => change("out of order", |way| (way.overtaken, way.delay) = (0.3, Duration::from_millis(20))),
        4 => change("partitioned", |way| way.partitioned = true),
        5 => change("mute", |way| way.mute = true),
        6 => {
            // Nothing could show it on a plain channel.
            let Some(channel) = cluster.streams().nth(rng.usize(..2)) else { return };
            cluster.note(format!("node {node}: not subscribed to {channel} any more"));
            return server.forget_subscription(node, &Channel::new(channel).expect("a good name"));
        }
        _ => {
            cluster.note(format!("node {node}: cut"));
            return server.cut(node);
        }
    }
    sleep(length).await;
    cluster.note(format!("node {node}: good"));
    server.change_way(node, |way| *way = GOOD);
}

async fn on_the_server(cluster: &Cluster, rng: &mut Rng) {
    let server = &cluster.server;
    let length = Duration::from_millis(*rng.choice(&[0, 100, 700, 2500]).expect("there are some"));
    match rng.u8(..10) {
        0 | 1 => {
            cluster.note(format!("the server hangs for {length:?}"));
            server.pause();
            sleep(length).await;
            server.resume();
        }
        2..5 => {
            cluster.note("the server saves");
            server.save();
        }
        5 => trim(cluster, rng).await,
        kind => {
            let memory = match kind {
                6 | 7 => Memory::Whole,
                8 => Memory::Snapshot,
                _ => *rng.choice(&[Memory::Snapshot, Memory::None]).expect("there are some"),
            };
            cluster.note(format!("the server restarts after {length:?} with memory: {memory:?}"));
            server.stop();
            sleep(length).await;
            server.start(memory);
        }
    }
}

/// Somebody removes a history.
async fn trim(cluster: &Cluster, rng: &mut Rng) {
    let Some(name) = cluster.streams().nth(rng.usize(..2)) else { return };
    let channel = Channel::new(name).expect("a good name");
    cluster.note(format!("the history of {name} is removed"));
    let node = rng.usize(..cluster.nodes.len());
    // Whether it was applied or not: it may have been.
    let _ = cluster.nodes[node].harness().node.remove_history(&channel).await;
    sleep(Duration::from_secs(3)).await;
    let tops = cluster.server.tops().into_iter().filter(|(other, _)| *other == channel);
    for (_, top) in tops {
        let trimmed = Trimmed { channel: name.clone(), at: At::from(&top) };
        cluster.record(Record::Trimmed(trimmed));
    }
}
