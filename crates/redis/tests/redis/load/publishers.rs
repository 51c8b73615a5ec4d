//! Those who publish.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fanwire_node::Publish;
use fanwire_testkit::oracle::{At, Outcome, Published};
use fanwire_wire::{Payload, Refusal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Node, channel};

/// What is done about an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// It is tried again under the same key, until it is known.
    Always,
    /// Nothing: where Redis may forget the key, a repetition is another publication.
    Never,
}

/// A publication and what became of it.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) published: Published,
    /// When the last answer came.
    pub(super) at: Instant,
    /// There were other answers before.
    pub(super) failed: bool,
}

/// Several at the same time, each with channels of its own.
pub(super) struct Publishers {
    desk: Rc<Desk>,
    tasks: Vec<JoinHandle<()>>,
}

struct Desk {
    nodes: Vec<Rc<Node>>,
    settle: Settle,
    stopped: Cell<bool>,
    ids: Cell<u64>,
    sent: RefCell<Vec<Sent>>,
}

const LANES: usize = 10;

/// Between two publications of a lane: 200 in a second, all together.
const PAUSE: Duration = Duration::from_millis(50);

impl Publishers {
    pub(super) fn start(nodes: &[Rc<Node>], channels: &[String], settle: Settle) -> Self {
        let desk = Rc::new(Desk {
            nodes: nodes.to_vec(),
            settle,
            stopped: Cell::new(false),
            ids: Cell::new(0),
            sent: RefCell::default(),
        });
        let lane = |number: usize| {
            let own: Vec<_> = channels.iter().skip(number).step_by(LANES).cloned().collect();
            let desk = Rc::clone(&desk);
            tokio::task::spawn_local(async move {
                let mut ticks = interval(PAUSE);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for name in own.iter().cycle() {
                    ticks.tick().await;
                    if desk.stopped.get() {
                        return;
                    }
                    desk.publish(&desk.nodes, name, desk.settle).await;
                }
            })
        };
        let tasks = (0..LANES).map(lane).collect();
        Self { desk, tasks }
    }

    pub(super) async fn stop(&mut self) {
        self.desk.stopped.set(true);
        for task in self.tasks.drain(..) {
            task.await.expect("a publisher ends well");
        }
    }

    /// Publishes once, until it is acknowledged; returns its id.
    pub(super) async fn publish_surely(&self, name: &str) -> u64 {
        self.desk.publish(&self.desk.nodes, name, Settle::Always).await
    }

    /// Publishes once through each node, until it is acknowledged there.
    pub(super) async fn publish_everywhere(&self, name: &str) {
        for node in self.desk.nodes.chunks(1) {
            self.desk.publish(node, name, Settle::Always).await;
        }
    }

    pub(super) fn take(&self) -> Vec<Sent> {
        self.desk.sent.take()
    }
}

impl Desk {
    async fn publish(&self, nodes: &[Rc<Node>], name: &str, settle: Settle) -> u64 {
        let pub_id = self.ids.get() + 1;
        self.ids.set(pub_id);
        let key = format!("{pub_id}-{name}");
        let mut attempts = 0;
        let outcome = loop {
            let node = &nodes[(pub_id as usize + attempts) % nodes.len()];
            attempts += 1;
            let publish = Publish {
                idempotency_key: Some(key.as_str().into()),
                ..Publish::new(channel(name), Payload::json(pub_id.to_string().into()))
            };
            match node.harness.node.publish(publish).await {
                Ok(published) => break Outcome::Acked(published.position.as_ref().map(At::from)),
                Err(Refusal::OutcomeUnknown) if settle == Settle::Never => break Outcome::Unknown,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let published = Published { pub_id, channel: name.to_owned(), key: Some(key), outcome };
        self.sent.borrow_mut().push(Sent { published, at: Instant::now(), failed: attempts > 1 });
        pub_id
    }
}
