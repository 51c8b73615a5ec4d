//! Several nodes that hear each other, on a paused clock.

use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::Recipient;
use fanwire_node::clock::unix_ms;
use fanwire_node::{ChannelQuery, Config, ConnectRequest, Missing, Namespace, NodeView, Selection};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{Harness, Lan};
use fanwire_wire::cluster::{Answer, Control, ControlBody, Envelope, NodeInfo, NodeState, Question};
use fanwire_wire::{Channel, Disconnect, Grant, Refusal};
use serde_json::json;
use tokio::time::Instant;

/// Runs `test` with three nodes that have found each other.
fn three(test: impl AsyncFnOnce(&Lan, &[Harness; 3])) {
    harness::on_paused_clock(async || {
        let lan = Lan::default();
        let start = |name| Harness::start(config(name), |dispatcher| lan.broker(dispatcher));
        let nodes = [start("a"), start("b"), start("c")];
        nodes[0].settle().await;
        test(&lan, &nodes).await;
    });
}

fn config(name: &str) -> Config {
    Config { name: name.to_owned(), ..open_config(Namespace::open("")) }
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}

fn user(id: &str) -> Selection {
    Selection { user: id.to_owned(), ..Selection::default() }
}

async fn names(harness: &Harness) -> Vec<String> {
    harness.node.nodes().await.into_iter().map(|node| node.info.name).collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// The bytes of something a node says.
fn said(from: &str, body: ControlBody) -> Bytes {
    Envelope::Control(Box::new(Control { from: from.to_owned(), body })).encode()
}

#[test]
fn nodes_find_each_other_at_once() {
    three(async |lan, nodes| {
        for node in nodes {
            let names = names(node).await;
            assert_eq!(names[0], node.node.name(), "its own entry comes first");
            assert_eq!(sorted(names), ["a", "b", "c"]);
        }
        let late = Harness::start(config("late"), |dispatcher| lan.broker(dispatcher));
        late.settle().await;
        for node in nodes.iter().chain([&late]) {
            assert_eq!(sorted(names(node).await), ["a", "b", "c", "late"]);
        }
    });
}

#[test]
fn a_node_knows_itself_exactly_and_the_others_with_their_age() {
    three(async |_, [a, b, _]| {
        let _one = b.probe("user:1").await;
        let two = b.probe("user:1").await;
        two.subscribe("news").await.unwrap();
        let view = async |of: &Harness| {
            let nodes = of.node.nodes().await;
            nodes.into_iter().find(|node| node.id == b.node.id()).unwrap()
        };
        b.pass(Duration::from_secs(3)).await;
        let NodeView { info, age, silent, .. } = view(a).await;
        assert_eq!((info.clients, info.users, info.subscriptions, info.channels), (2, 1, 1, 1));
        assert_eq!((info.workers, info.state, &*info.version), (1, NodeState::Active, env!("CARGO_PKG_VERSION")));
        assert!(age < Duration::from_secs(3) && !silent, "{age:?}");
        // What happens on the node is known there at once, elsewhere with the next announcement.
        let _three = b.probe("").await;
        assert_eq!((view(b).await.info.clients, view(b).await.age), (3, Duration::ZERO));
        assert_eq!(view(a).await.info.clients, 2);
        assert!(view(a).await.info.uptime >= Duration::from_secs(3));
    });
}

#[test]
fn a_node_that_goes_without_a_word_is_forgotten_and_comes_back() {
    three(async |lan, [a, b, c]| {
        lan.unplug(c.node.id());
        a.pass(Duration::from_secs(5)).await;
        assert_eq!(sorted(names(a).await), ["a", "b", "c"]);
        a.pass(Duration::from_secs(4)).await;
        assert_eq!(sorted(names(a).await), ["a", "b"]);
        assert_eq!(sorted(names(b).await), ["a", "b"]);
        assert_eq!(names(c).await, ["c"], "it hears nobody either");
        lan.plug(c.node.id());
        // Who hears nothing greets until it does.
        a.pass(Duration::from_millis(300)).await;
        for node in [a, b, c] {
            assert_eq!(sorted(names(node).await), ["a", "b", "c"]);
        }
    });
}

#[test]
fn a_node_that_leaves_in_good_order_is_gone_at_once() {
    three(async |lan, [a, b, c]| {
        let client = c.probe("user:1").await;
        let heard = lan.stranger("z");
        c.node.shut_down().await;
        a.settle().await;
        assert!(client.is_gone());
        assert_eq!(sorted(names(a).await), ["a", "b"]);
        a.pass(Duration::from_secs(20)).await;
        assert_eq!(sorted(names(b).await), ["a", "b"], "it does not announce itself any more");
        let said: Vec<_> = heard.lock().drain(..).filter(|control| control.from == c.node.id()).collect();
        let [
            Control {
                body: ControlBody::Announcement { node: NodeInfo { state: NodeState::Draining, .. }, .. }, ..
            },
            Control { body: ControlBody::Farewell, .. },
        ] = &said[..]
        else {
            panic!("{said:?}");
        };
    });
}

#[test]
fn a_command_reaches_a_users_connections_on_all_nodes_once() {
    three(async |_, nodes| {
        let [a, b, c] = nodes;
        let clients = [a.probe("user:42").await, b.probe("user:42").await, c.probe("user:42").await];
        let stranger = b.probe("user:7").await;
        let settle = async || {
            a.settle().await;
            clients.iter().map(|client| client.take()).collect::<Vec<_>>()
        };
        settle().await;
        let done = Ok(Missing::default());
        let began = Instant::now();

        let granted = Grant { data: Some(Bytes::from_static(b"1")), ..Grant::default() };
        assert_eq!(a.node.subscribe(user("42"), channel("gift"), granted, None).await, done);
        for told in settle().await {
            assert_eq!(told[0]["subscribed"], "gift");
        }
        assert_eq!(b.node.refresh(user("42"), None).await, done);
        for told in settle().await {
            assert_eq!(told, [json!({"refreshed": null})], "once");
        }
        assert_eq!(c.node.unsubscribe(user("42"), channel("gift")).await, done);
        for told in settle().await {
            assert_eq!(told[0], json!({"unsubscribed": "gift", "code": 2000}));
        }
        let own = Disconnect::Application { code: 4001, reason: "mine".into() };
        let spared = Selection { except: vec![clients[1].client.id()], ..user("42") };
        assert_eq!(a.node.disconnect(spared, own.clone()).await, done);
        settle().await;
        assert_eq!(clients.each_ref().map(|client| client.client.ended()), [Some(own.clone()), None, Some(own)]);
        let only = Selection { client: Some(clients[1].client.id()), ..user("42") };
        assert_eq!(a.node.disconnect(only, Disconnect::ForceDisconnect).await, done);
        settle().await;
        assert_eq!(clients[1].client.ended(), Some(Disconnect::ForceDisconnect));
        assert!(!stranger.is_gone() && stranger.take().is_empty());
        assert!(began.elapsed() < Duration::from_millis(50), "nobody waited for anything");
    });
}

#[test]
fn commands_of_one_node_are_carried_out_in_their_order() {
    three(async |_, [a, b, _]| {
        let client = b.probe("user:42").await;
        let mut asked = tokio::task::JoinSet::new();
        let now = unix_ms() / 1000;
        for round in 1..=50 {
            let node = a.node.clone();
            asked.spawn_local(async move { node.refresh(user("42"), Some(now + 100 * round)).await });
        }
        let last = Disconnect::Application { code: 4321, reason: "".into() };
        a.settle().await;
        assert!(asked.join_all().await.into_iter().all(|done| done == Ok(Missing::default())));
        let terms: Vec<_> = client.take().iter().map(|told| told["refreshed"].as_u64().unwrap()).collect();
        assert!(terms.len() == 50 && terms.is_sorted(), "{terms:?}");
        assert_eq!(a.node.disconnect(user("42"), last.clone()).await, Ok(Missing::default()));
        assert_eq!(client.client.ended(), Some(last), "an answer says that it is done");
    });
}

#[test]
fn a_silent_node_is_waited_for_a_second_and_named() {
    three(async |lan, [a, b, c]| {
        let [near, far] = [b.probe("user:42").await, c.probe("user:42").await];
        near.subscribe("news").await.unwrap();
        lan.unplug(c.node.id());
        let began = Instant::now();
        let silent = Missing { silent: vec![c.node.id().to_owned()], ..Missing::default() };
        assert_eq!(a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await, Ok(silent.clone()));
        assert_eq!(began.elapsed().as_millis(), 1000);
        a.settle().await;
        assert!(near.is_gone() && !far.is_gone());

        let survey = a.node.survey_nodes().await.unwrap();
        assert_eq!(survey.missing, silent);
        let of = |harness: &Harness| survey.nodes.iter().find(|node| node.id == harness.node.id()).unwrap();
        assert_eq!((of(b).silent, of(b).age, of(b).info.clients), (false, Duration::ZERO, 0));
        assert!(of(c).silent && of(c).age >= Duration::from_secs(2), "{:?}", of(c));
        let survey = a.node.survey_channels(all_like("*")).await.unwrap();
        assert_eq!((survey.missing, survey.channels), (silent, vec![]));

        // Once it is forgotten, nobody waits for it.
        a.pass(Duration::from_secs(9)).await;
        let began = Instant::now();
        assert_eq!(a.node.refresh(user("42"), None).await, Ok(Missing::default()));
        assert!(began.elapsed() < Duration::from_millis(50));
    });
}

#[test]
fn surveys_add_up_what_all_nodes_have() {
    three(async |_, nodes| {
        let [a, b, c] = nodes;
        let mut clients = Vec::new();
        for (node, channels) in [(a, &["news", "room-1"][..]), (b, &["news"]), (c, &["news", "room-2"])] {
            let client = node.probe("user:42").await;
            for channel in channels {
                client.subscribe(channel).await.unwrap();
            }
            clients.push(client);
        }
        for node in nodes {
            let listed = async |pattern| node.node.survey_channels(all_like(pattern)).await.unwrap().channels;
            let room = |number| (channel(&format!("room-{number}")), 1);
            assert_eq!(listed("*").await, [(channel("news"), 3), room(1), room(2)]);
            assert_eq!(listed("room-*").await, [room(1), room(2)]);
            // Page by page, and each channel once, also if it has two of the forms.
            for (patterns, limit) in [(&["*"][..], 1), (&["*"], 2), (&["news", "room-*", "*-1"], 1)] {
                let mut listed = Vec::new();
                loop {
                    let after = listed.last().map(|(channel, _): &(Channel, u64)| channel.clone());
                    let query = ChannelQuery { limit, after, ..all_like(patterns[0]) };
                    let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
                    let page = node.node.survey_channels(ChannelQuery { patterns, ..query }).await.unwrap();
                    assert!(page.channels.len() <= limit as usize && page.missing.is_empty());
                    listed.extend(page.channels);
                    if !page.more {
                        break;
                    }
                }
                assert_eq!(listed, [(channel("news"), 3), room(1), room(2)], "{patterns:?}, {limit}");
            }
            let survey = node.node.survey_nodes().await.unwrap();
            assert!(survey.missing.is_empty());
            let subscriptions: u64 = survey.nodes.iter().map(|node| node.info.subscriptions).sum();
            assert_eq!((survey.nodes.len(), subscriptions), (3, 5));
            assert!(survey.nodes.iter().all(|node| node.age == Duration::ZERO && !node.silent));
        }
    });
}

#[test]
fn without_the_broker_a_command_is_carried_out_here_and_is_no_success() {
    three(async |_, [a, b, _]| {
        let [near, far] = [a.probe("user:42").await, b.probe("user:42").await];
        a.faults.go_down();
        let refused = a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await;
        assert_eq!(refused, Err(Refusal::OutcomeUnknown));
        a.settle().await;
        assert!(near.is_gone() && !far.is_gone());
        let survey = a.node.survey_nodes().await.unwrap();
        assert!(survey.missing.unasked && survey.missing.silent.len() == 2, "{survey:?}");
        assert_eq!(survey.nodes.iter().map(|node| node.silent).collect::<Vec<_>>(), [false, true, true]);
        a.faults.heal();
        assert_eq!(a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await, Ok(Missing::default()));
        assert_eq!(far.client.ended(), Some(Disconnect::ForceDisconnect));
    });
}

#[test]
fn a_node_that_hears_nothing_does_not_believe_that_it_is_alone() {
    three(async |lan, [a, ..]| {
        lan.unplug(a.node.id());
        a.pass(Duration::from_secs(9)).await;
        assert!(a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await.is_err());
        let survey = a.node.survey_nodes().await.unwrap();
        assert!(survey.nodes.len() == 1 && survey.missing.unasked);
    });
}

#[test]
fn what_a_later_version_asks_is_answered_and_what_it_says_is_ignored() {
    three(async |lan, [a, ..]| {
        let heard = lan.stranger("later");
        // A body and a question that this version does not know, in field 100.
        let unknown_body = [0x2a, 0x0a, 0x0a, 0x05, b'l', b'a', b't', b'e', b'r', 0xa2, 0x06, 0x00];
        lan.carry(Recipient::All, &Bytes::copy_from_slice(&unknown_body));
        let unknown = said("later", ControlBody::Request { number: 7, question: Question::Unknown });
        lan.carry(Recipient::Node(a.node.id()), &unknown);
        a.settle().await;
        let answers: Vec<_> = heard.lock().drain(..).collect();
        let answer = ControlBody::Reply { number: 7, answer: Answer::Unsupported };
        assert_eq!(answers, [Control { from: a.node.id().to_owned(), body: answer }]);
    });
}

#[test]
fn a_node_of_another_version_is_named() {
    three(async |lan, [a, ..]| {
        let heard = lan.stranger("later");
        let node = NodeInfo { name: "later".into(), ..NodeInfo::default() };
        lan.carry(Recipient::All, &said("later", ControlBody::Announcement { node, greeting: true }));
        a.settle().await;
        let greeted: Vec<_> = heard.lock().drain(..).map(|control| control.body).collect();
        assert_eq!(greeted.len(), 1 + 3, "who greets hears itself, and an answer of each: {greeted:?}");

        let node = a.node.clone();
        let asking = tokio::task::spawn_local(async move { node.survey_channels(all_like("*")).await });
        a.settle().await;
        let question = heard.lock().pop().unwrap().body;
        let ControlBody::Request { number, .. } = question else { panic!("{question:?}") };
        let reply = |number| said("later", ControlBody::Reply { number, answer: Answer::Unsupported });
        // An answer to something else, and one that comes twice.
        for number in [number + 1, number, number] {
            lan.carry(Recipient::Node(a.node.id()), &reply(number));
        }
        let survey = asking.await.unwrap().unwrap();
        assert_eq!(survey.missing, Missing { unsupported: vec!["later".into()], ..Missing::default() });
    });
}

#[test]
fn a_flood_is_cut_off_and_survived() {
    three(async |lan, [a, b, _]| {
        let heard = lan.stranger("loud");
        for number in 0..6000 {
            lan.carry(
                Recipient::Node(a.node.id()),
                &said("loud", ControlBody::Request { number, question: Question::Info }),
            );
        }
        a.settle().await;
        assert_eq!(heard.lock().len(), 4096, "what fits is answered, the rest is dropped");
        assert!(b.node.survey_nodes().await.unwrap().missing.is_empty());
    });
}

#[test]
fn a_burst_of_questions_is_answered() {
    three(async |_, [a, b, _]| {
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..3000 {
            let node = [a, b][number % 2].node.clone();
            asked.spawn_local(async move { node.refresh(user("nobody"), None).await });
        }
        assert!(asked.join_all().await.into_iter().all(|done| done == Ok(Missing::default())));
    });
}

#[test]
fn open_questions_are_bounded() {
    three(async |lan, [a, b, _]| {
        lan.unplug(b.node.id());
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..4096 {
            let node = a.node.clone();
            asked.spawn_local(async move { node.refresh(user("nobody"), None).await });
        }
        a.settle().await;
        let client = a.probe("user:42").await;
        let refused = a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await;
        assert_eq!(refused, Err(Refusal::TooManyRequests));
        assert_eq!(client.client.ended(), None, "nothing is done");
        let all = asked.join_all().await;
        assert!(
            all.iter().all(|done| done.as_ref().is_ok_and(|missing| missing.silent.contains(&b.node.id().to_owned())))
        );
        assert!(a.node.disconnect(user("42"), Disconnect::ForceDisconnect).await.is_ok());
    });
}

#[test]
fn a_revocation_reaches_nodes_that_are_deaf_and_those_that_come_later() {
    three(async |lan, [a, b, c]| {
        let (old, new) = ("user:42;age=60", "user:42;age=10");
        let clients = [a.probe(old).await, b.probe(old).await, c.probe(old).await];
        let newer = b.probe(new).await;
        let stranger = c.probe("user:7;age=60").await;
        lan.unplug(c.node.id());
        let before = unix_ms() / 1000 - 30;
        let began = Instant::now();
        let missing = a.node.revoke("42", before).await.expect("kept");
        assert_eq!(missing.silent, [c.node.id()], "it does not hear anything");
        assert!(began.elapsed() <= Duration::from_secs(1));
        a.settle().await;
        let ended = |client: &fanwire_testkit::FakeClient| client.client.ended();
        assert_eq!(
            clients.each_ref().map(ended),
            [Some(Disconnect::StateInvalidated), Some(Disconnect::StateInvalidated), None]
        );
        a.pass(Duration::from_secs(30)).await;
        assert_eq!(ended(&clients[2]), None, "it reads nothing either");

        lan.plug(c.node.id());
        a.pass(Duration::from_secs(1)).await;
        assert_eq!(ended(&clients[2]), Some(Disconnect::StateInvalidated));
        let late = Harness::start(config("late"), |dispatcher| lan.broker(dispatcher));
        late.settle().await;
        for node in [a, b, c, &late] {
            let connect = async |token: &str| {
                let request = ConnectRequest { token: token.to_owned(), ..ConnectRequest::default() };
                node.probe_unconnected("").client.connect(request).await.map(|_| ())
            };
            assert_eq!(connect(old).await, Err(Refusal::TokenExpired.into()));
            assert_eq!(connect(new).await, Ok(()));
        }
        assert!(ended(&newer).is_none() && ended(&stranger).is_none());
    });
}

#[test]
fn what_cannot_be_revoked_is_said() {
    three(async |_, [a, ..]| {
        let now = unix_ms() / 1000;
        assert_eq!(a.node.revoke("", now).await, Err(Refusal::BadRequest));
        assert_eq!(a.node.revoke("42", now + 60).await, Err(Refusal::BadRequest));
        let client = a.probe("user:42;age=60").await;
        a.faults.go_down();
        assert_eq!(a.node.revoke("42", now).await, Err(Refusal::Unavailable));
        a.settle().await;
        assert_eq!(client.client.ended(), None, "nothing is done");
        a.faults.heal();
        assert_eq!(a.node.revoke("42", now).await, Ok(Missing::default()));
        a.settle().await;
        assert_eq!(client.client.ended(), Some(Disconnect::StateInvalidated));
    });
}

fn all_like(pattern: &str) -> ChannelQuery {
    ChannelQuery { patterns: vec![pattern.to_owned()], after: None, limit: 10_000 }
}
