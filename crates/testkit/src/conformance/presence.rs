//! The suite for presences.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::Error;
use fanwire_node::presence::{Change, Per, PresenceStats};
use fanwire_node::{Broker, Config, Dispatcher, HistoryRequest, Namespace, Permission, Presence, Publish};
use fanwire_wire::{Channel, ClientInfo, Payload};
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::harness::{Harness, open_config};
use crate::{FakeClient, Random};

/// A node's broker and presence.
pub type Pair = (Box<dyn Broker>, Arc<dyn Presence>);

/// Runs the suite for one node.
///
/// # Panics
///
/// When the presence does not do what it must.
pub async fn presence(make: impl AsyncFn(Arc<Dispatcher>) -> Pair) {
    let bench = Bench::new(&make).await;
    a_client_is_there_once(&*bench.presence).await;
    users_are_counted_by_their_connections(&*bench.presence).await;
    joins_and_leaves_come_by_turns(&bench).await;
    users_join_once_and_leave_once(&bench).await;
    who_is_announced_need_not_be_listed(&bench).await;
    joins_and_leaves_are_not_kept(&bench).await;
    large_channels_are_read_whole(&*bench.presence).await;
    whatever_happens_at_once_ends_right(&[bench]).await;
}

/// Runs the suite for two nodes of one cluster: `make` is called once for each.
///
/// # Panics
///
/// When the presence does not do what it must.
pub async fn presence_of_two(make: impl AsyncFn(Arc<Dispatcher>) -> Pair) {
    let benches = [Bench::new(&make).await, Bench::new(&make).await];
    nodes_see_each_other(&benches).await;
    users_are_one_on_both_nodes(&benches).await;
    whatever_happens_at_once_ends_right(&benches).await;
}

async fn a_client_is_there_once(presence: &dyn Presence) {
    let (a, b) = (channel("a"), channel("b"));
    assert_eq!(members(presence, &a).await, []);
    assert_eq!(stats(presence, &a).await, PresenceStats { clients: 0, users: 0 });

    let (one, two, nobody) = (info("42", "c1"), info("42", "c2"), info("", "c3"));
    let mut changes = Vec::new();
    for info in [&one, &two, &nobody, &two] {
        changes.push(presence.add(&a, Arc::clone(info)).await.expect("added"));
    }
    assert_eq!(changes, [Change::User, Change::Connection, Change::User, Change::Nothing]);
    assert_eq!(presence.add(&b, Arc::clone(&one)).await, Ok(Change::User));
    assert_eq!(members(presence, &a).await, [one.clone(), two.clone(), nobody.clone()]);
    assert_eq!(stats(presence, &a).await, PresenceStats { clients: 3, users: 2 }, "the nameless count as one user");
    assert_eq!(stats(presence, &b).await, PresenceStats { clients: 1, users: 1 });

    let renewed = Arc::new(ClientInfo { chan_info: Some(Bytes::from_static(b"{\"role\":1}")), ..(*one).clone() });
    assert_eq!(presence.add(&a, Arc::clone(&renewed)).await, Ok(Change::Nothing));
    assert_eq!(members(presence, &a).await, [renewed, two.clone(), nobody.clone()], "what is known of it is replaced");
    assert_eq!(members(presence, &b).await, std::slice::from_ref(&one), "channels know nothing of each other");

    assert_eq!(presence.remove(&a, "c1").await, Ok(Change::Connection));
    assert_eq!(presence.remove(&a, "c1").await, Ok(Change::Nothing), "to remove nobody is no error");
    assert_eq!(presence.remove(&channel("untouched"), "c1").await, Ok(Change::Nothing));
    assert_eq!(members(presence, &a).await, [two, nobody]);
    assert_eq!(presence.remove(&a, "c2").await, Ok(Change::User));
    assert_eq!(presence.remove(&a, "c3").await, Ok(Change::User));
    assert_eq!(presence.remove(&b, "c1").await, Ok(Change::User));
    for channel in [&a, &b] {
        assert_eq!(members(presence, channel).await, []);
        assert_eq!(stats(presence, channel).await, PresenceStats { clients: 0, users: 0 });
    }
}

async fn users_are_counted_by_their_connections(presence: &dyn Presence) {
    let room = channel("counted");
    let asked = ["42", "", "7", "42"].map(str::to_owned);
    assert_eq!(presence.connections(&room, &asked).await, Ok(vec![0, 0, 0, 0]));
    assert_eq!(presence.connections(&room, &[]).await, Ok(vec![]));
    for (user, client) in [("42", "c1"), ("42", "c2"), ("", "c3")] {
        presence.add(&room, info(user, client)).await.expect("added");
    }
    assert_eq!(presence.connections(&room, &asked).await, Ok(vec![2, 1, 0, 2]));
    for client in ["c1", "c2", "c3"] {
        presence.remove(&room, client).await.expect("removed");
    }
    assert_eq!(presence.connections(&room, &asked).await, Ok(vec![0, 0, 0, 0]));
}

async fn joins_and_leaves_come_by_turns(bench: &Bench) {
    let room = channel("turns");
    let observer = bench.observer(&room).await;
    let one = info("42", "c1");
    bench.presence.add(&room, Arc::clone(&one)).await.expect("added");
    for _ in 0..2 {
        bench.presence.announce(&room, Arc::clone(&one), Per::Connection).await.expect("announced");
    }
    for _ in 0..2 {
        bench.presence.remove(&room, "c1").await.expect("removed");
    }
    // Listed and never announced.
    bench.presence.add(&room, info("42", "c2")).await.expect("added");
    bench.presence.remove(&room, "c2").await.expect("removed");
    bench.presence.announce(&room, Arc::clone(&one), Per::Connection).await.expect("announced");
    assert_eq!(members(&*bench.presence, &room).await, [], "announced is not listed");
    bench.presence.remove(&room, "c1").await.expect("removed");
    assert_eq!(
        heard(&observer, 4).await,
        [("join", "c1"), ("leave", "c1"), ("join", "c1"), ("leave", "c1")].map(event)
    );
}

async fn users_join_once_and_leave_once(bench: &Bench) {
    let room = channel("users");
    let observer = bench.observer(&room).await;
    let mut changes = Vec::new();
    for (user, client) in [("42", "c1"), ("42", "c2"), ("7", "c3"), ("42", "c1")] {
        changes.push(bench.presence.announce(&room, info(user, client), Per::User).await.expect("announced"));
    }
    for client in ["c1", "c3", "c2", "c2"] {
        changes.push(bench.presence.remove(&room, client).await.expect("removed"));
    }
    let expected = [
        [Change::User, Change::Connection, Change::User, Change::Nothing],
        [Change::Connection, Change::User, Change::User, Change::Nothing],
    ];
    assert_eq!(changes, expected.concat());
    assert_eq!(
        heard(&observer, 4).await,
        [("join", "c1"), ("join", "c3"), ("leave", "c3"), ("leave", "c2")].map(event)
    );
}

async fn who_is_announced_need_not_be_listed(bench: &Bench) {
    let room = channel("unlisted");
    let observer = bench.observer(&room).await;
    let one = info("42", "c1");
    bench.presence.announce(&room, Arc::clone(&one), Per::Connection).await.expect("announced");
    assert_eq!(stats(&*bench.presence, &room).await, PresenceStats { clients: 0, users: 0 });
    // The other way round than usual.
    assert_eq!(bench.presence.add(&room, Arc::clone(&one)).await, Ok(Change::User));
    assert_eq!(members(&*bench.presence, &room).await, [one]);
    bench.presence.remove(&room, "c1").await.expect("removed");
    assert_eq!(members(&*bench.presence, &room).await, []);
    assert_eq!(heard(&observer, 2).await, [("join", "c1"), ("leave", "c1")].map(event));
}

async fn joins_and_leaves_are_not_kept(bench: &Bench) {
    let room = channel("kept:a");
    let observer = bench.observer(&room).await;
    bench.presence.announce(&room, info("42", "c1"), Per::Connection).await.expect("announced");
    let data = Payload::json("1".into());
    bench.harness.node.publish(Publish::new(room.clone(), data)).await.expect("published");
    bench.presence.remove(&room, "c1").await.expect("removed");
    let seen = heard(&observer, 3).await;
    assert_eq!([&seen[0], &seen[2]], [&event(("join", "c1")), &event(("leave", "c1"))], "{seen:?}");
    let request = HistoryRequest { limit: -1, ..HistoryRequest::default() };
    let history = bench.harness.node.history(&room, request).await.expect("read");
    assert_eq!(history.publications.len(), 1);
}

async fn large_channels_are_read_whole(presence: &dyn Presence) {
    let room = channel("large");
    let all: Vec<_> = (0..3000).map(|n| info(&format!("u{}", n % 1000), &format!("c{n:04}"))).collect();
    for some in all.chunks(500) {
        join_all(some.iter().map(|info| presence.add(&room, Arc::clone(info)))).await;
    }
    assert_eq!(members(presence, &room).await, all);
    assert_eq!(stats(presence, &room).await, PresenceStats { clients: 3000, users: 1000 });
    for some in all.chunks(500) {
        join_all(some.iter().map(|info| presence.remove(&room, &info.client))).await;
    }
    assert_eq!(stats(presence, &room).await, PresenceStats { clients: 0, users: 0 });
}

async fn nodes_see_each_other(benches: &[Bench; 2]) {
    let room = channel("both");
    let observers = [benches[0].observer(&room).await, benches[1].observer(&room).await];
    assert_eq!(heard(&observers[0], 1).await, [event(("join", &observers[1].client.id()))]);
    let (one, two) = (info("42", "c1"), info("7", "c2"));
    for (bench, info) in benches.iter().zip([&one, &two]) {
        bench.presence.add(&room, Arc::clone(info)).await.expect("added");
        bench.presence.announce(&room, Arc::clone(info), Per::Connection).await.expect("announced");
    }
    for bench in benches {
        assert_eq!(members(&*bench.presence, &room).await, [one.clone(), two.clone()]);
    }
    assert_eq!(
        benches[1].presence.remove(&room, "c1").await,
        Ok(Change::Nothing),
        "a node answers for its own clients"
    );
    for (bench, info) in benches.iter().zip([&one, &two]) {
        bench.presence.remove(&room, &info.client).await.expect("removed");
    }
    for observer in &observers {
        let expected = [("join", "c1"), ("join", "c2"), ("leave", "c1"), ("leave", "c2")].map(event);
        assert_eq!(heard(observer, 4).await, expected);
    }
}

async fn users_are_one_on_both_nodes(benches: &[Bench; 2]) {
    let room = channel("user");
    let observer = benches[0].observer(&room).await;
    let mut changes = Vec::new();
    for (bench, client) in benches.iter().zip(["c1", "c2"]) {
        bench.presence.add(&room, info("42", client)).await.expect("added");
        changes.push(bench.presence.announce(&room, info("42", client), Per::User).await.expect("announced"));
    }
    assert_eq!(benches[1].presence.connections(&room, &["42".to_owned()]).await, Ok(vec![2]));
    for (bench, client) in benches.iter().zip(["c1", "c2"]) {
        changes.push(bench.presence.remove(&room, client).await.expect("removed"));
    }
    assert_eq!(changes, [Change::User, Change::Connection, Change::Connection, Change::User]);
    assert_eq!(heard(&observer, 2).await, [("join", "c1"), ("leave", "c2")].map(event));
}

/// Many clients of few users come and go at the same time; at the end everything is as if it had been one after the other.
async fn whatever_happens_at_once_ends_right(benches: &[Bench]) {
    for seed in 1..=5 {
        let (each, shared) = (channel(&format!("each{seed}")), channel(&format!("shared{seed}")));
        let observers = [benches[0].observer(&each).await, benches[0].observer(&shared).await];
        let clients = (0..40).map(|n| {
            let (bench, (each, shared)) = (&benches[n % benches.len()], (&each, &shared));
            async move {
                let info = info(&format!("u{}", n % 7), &format!("c{n}"));
                let mut random = Random::new(seed * 1000 + n as u64);
                let mut there = [false; 2];
                for _ in 0..25 {
                    let which = random.below(2);
                    let (room, per) = [(each, Per::Connection), (shared, Per::User)][which];
                    let presence = &bench.presence;
                    let done = match random.below(4) {
                        0 => presence.add(room, Arc::clone(&info)).await,
                        1 => presence.announce(room, Arc::clone(&info), per).await,
                        _ => presence.remove(room, &info.client).await,
                    };
                    done.expect("done");
                    if random.below(3) == 0 {
                        there[which] = presence.add(room, Arc::clone(&info)).await.is_ok();
                        presence.announce(room, Arc::clone(&info), per).await.expect("announced");
                    } else {
                        presence.remove(room, &info.client).await.expect("removed");
                        there[which] = false;
                    }
                }
                (info, there)
            }
        });
        let ended = join_all(clients).await;
        for (which, (room, observer)) in [&each, &shared].into_iter().zip(&observers).enumerate() {
            let left: BTreeMap<_, _> = ended
                .iter()
                .filter(|(_, there)| there[which])
                .map(|(info, _)| (info.client.to_string(), info))
                .collect();
            let users: BTreeSet<_> = left.values().map(|info| info.user.to_string()).collect();
            for bench in benches {
                let found = members(&*bench.presence, room).await;
                assert!(found.iter().eq(left.values().copied()), "seed {seed}: {found:?}, expected {left:?}");
                let counted = PresenceStats { clients: left.len(), users: users.len() };
                assert_eq!(stats(&*bench.presence, room).await, counted, "seed {seed}");
            }
            // One more, so that it is known when everything has arrived.
            let end = info("the end", "the end");
            benches[0].presence.announce(room, Arc::clone(&end), Per::Connection).await.expect("announced");
            let events = until(observer, &event(("join", "the end"))).await;
            benches[0].presence.remove(room, "the end").await.expect("removed");
            let user = |client: &str| {
                let number: usize = client[1..].parse().expect("a number");
                format!("u{}", number % 7)
            };
            let who = |client: &str| if which == 0 { client.to_owned() } else { user(client) };
            let mut here = BTreeSet::new();
            for seen in &events {
                match (seen["join"].as_str(), seen["leave"].as_str()) {
                    (Some(client), None) => assert!(here.insert(who(client)), "seed {seed}: joined twice: {client}"),
                    (None, Some(client)) => assert!(here.remove(&who(client)), "seed {seed}: left twice: {client}"),
                    _ => panic!("seed {seed}: {seen}"),
                }
            }
            let expected = if which == 0 { left.keys().cloned().collect() } else { users };
            assert_eq!(here, expected, "seed {seed}: who has joined and not left");
        }
        for (n, (info, _)) in ended.iter().enumerate() {
            for room in [&each, &shared] {
                benches[n % benches.len()].presence.remove(room, &info.client).await.expect("removed");
            }
        }
    }
}

/// A node over the presence in question.
struct Bench {
    harness: Harness,
    presence: Arc<dyn Presence>,
}

impl Bench {
    async fn new(make: &impl AsyncFn(Arc<Dispatcher>) -> Pair) -> Self {
        let dispatcher = Dispatcher::new(1);
        let (broker, presence) = make(Arc::clone(&dispatcher)).await;
        let shared = Box::new(Shared(Arc::clone(&presence)));
        Self { harness: Harness::with_presence(config(), dispatcher, broker, shared), presence }
    }

    /// A subscriber, not listed, that has heard its own join.
    async fn observer(&self, channel: &Channel) -> FakeClient {
        let observer = self.harness.probe("").await;
        observer.subscribe(channel.as_str()).await.expect("anyone may subscribe");
        let own = json!({"join": observer.client.id(), "channel": channel.as_str()});
        until(&observer, &own).await;
        observer
    }
}

/// Channels in which nobody is listed but by the test.
fn config() -> Config {
    let quiet = Namespace { subscribe: Permission::Anyone, join_leave: true, ..Namespace::default() };
    let mut config = open_config(quiet.clone());
    let ttl = Duration::from_secs(60);
    config.namespaces.push(Namespace { name: "kept".into(), history_size: 10, history_ttl: ttl, ..quiet });
    config
}

/// Waits for exactly `count` joins and leaves; `channel` left out.
async fn heard(observer: &FakeClient, count: usize) -> Vec<Value> {
    let mut frames = Vec::new();
    let enough = async {
        while frames.len() < count {
            frames.extend(observer.take());
            sleep(Duration::from_millis(1)).await;
        }
        // Whatever comes twice comes close behind.
        sleep(Duration::from_millis(20)).await;
        frames.extend(observer.take());
    };
    let in_time = timeout(Duration::from_secs(10), enough).await.is_ok();
    assert!(in_time && frames.len() == count, "{count} events expected, got {frames:?}");
    frames.into_iter().map(without_channel).collect()
}

/// Takes what comes before `last`.
async fn until(observer: &FakeClient, last: &Value) -> Vec<Value> {
    let mut events = Vec::new();
    let last = without_channel(last.clone());
    let found = async {
        while events.last() != Some(&last) {
            events.extend(observer.take().into_iter().map(without_channel));
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), found).await.is_ok(), "no {last} among {events:?}");
    events.pop();
    events
}

fn without_channel(mut frame: Value) -> Value {
    frame.as_object_mut().expect("an object").remove("channel");
    frame
}

fn event((what, client): (&str, &str)) -> Value {
    json!({what: client})
}

async fn members(presence: &dyn Presence, channel: &Channel) -> Vec<Arc<ClientInfo>> {
    let mut members = presence.members(channel).await.expect("read");
    members.sort_by(|a, b| a.client.cmp(&b.client));
    members
}

async fn stats(presence: &dyn Presence, channel: &Channel) -> PresenceStats {
    presence.stats(channel).await.expect("read")
}

fn info(user: &str, client: &str) -> Arc<ClientInfo> {
    let conn_info = Some(Bytes::from_static(b"{\"name\":\"x\"}"));
    Arc::new(ClientInfo { user: user.into(), client: client.into(), conn_info, chan_info: None })
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}

/// Lets the node and the test have the same presence.
struct Shared(Arc<dyn Presence>);

impl Presence for Shared {
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<Change, Error>> {
        self.0.add(channel, info)
    }

    fn announce(&self, channel: &Channel, info: Arc<ClientInfo>, per: Per) -> BoxFuture<'_, Result<Change, Error>> {
        self.0.announce(channel, info, per)
    }

    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<Change, Error>> {
        self.0.remove(channel, client)
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>> {
        self.0.members(channel)
    }

    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>> {
        self.0.stats(channel)
    }

    fn connections(&self, channel: &Channel, users: &[String]) -> BoxFuture<'_, Result<Vec<usize>, Error>> {
        self.0.connections(channel, users)
    }
}
