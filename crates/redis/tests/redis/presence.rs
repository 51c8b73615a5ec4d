//! What becomes of presence when nodes die, are cut off or slow, and when Redis forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fanwire_node::Presence;
use fanwire_node::presence::{Change, Per, PresenceStats};
use fanwire_redis::Config;
use fanwire_testkit::Random;
use futures_util::future::join_all;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::bench::{Member, RENEWAL, Watcher, channel, clients, info, until_counted, within};
use crate::cable::Cable;
use crate::server::Server;

#[tokio::test]
async fn a_dead_node_is_swept_and_its_leaves_are_heard() {
    let server = Server::start().await;
    run(async {
        let config = server.config("fanwire");
        let room = channel("room");
        let (dies, lives, watcher) = (Member::start(&config), Member::start(&config), Watcher::start(&config).await);
        let mut observer = watcher.observer(&room).await;
        dies.enter(&room, &info("42", "c1"), Per::Connection).await;
        dies.enter(&room, &info("42", "u1"), Per::User).await;
        dies.enter(&room, &info("7", "u2"), Per::User).await;
        lives.enter(&room, &info("42", "u3"), Per::User).await;
        dies.presence.add(&room, info("9", "silent")).await.expect("added");
        dies.presence.announce(&room, info("9", "unlisted"), Per::Connection).await.expect("announced");
        observer.hears(&["+c1", "+u1", "+u2", "+unlisted"]).await;

        let died = Instant::now();
        drop(dies);
        // User 42 is still there, on another node.
        observer.hears(&["-c1", "-u2", "-unlisted"]).await;
        println!("node gone, renewal {RENEWAL:?}: its leaves were heard within {:?}", died.elapsed());
        assert_eq!(clients(&lives.presence, &room).await, ["u3"]);
        assert_eq!(lives.presence.stats(&room).await, Ok(PresenceStats { clients: 1, users: 1 }));
        assert_eq!(lives.presence.remove(&room, "u3").await, Ok(Change::User));
        observer.hears(&["-u3"]).await;
        until_swept(&server, 2).await;
    })
    .await;
}

#[tokio::test]
async fn many_clients_of_a_dead_node_leave_once_each() {
    const CLIENTS: usize = 3000;
    let server = Server::start().await;
    run(async {
        let config = server.config("fanwire");
        let rooms: Vec<_> = (0..3).map(|n| channel(&format!("room{n}"))).collect();
        let (dies, watchers) = (Member::start(&config), [Watcher::start(&config).await, Watcher::start(&config).await]);
        let mut observers = Vec::new();
        for watcher in &watchers {
            for room in &rooms {
                observers.push(watcher.observer(room).await);
            }
        }
        let all: Vec<_> = (0..CLIENTS).map(|n| info(&format!("u{}", n % 100), &format!("c{n}"))).collect();
        for some in all.chunks(300) {
            join_all(some.iter().enumerate().map(|(n, info)| dies.enter(&rooms[n % 3], info, Per::Connection))).await;
        }
        for observer in &mut observers {
            within("all joins", async {
                while observer.heard.iter().filter(|event| event.starts_with("+c")).count() < CLIENTS / 3 {
                    observer.listen().await;
                }
            })
            .await;
            observer.heard.clear();
        }
        let died = Instant::now();
        drop(dies);
        for observer in &mut observers {
            within("all leaves", async {
                while observer.heard.len() < CLIENTS / 3 {
                    observer.listen().await;
                }
            })
            .await;
        }
        println!("{CLIENTS} clients of a dead node, renewal {RENEWAL:?}: gone everywhere within {:?}", died.elapsed());
        for observer in &mut observers {
            observer.rest().await;
            let distinct: BTreeSet<_> = observer.heard.iter().collect();
            assert!(observer.heard.iter().all(|event| event.starts_with("-c")));
            assert_eq!((observer.heard.len(), distinct.len()), (CLIENTS / 3, CLIENTS / 3));
        }
        until_swept(&server, 2).await;
        for room in &rooms {
            assert_eq!(watchers[0].harness.node.counts().await.channels, 3);
            let key = format!("fanwire:members:{room}");
            assert_eq!(server.ask(&["EXISTS", &key]).await, redis::Value::Int(0));
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_was_cut_off_is_consistent_afterwards() {
    let server = Server::start().await;
    run(async {
        let cable = Cable::to(&server).await;
        let (config, through) = (server.config("fanwire"), cable.config("fanwire"));
        let room = channel("room");
        let (cut, lives, watcher) = (Member::start(&through), Member::start(&config), Watcher::start(&config).await);
        let mut observer = watcher.observer(&room).await;
        for client in ["stays", "leaves", "returns"] {
            cut.enter(&room, &info("42", client), Per::Connection).await;
        }
        cut.presence.add(&room, info("9", "silent")).await.expect("added");
        observer.hears(&["+stays", "+leaves", "+returns"]).await;

        cable.cut();
        cut.presence.remove(&room, "leaves").await.expect_err("nobody is reached");
        cut.presence.remove(&room, "returns").await.expect_err("nobody is reached");
        cut.presence.add(&room, info("42", "late")).await.expect_err("nobody is reached");
        observer.hears(&["-stays", "-leaves", "-returns"]).await;
        assert_eq!(clients(&lives.presence, &room).await, Vec::<String>::new());

        cable.mend();
        observer.hears(&["+stays"]).await;
        within("it is all back", async {
            while clients(&lives.presence, &room).await != ["silent", "stays"] {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        cut.enter(&room, &info("42", "returns"), Per::Connection).await;
        cut.presence.remove(&room, "stays").await.expect("removed");
        observer.hears(&["+returns", "-stays"]).await;
        assert_eq!(lives.presence.stats(&room).await, Ok(PresenceStats { clients: 2, users: 2 }));
    })
    .await;
}

#[tokio::test]
async fn a_short_cut_is_heard_by_nobody() {
    let server = Server::start().await;
    run(async {
        let cable = Cable::to(&server).await;
        let room = channel("room");
        let (cut, watcher) = (Member::start(&cable.config("fanwire")), Watcher::start(&server.config("fanwire")).await);
        let mut observer = watcher.observer(&room).await;
        for client in ["stays", "leaves"] {
            cut.enter(&room, &info("42", client), Per::Connection).await;
        }
        observer.hears(&["+stays", "+leaves"]).await;
        cable.cut();
        cut.presence.remove(&room, "leaves").await.expect_err("nobody is reached");
        cable.mend();
        observer.hears(&["-leaves"]).await;
        // Longer than a dead node would have been let live.
        sleep(RENEWAL * 8).await;
        observer.hears(&[]).await;
        assert_eq!(clients(&cut.presence, &room).await, ["stays"]);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_forgets_everything_is_told_again() {
    let server = Server::start().await;
    run(async {
        let config = server.config("fanwire");
        let room = channel("room");
        let (one, two, watcher) = (Member::start(&config), Member::start(&config), Watcher::start(&config).await);
        let mut observer = watcher.observer(&room).await;
        one.enter(&room, &info("42", "c1"), Per::Connection).await;
        two.enter(&room, &info("42", "c2"), Per::User).await;
        observer.hears(&["+c1", "+c2"]).await;
        server.ask(&["FLUSHALL"]).await;
        // A change finds it at once, signs of life soon.
        assert_eq!(one.presence.add(&room, info("7", "c3")).await, Ok(Change::User));
        until_counted(&two.presence, &room, PresenceStats { clients: 3, users: 2 }).await;
        observer.hears(&[]).await;
        one.presence.remove(&room, "c1").await.expect("removed");
        two.presence.remove(&room, "c2").await.expect("removed");
        observer.hears(&["-c1", "-c2"]).await;
        one.presence.remove(&room, "c3").await.expect("removed");
        until_counted(&two.presence, &room, PresenceStats::default()).await;
    })
    .await;
}

#[tokio::test]
async fn who_leaves_before_everything_is_forgotten_still_leaves() {
    let server = Server::start().await;
    run(async {
        let cable = Cable::to(&server).await;
        let room = channel("room");
        let (cut, watcher) = (Member::start(&cable.config("fanwire")), Watcher::start(&server.config("fanwire")).await);
        let mut observer = watcher.observer(&room).await;
        for client in ["stays", "leaves"] {
            cut.enter(&room, &info("42", client), Per::Connection).await;
        }
        observer.hears(&["+stays", "+leaves"]).await;
        cable.cut();
        cut.presence.remove(&room, "leaves").await.expect_err("nobody is reached");
        server.ask(&["FLUSHALL"]).await;
        cable.mend();
        observer.hears(&["-leaves"]).await;
        until_counted(&cut.presence, &room, PresenceStats { clients: 1, users: 1 }).await;
        observer.hears(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn restarts_are_heard_by_nobody_but_who_left_meanwhile_leaves() {
    for persistent in ["yes", "no"] {
        let options = ["--save", "", "--appendonly", persistent, "--appendfsync", "always"];
        let mut server = Server::start_with(&options).await;
        run(async {
            let config = server.config("fanwire");
            let room = channel("room");
            let (one, watcher) = (Member::start(&config), Watcher::start(&config).await);
            let mut observer = watcher.observer(&room).await;
            for client in ["stays", "leaves"] {
                one.enter(&room, &info("42", client), Per::Connection).await;
            }
            observer.hears(&["+stays", "+leaves"]).await;
            if persistent == "yes" {
                server.stop().await
            } else {
                server.kill()
            }
            one.presence.remove(&room, "leaves").await.expect_err("nobody is reached");
            // Longer than a dead node would have been let live.
            sleep(RENEWAL * 8).await;
            server.run().await;
            until_counted(&one.presence, &room, PresenceStats { clients: 1, users: 1 }).await;
            // The watcher's own subscription has to come back before it hears.
            watcher.until_up().await;
            one.presence.remove(&room, "stays").await.expect("removed");
            within("the last leave", async {
                while !observer.heard.contains(&"-stays".to_owned()) {
                    observer.listen().await;
                }
            })
            .await;
            observer.heard.retain(|event| event != "-leaves");
            assert_eq!(observer.heard, ["-stays"], "persistent: {persistent}");
        })
        .await;
    }
}

#[tokio::test]
async fn an_older_snapshot_brings_nobody_back() {
    let mut server = Server::start_with(&["--save", "", "--appendonly", "no"]).await;
    run(async {
        let config = server.config("fanwire");
        let room = channel("room");
        let (one, watcher) = (Member::start(&config), Watcher::start(&config).await);
        let mut observer = watcher.observer(&room).await;
        for client in ["stays", "leaves"] {
            one.enter(&room, &info("42", client), Per::Connection).await;
        }
        server.ask(&["SAVE"]).await;
        one.presence.remove(&room, "leaves").await.expect("removed");
        one.enter(&room, &info("7", "comes"), Per::Connection).await;
        observer.hears(&["+stays", "+leaves", "-leaves", "+comes"]).await;
        server.kill();
        server.run().await;
        within("as before", async {
            while one.presence.members(&room).await.map_or(0, |all| all.len()) != 2
                || clients(&one.presence, &room).await != ["comes", "stays"]
            {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(one.presence.stats(&room).await, Ok(PresenceStats { clients: 2, users: 2 }));
        sleep(RENEWAL * 8).await;
        observer.hears(&[]).await;
    })
    .await;
}

#[tokio::test]
async fn what_a_hanging_server_does_late_is_taken_back() {
    let server = Server::start().await;
    run(async {
        let config = Config { timeout: Duration::from_millis(300), ..server.config("fanwire") };
        let room = channel("room");
        let (one, watcher) = (Member::start(&config), Watcher::start(&config).await);
        let mut observer = watcher.observer(&room).await;
        one.enter(&room, &info("42", "stays"), Per::Connection).await;
        observer.hears(&["+stays"]).await;
        for round in 0..5 {
            server.signal("STOP");
            let late = info("7", &format!("late{round}"));
            one.presence.add(&room, Arc::clone(&late)).await.expect_err("no answer");
            // As a node does that could not list a client.
            let _ = one.presence.remove(&room, &late.client).await;
            sleep(Duration::from_millis(100 * round)).await;
            server.signal("CONT");
            until_counted(&one.presence, &room, PresenceStats { clients: 1, users: 1 }).await;
        }
        sleep(RENEWAL * 8).await;
        assert_eq!(clients(&one.presence, &room).await, ["stays"]);
        observer.hears(&[]).await;
    })
    .await;
}

/// What was sent on a connection that was given up reaches the server after everything that came later.
#[tokio::test]
async fn what_arrives_late_is_void() {
    let server = Server::start().await;
    run(async {
        let cable = Cable::to(&server).await;
        let config = Config { timeout: Duration::from_millis(300), ..cable.config("fanwire") };
        let room = channel("room");
        let (one, watcher) = (Member::start(&config), Watcher::start(&server.config("fanwire")).await);
        let mut observer = watcher.observer(&room).await;
        one.enter(&room, &info("42", "stays"), Per::Connection).await;
        one.enter(&room, &info("42", "is added twice"), Per::Connection).await;
        observer.hears(&["+stays", "+is added twice"]).await;
        cable.hold();
        let late = info("7", "late");
        one.presence.add(&room, Arc::clone(&late)).await.expect_err("no answer");
        let _ = one.presence.remove(&room, "late").await;
        let _ = one.presence.remove(&room, "is added twice").await;
        observer.hears(&["-is added twice"]).await;
        one.enter(&room, &info("42", "is added twice"), Per::Connection).await;
        observer.hears(&["+is added twice"]).await;
        cable.mend();
        sleep(RENEWAL * 3).await;
        observer.hears(&[]).await;
        assert_eq!(clients(&one.presence, &room).await, ["is added twice", "stays"]);
        assert_eq!(one.presence.stats(&room).await, Ok(PresenceStats { clients: 2, users: 1 }));
    })
    .await;
}

/// Three nodes come and go, are cut off, killed and replaced, while their clients do the same. At the end, presence is what
/// the nodes say; and whoever listened all the time has heard joins and leaves by turns that add up to it.
#[tokio::test]
async fn whatever_happens_presence_ends_right() {
    let server = Server::start().await;
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    run(async {
        let room = channel("room");
        let watcher = Watcher::start(&server.config("fanwire")).await;
        let mut observer = watcher.observer(&room).await;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let cable = Cable::to(&server).await;
            nodes.push((Member::start(&cable.config("fanwire")), cable, BTreeMap::new()));
        }
        let mut next = 0;
        for _ in 0..400 {
            let at = random.below(nodes.len());
            let (node, cable, there) = &mut nodes[at];
            match random.below(40) {
                0 => cable.cut(),
                1..=4 => cable.mend(),
                5 => sleep(RENEWAL * random.below(8) as u32).await,
                6 => {
                    // Killed, and another one in its place.
                    let cable = Cable::to(&server).await;
                    nodes[at] = (Member::start(&cable.config("fanwire")), cable, BTreeMap::new());
                }
                7..=22 => {
                    next += 1;
                    let info = info(&format!("u{}", random.below(5)), &format!("c{next}"));
                    if node.presence.add(&room, Arc::clone(&info)).await.is_ok() {
                        // Announced at once or later.
                        let _ = node.presence.announce(&room, Arc::clone(&info), Per::Connection).await;
                        there.insert(info.client.to_string(), info);
                    } else {
                        let _ = node.presence.remove(&room, &info.client).await;
                    }
                }
                _ => {
                    if let Some((client, _)) = there.pop_first() {
                        let _ = node.presence.remove(&room, &client).await;
                    }
                }
            }
            observer.listen().await;
        }
        nodes.iter().for_each(|(_, cable, _)| cable.mend());
        let expected: BTreeMap<_, _> = nodes.iter().flat_map(|(.., there)| there.clone()).collect();
        let names: BTreeSet<_> = expected.keys().cloned().collect();
        let users: BTreeSet<_> = expected.values().map(|info| info.user.to_string()).collect();
        let counted = PresenceStats { clients: expected.len(), users: users.len() };
        within(&format!("seed {seed}: {names:?} are there"), async {
            while clients(&nodes[0].0.presence, &room).await.into_iter().collect::<BTreeSet<_>>() != names
                || nodes[0].0.presence.stats(&room).await != Ok(counted)
                || here(&observer.heard, seed) != names
            {
                observer.listen().await;
            }
        })
        .await;
        observer.rest().await;
        assert_eq!(here(&observer.heard, seed), names, "seed {seed}");
        println!("{} joins and leaves heard, {} clients left", observer.heard.len(), names.len());
    })
    .await;
}

/// Who has joined and not left, if that came by turns.
fn here(heard: &[String], seed: u64) -> BTreeSet<String> {
    let mut here = BTreeSet::new();
    for event in heard {
        let (what, client) = event.split_at(1);
        let right = if what == "+" { here.insert(client.to_owned()) } else { here.remove(client) };
        assert!(right, "seed {seed}: {event} out of turn in {heard:?}");
    }
    here
}

/// Waits until nothing is left of dead nodes.
async fn until_swept(server: &Server, living: i64) {
    within("nothing is left of dead nodes", async {
        while server.ask(&["HLEN", "fanwire:signs"]).await != redis::Value::Int(living) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let redis::Value::Array(indexes) = server.ask(&["KEYS", "fanwire:index:*"]).await else { panic!("a list") };
    assert!(indexes.len() as i64 <= living, "{indexes:?}");
}

async fn run(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}
