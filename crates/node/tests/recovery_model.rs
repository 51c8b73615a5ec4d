//! Whatever happens in whatever order: a recovered subscription has no gap, no duplicate and nothing out of order.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fanwire_node::{HistoryRequest, Namespace, Publish, Recovery, SubscribeRequest};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness};
use fanwire_wire::{Channel, Payload, Position};
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::sleep;

/// The publications kept, and the most a recovery may bring.
const SIZE: usize = 6;

/// What a subscriber does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Subscribe,
    Unsubscribe,
    /// Loses its connection, with everything that had not arrived, and opens another.
    Reconnect,
    /// Reads nothing for a while.
    Stall(u64),
    Wait(u64),
}

/// What a publisher does.
#[derive(Clone, Copy, Debug)]
enum Source {
    Publish,
    Trim,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Subscribe),
        2 => Just(Act::Unsubscribe),
        2 => Just(Act::Reconnect),
        1 => (1_u64..20).prop_map(Act::Stall),
        3 => (0_u64..15).prop_map(Act::Wait),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        8 => Just(Source::Publish),
        1 => Just(Source::Trim),
        4 => (0_u64..10).prop_map(Source::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn recovered_means_whole(
        subscribers in prop::collection::vec(prop::collection::vec(act(), 1..25), 1..5),
        publishers in prop::collection::vec(prop::collection::vec(source(), 1..40), 1..3),
        seed in any::<u64>(),
        dawdle in 0_u64..8,
    ) {
        let mut config = open_config(Namespace { history_size: SIZE, ..Namespace::open("") });
        config.client.history_limit = SIZE;
        harness::run(config, async |harness| {
            harness.faults.dawdle(seed, Duration::from_millis(dawdle));
            let log = Rc::new(Log::default());
            let harness = Rc::new(harness);
            let publishing = publishers.into_iter().map(|script| publish(&harness, &log, script));
            let subscribing = subscribers.into_iter().map(|script| subscribe(&harness, &log, script));
            let subscribing = async { futures_util::future::join_all(subscribing).await };
            let publishing = async { futures_util::future::join_all(publishing).await };
            let (models, _) = tokio::join!(subscribing, publishing);
            harness.pass(Duration::from_secs(1)).await;
            let top = history(&harness).await;
            for mut model in models {
                model.read(&log);
                if model.subscribed {
                    assert_eq!(model.position.as_ref(), Some(&top), "everyone who is subscribed is at the top");
                }
            }
        });
    }
}

/// What was published, by offset. (The harness makes one epoch per channel.)
#[derive(Default)]
struct Log {
    acknowledged: RefCell<BTreeMap<u64, i64>>,
    /// What subscribers saw; a publication may arrive before it is acknowledged.
    seen: RefCell<BTreeMap<u64, i64>>,
    next: RefCell<i64>,
    /// Up to where the history was trimmed.
    trimmed: RefCell<Vec<u64>>,
}

impl Log {
    fn see(&self, offset: u64, data: i64) {
        let known = *self.seen.borrow_mut().entry(offset).or_insert(data);
        assert_eq!(known, data, "one offset, one publication");
        if let Some(acknowledged) = self.acknowledged.borrow().get(&offset) {
            assert_eq!(*acknowledged, data, "as acknowledged");
        }
    }
}

async fn publish(harness: &Harness, log: &Log, script: Vec<Source>) {
    for step in script {
        match step {
            Source::Publish => {
                let data = {
                    let mut next = log.next.borrow_mut();
                    *next += 1;
                    *next
                };
                let publish = Publish::new(channel(), Payload::json(data.to_string().into()));
                let position = harness.node.publish(publish).await.unwrap().position.unwrap();
                log.acknowledged.borrow_mut().insert(position.offset, data);
                log.see(position.offset, data);
            }
            Source::Trim => {
                // As long as it is under way, anything may be gone.
                let index = log.trimmed.borrow().len();
                log.trimmed.borrow_mut().push(u64::MAX);
                harness.node.remove_history(&channel()).await.unwrap();
                let top = history(harness).await.offset;
                log.trimmed.borrow_mut()[index] = top;
            }
            Source::Wait(ms) => sleep(Duration::from_millis(ms)).await,
        }
    }
}

async fn subscribe<'a>(harness: &'a Harness, log: &Log, script: Vec<Act>) -> Model<'a> {
    let mut model = Model { harness, client: harness.probe("").await, subscribed: false, position: None };
    for step in script {
        model.read(log);
        match step {
            Act::Subscribe if !model.subscribed => model.subscribe(log).await,
            Act::Subscribe => {}
            Act::Unsubscribe => {
                model.client.client.unsubscribe("chat").await;
                model.read(log);
                model.subscribed = false;
            }
            Act::Reconnect => {
                model.client = harness.probe("").await;
                model.subscribed = false;
            }
            Act::Stall(ms) => {
                model.client.socket.fill(3);
                sleep(Duration::from_millis(ms)).await;
                model.client.socket.drain();
                // What waited arrives before the answer to whatever the client asks next.
                sleep(Duration::from_millis(1)).await;
            }
            Act::Wait(ms) => sleep(Duration::from_millis(ms)).await,
        }
    }
    model
}

/// What a client library knows.
struct Model<'a> {
    harness: &'a Harness,
    client: FakeClient,
    subscribed: bool,
    position: Option<Position>,
}

impl Model<'_> {
    async fn subscribe(&mut self, log: &Log) {
        let before = history(self.harness).await;
        let since = self.position.clone();
        let request = SubscribeRequest { channel: "chat".into(), since: since.clone(), ..SubscribeRequest::default() };
        let subscribed = self.client.client.subscribe(request).await.unwrap();
        let position = subscribed.position.expect("the channel has positions");
        match subscribed.recovery {
            Some(Recovery::Complete(publications)) => {
                assert_eq!(Some(&position), since.as_ref(), "from where it stood");
                self.position = Some(position);
                for publication in publications {
                    let stamp = publication.stamp.as_ref().expect("kept publications have a place");
                    let data: i64 = serde_json::from_slice(publication.payload.bytes()).unwrap();
                    self.advance(log, stamp.prev, stamp.position.offset, data);
                }
            }
            Some(Recovery::Failed) => {
                // Refused only if something can really be missing: too much, or trimmed, by the end of the request.
                let since = since.expect("it asked").offset;
                let top = history(self.harness).await.offset;
                let trimmed = log.trimmed.borrow().iter().any(|trimmed| *trimmed > since);
                assert!(trimmed || top - since > SIZE as u64, "{since} could be recovered at {top}");
                assert!(position.offset >= before.offset);
                self.position = Some(position);
            }
            None => {
                assert!(since.is_none() && position.offset >= before.offset);
                self.position = Some(position);
            }
        }
        self.subscribed = true;
        self.read(log);
    }

    /// Takes what arrived.
    fn read(&mut self, log: &Log) {
        for frame in self.client.take() {
            if frame.get("pub").is_some() {
                let number = |name: &str| frame[name].as_u64().expect("a number");
                assert!(self.subscribed, "nothing arrives outside of a subscription");
                self.advance(log, number("prev"), number("offset"), frame["pub"].as_i64().expect("a number"));
            } else {
                assert!(frame.get("join").or(frame.get("leave")).is_some_and(Value::is_string), "{frame}");
            }
        }
    }

    fn advance(&mut self, log: &Log, prev: u64, offset: u64, data: i64) {
        let position = self.position.as_mut().expect("it has a position");
        assert_eq!(prev, position.offset, "no gap, no repetition, no step back");
        position.offset = offset;
        log.see(offset, data);
    }
}

async fn history(harness: &Harness) -> Position {
    harness.node.history(&channel(), HistoryRequest::default()).await.unwrap().top
}

fn channel() -> Channel {
    Channel::new("chat").unwrap()
}
