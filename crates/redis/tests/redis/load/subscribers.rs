//! Those who listen, as an SDK does: they recover when they are told to, and begin anew when they cannot.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fanwire_node::{Recovery, SubscribeRequest};
use fanwire_testkit::FakeClient;
use fanwire_testkit::oracle::{At, Event};
use fanwire_wire::{Epoch, Message, Position};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Node, id};

/// One client on one channel. It ends with its owner.
pub(super) struct Subscriber {
    pub(super) name: String,
    pub(super) channel: String,
    notes: Rc<RefCell<Notes>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Notes {
    events: Vec<(Instant, Event)>,
    live: bool,
    at: Option<At>,
    last: Option<u64>,
}

impl Subscriber {
    pub(super) fn start(name: String, channel: String, node: Rc<Node>) -> Self {
        let notes = Rc::<RefCell<Notes>>::default();
        let task = tokio::task::spawn_local(listen(node, channel.clone(), Rc::clone(&notes)));
        Self { name, channel, notes, task }
    }

    pub(super) fn is_live(&self) -> bool {
        self.notes.borrow().live
    }

    /// The last publication it saw.
    pub(super) fn last(&self) -> Option<u64> {
        self.notes.borrow().last
    }

    pub(super) fn take(&self) -> Vec<(Instant, Event)> {
        std::mem::take(&mut self.notes.borrow_mut().events)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(node: Rc<Node>, channel: String, notes: Rc<RefCell<Notes>>) {
    let client = node.harness.probe("").await;
    loop {
        while !notes.borrow().live {
            subscribe(&client, &channel, &notes).await;
        }
        for frame in client.take() {
            if frame.get("ping").is_some() {
                client.send(Message::Pong);
            } else {
                notes.borrow_mut().take(&frame);
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}

async fn subscribe(client: &FakeClient, channel: &str, notes: &RefCell<Notes>) {
    let since = notes.borrow().at.clone();
    let since = since.map(|at| Position { epoch: Epoch::from(&*at.epoch), offset: at.offset });
    let was_recovering = since.is_some();
    let request = SubscribeRequest { channel: channel.to_owned(), since, ..SubscribeRequest::default() };
    let Ok(subscribed) = Rc::clone(&client.client).subscribe(request).await else {
        sleep(Duration::from_millis(20)).await;
        return;
    };
    let mut notes = notes.borrow_mut();
    let missed = match subscribed.recovery {
        Some(Recovery::Complete(missed)) => Some(missed),
        _ => None,
    };
    notes.live = true;
    notes.at = subscribed.position.as_ref().map(At::from);
    let at = notes.at.clone();
    notes.write(Event::Subscribed { recovered: missed.is_some(), was_recovering, at });
    for publication in missed.into_iter().flatten() {
        let at = publication.stamp.as_ref().map(|stamp| At::from(&stamp.position));
        notes.publication(at, id(&publication.payload));
    }
}

impl Notes {
    fn take(&mut self, frame: &Value) {
        if let Some(code) = frame.get("unsubscribed").and(frame["code"].as_u64()) {
            self.live = false;
            self.write(Event::Unsubscribed { code: code as u32 });
        } else if let Some(pub_id) = frame["pub"].as_u64() {
            let at = frame["epoch"].as_str().zip(frame["offset"].as_u64());
            self.publication(at.map(|(epoch, offset)| At { epoch: epoch.to_owned(), offset }), pub_id);
        } else {
            panic!("unexpected: {frame}");
        }
    }

    fn publication(&mut self, at: Option<At>, pub_id: u64) {
        if at.is_some() {
            self.at = at.clone();
        }
        self.last = Some(pub_id);
        self.write(Event::Publication { at, pub_id: Some(pub_id) });
    }

    fn write(&mut self, event: Event) {
        self.events.push((Instant::now(), event));
    }
}
