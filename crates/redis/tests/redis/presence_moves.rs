//! Presence over many servers, and when what it is kept in moves from one to another.

use fanwire_node::Presence;
use fanwire_node::presence::{Per, PresenceStats};
use fanwire_redis::Config;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::bench::{Member, RENEWAL, Watcher, channel, clients, info, until_counted, within};
use crate::server::cluster::Cluster;
use crate::server::proxy::Proxy;
use crate::server::sentinel::Sentinels;
use crate::server::{Server, words};

#[tokio::test]
async fn a_dead_node_is_swept_in_every_topology() {
    let (cluster, servers) = (Cluster::start(3, 0).await, [Server::start().await, Server::start().await]);
    let urls = servers.iter().map(Server::url).collect();
    for config in [cluster.config("fanwire"), Config { urls, ..servers[0].config("fanwire") }] {
        run(async {
            let rooms: Vec<_> = (0..16).map(|n| channel(&format!("room{n}"))).collect();
            let (dies, lives, watcher) =
                (Member::start(&config), Member::start(&config), Watcher::start(&config).await);
            let mut observers = Vec::new();
            for room in &rooms {
                observers.push(watcher.observer(room).await);
                dies.enter(room, &info("42", "c1"), Per::Connection).await;
                dies.enter(room, &info("42", "u1"), Per::User).await;
            }
            for observer in &mut observers {
                observer.hears(&["+c1", "+u1"]).await;
            }
            drop(dies);
            for (observer, room) in observers.iter_mut().zip(&rooms) {
                observer.hears(&["-c1", "-u1"]).await;
                assert_eq!(lives.presence.stats(room).await, Ok(PresenceStats::default()));
            }
        })
        .await;
    }
}

/// The replica lacks the latest changes when it is promoted. Everybody has heard of them.
#[tokio::test]
async fn a_failover_that_loses_changes_is_heard_by_nobody() {
    let primary = Server::start().await;
    let leg = Proxy::start(primary.port()).await;
    let replica = Server::start_replica_of(leg.port).await;
    let mut sentinels = Sentinels::watch(vec![primary, replica]).await;
    run(async {
        let config = sentinels.config("fanwire");
        let room = channel("room");
        let (one, watcher) = (Member::start(&config), Watcher::start(&config).await);
        let mut observer = watcher.observer(&room).await;
        for client in ["stays", "leaves"] {
            one.enter(&room, &info("42", client), Per::Connection).await;
        }
        observer.hears(&["+stays", "+leaves"]).await;
        sentinels.servers[0].ask(&["WAIT", "1", "5000"]).await;
        leg.hold();
        one.enter(&room, &info("7", "comes"), Per::Connection).await;
        one.presence.remove(&room, "leaves").await.expect("removed");
        observer.hears(&["+comes", "-leaves"]).await;
        sentinels.servers[0].kill();
        sentinels.until_another_than(0).await;
        until_counted(&one.presence, &room, PresenceStats { clients: 2, users: 2 }).await;
        until_named(&one, &room, &["comes", "stays"]).await;
        // Longer than a dead node would have been let live.
        sleep(RENEWAL * 8).await;
        observer.hears(&[]).await;
        watcher.until_up().await;
        one.presence.remove(&room, "stays").await.expect("removed");
        observer.hears(&["-stays"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_moves_takes_presence_along() {
    let cluster = Cluster::start(3, 0).await;
    run(async {
        let config = cluster.config("fanwire");
        let room = channel("room");
        let (one, two, watcher) = (Member::start(&config), Member::start(&config), Watcher::start(&config).await);
        let mut observer = watcher.observer(&room).await;
        one.enter(&room, &info("42", "one"), Per::Connection).await;
        two.enter(&room, &info("42", "two"), Per::User).await;
        observer.hears(&["+one", "+two"]).await;
        let (mut from, mut key) = (0, String::new());
        for (number, node) in cluster.nodes.iter().enumerate() {
            let found = words(&node.ask(&["KEYS", "fanwire:*:members:room"]).await);
            if !found.is_empty() {
                (from, key) = (number, found);
            }
        }
        let slot = words(&cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", &key]).await);
        cluster.migrate(slot.parse().expect("a slot"), from, (from + 1) % 3).await;
        one.enter(&room, &info("7", "three"), Per::Connection).await;
        two.presence.remove(&room, "two").await.expect("removed");
        until_named(&one, &room, &["one", "three"]).await;
        // The watcher's subscription has moved, too: what was announced meanwhile it may have missed.
        sleep(RENEWAL * 8).await;
        watcher.until_up().await;
        observer.rest().await;
        observer.heard.clear();
        one.presence.remove(&room, "one").await.expect("removed");
        one.presence.remove(&room, "three").await.expect("removed");
        observer.hears(&["-one", "-three"]).await;
        assert_eq!(two.presence.stats(&room).await, Ok(PresenceStats::default()));
    })
    .await;
}

async fn until_named(member: &Member, room: &fanwire_wire::Channel, expected: &[&str]) {
    within(&format!("{expected:?} are there"), async {
        while clients(&member.presence, room).await != expected {
            sleep(RENEWAL / 10).await;
        }
    })
    .await;
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}
