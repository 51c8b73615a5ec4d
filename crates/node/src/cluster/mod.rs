//! A node among others: who is there, what they tell each other, and what one asks of all.
//!
//! - `registry`: who else is there; `inbox`: what they say, and who waits for their answers
//! - `ask`: questions to all nodes, and what came of them; `answer`: what this node does when it is asked
//!
//! What a node asks of all it does at its own place directly, and passes over when it hears itself: so everything
//! happens exactly once on each node, and with a broken broker at least here.

mod answer;
mod ask;
mod channels;
mod connections;
mod inbox;
mod metrics;
mod registry;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire_wire::cluster::{Control, ControlBody, NodeInfo, NodeState};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use self::metrics::Metrics;
use self::registry::Registry;
use crate::broker::Recipient;
use crate::{Node, Phase};

pub use ask::{Missing, NodeReport, NodeSurvey, ReportSurvey};
pub use channels::{ChannelQuery, ChannelSurvey};
pub use connections::ConnectionSurvey;
pub(crate) use inbox::Inbox;

/// What a node knows of the others.
pub(crate) struct Cluster {
    started: Instant,
    /// Its goodbye is said: nothing more is announced.
    left: AtomicBool,
    registry: Mutex<Registry>,
    metrics: Metrics,
}

/// A node as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its id, new with every start.
    pub id: String,
    /// What it has.
    pub info: NodeInfo,
    /// How old that is.
    pub age: Duration,
    /// It left the last question unanswered.
    pub silent: bool,
}

/// How often a node says that it is there.
const ANNOUNCEMENT: Duration = Duration::from_secs(3);

/// The same until it hears itself: only then the others can have heard it, and it them.
const GREETING: Duration = Duration::from_millis(250);

/// What is answered at the same moment.
const MAX_ANSWERING: usize = 256;

/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            left: AtomicBool::new(false),
            registry: Mutex::new(Registry::new()),
            metrics: Metrics::new(),
        }
    }
}

impl Node {
    /// Takes part in the cluster, for ever: says that the node is there, answers what the others ask, and learns which tokens are
    /// revoked.
    pub async fn take_part(self: Arc<Self>) {
        tokio::join!(self.announce_for_ever(), self.attend(), self.follow_revocations());
    }

    /// The nodes this one sees. Its own entry comes first and is exact, the others are as old as they say.
    pub async fn nodes(&self) -> Vec<NodeView> {
        let own = NodeView { id: self.id().to_owned(), info: self.info().await, age: Duration::ZERO, silent: false };
        let mut nodes = vec![own];
        nodes.extend(self.cluster().registry.lock().views());
        nodes
    }

    /// What this node has.
    pub(crate) async fn info(&self) -> NodeInfo {
        let cluster = self.cluster();
        let (counts, traffic) = tokio::join!(self.counts(), self.traffic());
        let draining = self.phase() > Phase::Active || !self.is_open();
        NodeInfo {
            name: self.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: cluster.started.elapsed(),
            clients: counts.clients as u64,
            users: counts.users as u64,
            subscriptions: counts.subscriptions as u64,
            channels: counts.channels as u64,
            workers: self.workers() as u32,
            state: if draining { NodeState::Draining } else { NodeState::Active },
            traffic,
        }
    }

    /// Tells the others that this node's clients are sent away.
    pub(crate) async fn announce_draining(&self) {
        // Whoever does not hear it sees it at the end.
        let _ = timeout(FAREWELL, self.announce(Recipient::All, false)).await;
    }

    /// Tells the others that this node is gone, so that nobody waits for it.
    pub(crate) async fn say_farewell(&self) {
        self.cluster().left.store(true, Ordering::Relaxed);
        // Whoever does not hear it forgets the node a little later.
        let _ = timeout(FAREWELL, self.tell(Recipient::All, ControlBody::Farewell)).await;
    }

    async fn announce_for_ever(&self) {
        let cluster = self.cluster();
        while !cluster.left.load(Ordering::Relaxed) {
            let greeting = cluster.registry.lock().is_stranger();
            self.announce(Recipient::All, greeting).await;
            let seen = {
                let mut registry = cluster.registry.lock();
                registry.forget_silent();
                1 + registry.ids().len()
            };
            cluster.metrics.nodes.set(seen as f64);
            sleep(if greeting { GREETING } else { ANNOUNCEMENT }).await;
        }
    }

    async fn announce(&self, to: Recipient<'_>, greeting: bool) {
        let node = self.info().await;
        self.tell(to, ControlBody::Announcement { node, greeting }).await;
    }

    /// Says something; what does not get through is missed by those who wait for it.
    async fn tell(&self, to: Recipient<'_>, body: ControlBody) {
        let kind = body.kind();
        let control = Control { from: self.id().to_owned(), body };
        if let Err(error) = self.broker().tell(to, control).await {
            tracing::debug!(%error, kind, "other nodes are not told");
        }
    }

    /// Listens to the others, for ever. What they ask is begun in their order, and answered as it gets done.
    async fn attend(self: &Arc<Self>) {
        let mut inbox = self.dispatcher().inbox().listen().await;
        let mut answering = FuturesUnordered::new();
        loop {
            tokio::select! {
                control = inbox.recv(), if answering.len() < MAX_ANSWERING => match control {
                    Some(control) => answering.extend(self.hear(control).await),
                    None => return,
                },
                Some(()) = answering.next(), if !answering.is_empty() => {}
            }
        }
    }

    /// Takes what a node says. What it still has to be told takes its time.
    async fn hear(self: &Arc<Self>, Control { from, body }: Control) -> Option<BoxFuture<'static, ()>> {
        let cluster = self.cluster();
        if from == self.id() {
            if matches!(body, ControlBody::Announcement { .. }) {
                cluster.registry.lock().heard_itself();
            }
            return None;
        }
        cluster.metrics.heard(&body);
        cluster.registry.lock().heard(&from);
        match body {
            ControlBody::Announcement { node, greeting } => {
                cluster.registry.lock().announced(&from, node);
                let own = Arc::clone(self);
                greeting.then(|| async move { own.announce(Recipient::Node(&from), false).await }.boxed())
            }
            ControlBody::Farewell => {
                cluster.registry.lock().left(&from);
                None
            }
            ControlBody::Request { number, question } => {
                let answer = self.answer(question).await;
                let node = Arc::clone(self);
                let reply = async move {
                    let answer = answer.await;
                    node.tell(Recipient::Node(&from), ControlBody::Reply { number, answer }).await;
                };
                Some(reply.boxed())
            }
            // They go straight to who asked.
            ControlBody::Reply { .. } => None,
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("registry", &self.registry).finish_non_exhaustive()
    }
}
