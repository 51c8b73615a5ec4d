//! Positions: what a subscriber gets while its history is being read, and whether a recovery is whole.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use fanwire_node::authorizer::Grant;
use fanwire_node::{Broker, Dispatcher, MemoryBroker};
use fanwire_node::{
    Client, Failure, Namespace, Publish, Recovery, RecoveryMode, Selection, SubscribeRequest, Subscribed,
};
use fanwire_testkit::Harness;
use fanwire_testkit::harness::{self, open_config};
use fanwire_wire::{Broadcast, Channel, Payload, Position, Publication, Refusal, Stamp};
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn what_is_under_way_is_not_delivered_twice() {
    // The publication is in the history, and still in the mailbox: with another subscriber there, and without.
    for others in [0, 1] {
        harness::run(open_config(Namespace::open("")), async |harness| {
            let mut subscribers = Vec::new();
            for _ in 0..others {
                let other = harness.probe("").await;
                other.subscribe("chat").await.unwrap();
                subscribers.push(other);
            }
            let late = harness.probe("").await;
            publish(harness, 0).await;
            harness.settle().await;
            publish(harness, 1).await;
            publish(harness, 2).await;
            let subscribed = late.subscribe("chat").await.unwrap();
            assert_eq!(subscribed.position.unwrap().offset, 3);
            publish(harness, 3).await;
            harness.settle().await;
            assert_eq!(late.take_publications(), [3], "with {others} others");
            for other in &subscribers {
                assert_eq!(other.take_publications(), [0, 1, 2, 3]);
            }
        });
    }
}

#[test]
fn what_is_under_way_is_not_delivered_twice_after_a_recovery() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let other = harness.probe("").await;
        let start = other.subscribe("chat").await.unwrap().position;
        let late = harness.probe("").await;
        publish(harness, 0).await;
        publish(harness, 1).await;
        let subscribed = recover(&late.client, start.clone().unwrap()).await.unwrap();
        publish(harness, 2).await;
        assert_eq!(subscribed.position, start, "the client walks up from where it stood");
        assert_eq!(recovered(&subscribed), Some(vec![json!(0), json!(1)]));
        harness.settle().await;
        assert_eq!(late.take_publications(), [2]);
        assert_eq!(other.take_publications(), [0, 1, 2]);
    });
}

#[test]
fn a_recovery_excludes_too_and_stays_whole() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let [ann, bob] = [harness.probe("").await, harness.probe("").await];
        let start = ann.subscribe("chat").await.unwrap().position.unwrap();
        ann.client.unsubscribe("chat").await;
        publish(harness, 0).await;
        let own = Publish::new(channel("chat"), Payload::json("1".into()));
        let exclude = Client::parse_id(&ann.client.id());
        harness.node.publish(Publish { exclude, ..own }).await.unwrap();
        let subscribed = recover(&ann.client, start.clone()).await.unwrap();
        assert_eq!(recovered(&subscribed), Some(vec![json!(0)]));
        // From where the last one it saw stands, too; and a connection with another id is not excluded.
        ann.client.unsubscribe("chat").await;
        publish(harness, 2).await;
        let seen = Position { offset: start.offset + 1, ..start.clone() };
        assert_eq!(recovered(&recover(&ann.client, seen).await.unwrap()), Some(vec![json!(2)]));
        assert_eq!(recovered(&recover(&bob.client, start).await.unwrap()), Some(vec![json!(0), json!(1), json!(2)]));
    });
}

#[test]
fn what_comes_while_history_is_read_is_merged() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        for n in 0..3 {
            publish(harness, n).await;
        }
        let epoch = position(harness).await.epoch;
        let at = |offset| Position { epoch: epoch.clone(), offset };
        for (since, from) in [(at(3), 3), (at(1), 1)] {
            let before = position(harness).await.offset;
            let late = harness.probe("").await;
            harness.faults.hold_answers();
            let client = Rc::clone(&late.client);
            let subscribing = tokio::task::spawn_local(async move { recover(&client, since).await });
            harness.settle().await;
            publish(harness, 10).await;
            publish(harness, 11).await;
            harness.settle().await;
            harness.faults.heal();
            harness.settle().await;
            let subscribed = subscribing.await.unwrap().unwrap();
            assert_eq!(subscribed.position.as_ref().map(|position| position.offset), Some(from));
            let offsets = offsets(&subscribed).unwrap();
            assert_eq!(offsets, (from + 1..=before + 2).collect::<Vec<_>>(), "contiguous from where it stood");
            publish(harness, 12).await;
            harness.settle().await;
            assert_eq!(late.take_publications(), [12]);
        }
    });
}

#[test]
fn a_lost_publication_is_told() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let positioned = harness.probe("").await;
        positioned.subscribe("chat").await.unwrap();
        publish(harness, 1).await;
        harness.settle().await;
        assert_eq!(positioned.take_publications(), [1]);
        let Position { epoch, offset } = position(harness).await;
        // One was lost on its way: the next one does not follow what the worker knows.
        let lost = Stamp { position: Position { epoch: epoch.clone(), offset: offset + 2 }, prev: offset + 1 };
        inject(harness, lost);
        harness.pass(Duration::from_secs(5)).await;
        assert_eq!(positioned.take(), [json!({"unsubscribed": "chat", "code": 2500})]);
        assert_eq!(harness.node.counts().await.subscriptions, 0);
        // What is old is dropped, whatever it says.
        positioned.subscribe("chat").await.unwrap();
        inject(harness, Stamp { position: Position { epoch, offset }, prev: offset - 1 });
        harness.settle().await;
        assert_eq!(positioned.take_publications(), Vec::<Value>::new());
    });
}

#[test]
fn a_worker_that_missed_publications_does_not_hold_up_who_comes_new() {
    // A broker whose deliveries are lost; the test delivers.
    let deaf = |_| -> Box<dyn Broker> { Box::new(MemoryBroker::new(Dispatcher::new(1))) };
    harness::run_with(open_config(Namespace::open("")), deaf, async |harness| {
        let early = harness.probe("").await;
        early.subscribe("chat").await.unwrap();
        publish(harness, 1).await;
        let Position { epoch, .. } = position(harness).await;
        let stamp = |offset| Stamp { position: Position { epoch: epoch.clone(), offset }, prev: offset - 1 };
        inject(harness, stamp(1));
        harness.settle().await;
        assert_eq!(early.take_publications(), ["injected"]);
        publish(harness, 2).await;
        publish(harness, 3).await;
        let late = harness.probe("").await;
        let client = Rc::clone(&late.client);
        let subscribing = tokio::task::spawn_local(async move { subscribe(&client, "chat", None, false).await });
        harness.pass(Duration::from_secs(10)).await;
        assert!(subscribing.is_finished(), "the wait is bounded");
        let subscribed = subscribing.await.unwrap().unwrap();
        assert_eq!(subscribed.position.unwrap().offset, 3);
        assert_eq!(early.take(), [json!({"unsubscribed": "chat", "code": 2500})], "who missed them is told");
        // They come after all: for the new one they are old.
        inject(harness, stamp(2));
        inject(harness, stamp(3));
        inject(harness, stamp(4));
        harness.settle().await;
        assert_eq!((late.take_publications(), early.take_publications()), (vec![json!("injected")], vec![]));
    });
}

#[test]
fn another_life_of_the_stream_is_told() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let positioned = harness.probe("").await;
        let before = positioned.subscribe("chat").await.unwrap().position.unwrap();
        publish(harness, 1).await;
        harness.settle().await;
        assert_eq!(positioned.take_publications(), [1]);
        let other = Position { epoch: "other".into(), offset: 2 };
        inject(harness, Stamp { position: other.clone(), prev: 1 });
        harness.pass(Duration::from_secs(5)).await;
        assert_eq!(positioned.take(), [json!({"unsubscribed": "chat", "code": 2500})]);
        let mut since = before;
        since.epoch = "other".into();
        let subscribed = recover(&positioned.client, since).await.unwrap();
        assert_eq!(subscribed.recovery, Some(Recovery::Failed));
    });
}

#[test]
fn recovery_is_whole_or_refused() {
    harness::run(open_config(Namespace { history_size: 3, ..Namespace::open("") }), async |harness| {
        let client = harness.probe("").await;
        let client = &client.client;
        let start = position(harness).await;
        let at = |offset| Position { offset, ..start.clone() };
        for n in 1..=5 {
            publish(harness, n).await;
        }
        let outcome = async |since| {
            let subscribed = recover(client, since).await.unwrap();
            client.unsubscribe("chat").await;
            (subscribed.position.as_ref().unwrap().offset, recovered(&subscribed))
        };
        assert_eq!(outcome(at(5)).await, (5, Some(vec![])));
        assert_eq!(outcome(at(2)).await, (2, Some(vec![json!(3), json!(4), json!(5)])));
        assert_eq!(outcome(at(1)).await, (5, None), "the second is gone");
        assert_eq!(outcome(at(0)).await, (5, None));
        assert_eq!(outcome(at(6)).await, (5, None), "ahead of the stream");
        assert_eq!(outcome(Position { epoch: "x".into(), offset: 5 }).await, (5, None), "another life");
        assert_eq!(
            outcome(Position { epoch: "".into(), offset: 4 }).await,
            (4, Some(vec![json!(5)])),
            "no epoch known"
        );
        let refused = subscribe(client, "chat", Some(at(1)), true).await.unwrap_err();
        assert_eq!(refused, Failure::Refusal(Refusal::UnrecoverablePosition));
        harness.node.remove_history(&channel("chat")).await.unwrap();
        assert_eq!(outcome(at(5)).await, (5, Some(vec![])), "at the top nothing is missing");
        assert_eq!(outcome(at(4)).await, (5, None));
        assert_eq!(harness.node.counts().await.subscriptions, 0);
    });
}

#[test]
fn recovery_has_a_limit() {
    let mut config = open_config(Namespace::open(""));
    // Of history calls; recovery goes as far as the history does, and the queue takes.
    config.client.history_limit = 3;
    config.client.queue_size = 20_000;
    harness::run(config, async |harness| {
        let client = harness.probe("").await;
        let start = position(harness).await;
        for n in 1..=80 {
            publish(harness, n).await;
        }
        let whole = recover(&client.client, Position { offset: 10, ..start.clone() }).await.unwrap();
        assert_eq!(offsets(&whole), Some((11..=80).collect()));
        client.client.unsubscribe("chat").await;
        let too_much = recover(&client.client, start).await.unwrap();
        assert_eq!((too_much.recovery, too_much.position.unwrap().offset), (Some(Recovery::Failed), 80));
    });
}

#[test]
fn a_cache_gives_the_latest() {
    let cache = Namespace { recovery_mode: RecoveryMode::Cache, ..Namespace::open("") };
    harness::run(open_config(cache), async |harness| {
        let client = harness.probe("").await;
        let client = &client.client;
        let outcome = async |since| {
            let subscribed = recover(client, since).await.unwrap();
            client.unsubscribe("chat").await;
            (subscribed.position.as_ref().unwrap().offset, recovered(&subscribed))
        };
        assert_eq!(outcome(Position::default()).await, (0, None), "there is none yet");
        for n in 1..=3 {
            publish(harness, n).await;
        }
        let top = position(harness).await;
        assert_eq!(outcome(Position::default()).await, (3, Some(vec![json!(3)])));
        assert_eq!(outcome(Position { epoch: "x".into(), offset: 9 }).await, (3, Some(vec![json!(3)])));
        assert_eq!(outcome(top).await, (3, Some(vec![])), "known already");
        harness.node.remove_history(&channel("chat")).await.unwrap();
        assert_eq!(outcome(Position::default()).await, (3, None));
    });
}

#[test]
fn the_server_recovers_a_subscription_it_makes() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let client = harness.probe("user:42").await;
        let start = position(harness).await;
        publish(harness, 1).await;
        publish(harness, 2).await;
        let selection = Selection { user: "42".into(), ..Selection::default() };
        harness.node.subscribe(selection, channel("chat"), Grant::default(), Some(start.clone())).await.unwrap();
        harness.settle().await;
        publish(harness, 3).await;
        harness.settle().await;
        let frames = client.take();
        assert_eq!(frames[0], json!({"subscribed": "chat", "epoch": start.epoch.as_str(), "offset": 0}));
        let publications: Vec<_> = frames.iter().filter_map(|frame| frame.get("pub")).collect();
        assert_eq!(
            publications,
            [1, 2, 3],
            "nothing between the position it was told and the first live one is missing"
        );
    });
}

#[test]
fn too_much_at_once_is_told() {
    harness::run(open_config(Namespace::open("")), async |harness| {
        let late = harness.probe("user:42").await;
        harness.faults.hold_answers();
        let client = Rc::clone(&late.client);
        let subscribing = tokio::task::spawn_local(async move { subscribe(&client, "chat", None, false).await });
        harness.settle().await;
        for n in 0..2000 {
            publish(harness, n).await;
        }
        harness.settle().await;
        harness.faults.heal();
        let outcome = subscribing.await.unwrap();
        assert_eq!(outcome.unwrap_err(), Failure::Disconnect(fanwire_wire::Disconnect::InsufficientState));
        late.client.close(fanwire_wire::Disconnect::InsufficientState);
        harness.settle().await;
        assert!(late.is_gone());
        assert_eq!(harness.node.members(&channel("chat")).await.unwrap(), [], "nobody stays behind in presence");
        assert_eq!(harness.node.counts().await, fanwire_node::Counts::default());
    });
}

async fn publish(harness: &Harness, n: i32) {
    let publish = Publish::new(channel("chat"), Payload::json(n.to_string().into()));
    harness.node.publish(publish).await.unwrap();
}

async fn position(harness: &Harness) -> Position {
    harness.node.history(&channel("chat"), fanwire_node::HistoryRequest::default()).await.unwrap().top
}

fn inject(harness: &Harness, stamp: Stamp) {
    let publication = Publication {
        channel: channel("chat"),
        payload: Payload::json("\"injected\"".into()),
        event: None,
        tags: Arc::default(),
        info: None,
        exclude: None,
        stamp: Some(stamp),
        time_ms: 0,
    };
    harness.dispatcher.dispatch(&Broadcast::Publication(Arc::new(publication)));
}

async fn recover(client: &Rc<Client>, since: Position) -> Result<Subscribed, Failure> {
    subscribe(client, "chat", Some(since), false).await
}

async fn subscribe(
    client: &Rc<Client>,
    channel: &str,
    since: Option<Position>,
    reject_unrecovered: bool,
) -> Result<Subscribed, Failure> {
    let request =
        SubscribeRequest { channel: channel.to_owned(), since, reject_unrecovered, ..SubscribeRequest::default() };
    client.subscribe(request).await
}

fn recovered(subscribed: &Subscribed) -> Option<Vec<Value>> {
    let Some(Recovery::Complete(publications)) = &subscribed.recovery else { return None };
    Some(publications.iter().map(|p| serde_json::from_slice(p.payload.bytes()).unwrap()).collect())
}

fn offsets(subscribed: &Subscribed) -> Option<Vec<u64>> {
    let Some(Recovery::Complete(publications)) = &subscribed.recovery else { return None };
    Some(publications.iter().map(|p| p.stamp.as_ref().unwrap().position.offset).collect())
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}
