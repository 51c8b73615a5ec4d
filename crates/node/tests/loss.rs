//! The word that something is lost for good, and a subscriber that joins while it passes.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_node::broker::{Error, History, HistoryQuery, PublishOptions, Published, Recipient, Resume};
use fanwire_node::sequencer::Comparison;
use fanwire_node::{Broker, Dispatcher, Namespace, Recovery, Sequencer, SubscribeRequest};
use fanwire_testkit::Harness;
use fanwire_testkit::harness::{open_config, run_with};
use fanwire_wire::cluster::Control;
use fanwire_wire::{Broadcast, Channel, Payload, Position, Publication, Stamp};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

#[test]
fn who_joins_while_a_stream_is_lost_begins_anew() {
    let end = Arc::new(Mutex::new(position("old", 1)));
    let sequencer = Mutex::new(None);
    let broker = |dispatcher: Arc<Dispatcher>| -> Box<dyn Broker> {
        let read = {
            let end = Arc::clone(&end);
            move |_, _| ready(Ok(History { publications: Vec::new(), top: end.lock().clone() })).boxed()
        };
        *sequencer.lock() = Some(Sequencer::new(dispatcher, Box::new(read)));
        Box::new(Stub(Arc::clone(&end)))
    };
    run_with(open_config(Namespace::open("")), broker, async |harness: &Harness| {
        let sequencer = sequencer.lock().clone().expect("the broker is made");
        let channel = Channel::new("chat").expect("a good name");
        sequencer.follow(&channel);
        sequencer.accept(&Broadcast::Publication(publication(&channel)));
        let late = harness.probe("").await;
        let client = Rc::clone(&late.client);
        // Its answer is on the way, and says where the stream stood.
        harness.faults.hold_answers();
        let request =
            SubscribeRequest { channel: "chat".into(), since: Some(position("old", 1)), ..SubscribeRequest::default() };
        let subscribing = tokio::task::spawn_local(async move { client.subscribe(request).await });
        harness.settle().await;
        *end.lock() = position("new", 0);
        sequencer.compare(&channel, &position("old", 1), None, Comparison::Suspicious);
        harness.settle().await;
        harness.faults.heal();
        harness.settle().await;
        let subscribed = subscribing.await.expect("no panic").expect("anyone may subscribe");
        assert_eq!(subscribed.recovery, Some(Recovery::Failed), "what it stood behind is gone");
        assert_eq!(subscribed.position, Some(position("new", 0)));
        assert!(late.take().iter().all(|frame| frame.get("unsubscribed").is_none()), "it has been told already");
    });
}

/// A broker whose streams are empty and end where the test says.
struct Stub(Arc<Mutex<Position>>);

impl Broker for Stub {
    fn publish(&self, _: Publication, _: PublishOptions) -> BoxFuture<'_, Result<Published, Error>> {
        ready(Ok(Published::default())).boxed()
    }

    fn tell(&self, _: Recipient<'_>, _: Control) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(())).boxed()
    }

    fn subscribe(&self, _: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(())).boxed()
    }

    fn unsubscribe(&self, _: &Channel) {}

    fn history(&self, _: &Channel, _: HistoryQuery) -> BoxFuture<'_, Result<History, Error>> {
        ready(Ok(History { publications: Vec::new(), top: self.0.lock().clone() })).boxed()
    }

    fn resume(&self, channel: &Channel, resume: Resume) -> BoxFuture<'_, Result<History, Error>> {
        self.history(channel, resume.query())
    }

    fn remove_history(&self, _: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(())).boxed()
    }
}

fn position(epoch: &str, offset: u64) -> Position {
    Position { epoch: epoch.into(), offset }
}

fn publication(channel: &Channel) -> Arc<Publication> {
    Arc::new(Publication {
        channel: channel.clone(),
        payload: Payload::json("1".into()),
        event: None,
        tags: Arc::default(),
        info: None,
        exclude: None,
        stamp: Some(Stamp { position: position("old", 1), prev: 0 }),
        time_ms: 0,
    })
}
