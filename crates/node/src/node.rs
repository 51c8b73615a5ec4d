//! What a node's workers and its control plane share.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fanwire_wire::{Channel, ClientInfo, Disconnect, Payload, Position, Publication, Refusal};
use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::admission::Admission;
use crate::authorizer::Authorizer;
use crate::broker::{self, Broker, Condition, History, PublishOptions, Published, Verdict};
use crate::client::HistoryRequest;
use crate::clock;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::drain::{Drain, Phase};
use crate::hand_over::HandOver;
use crate::hooks::Hooks;
use crate::mailbox::Letter;
use crate::metrics::Metrics;
use crate::namespace::{Namespace, Namespaces};
use crate::presence::{Presence, PresenceStats};
use crate::rebalance::Rebalancing;
use crate::revocations::Revocations;
use crate::shedding::Shedding;
use crate::users::Users;
use crate::{Dispatcher, Worker};

/// What a node's workers and its control plane share.
pub struct Node {
    /// People's name for it; empty for its id.
    name: String,
    rules: ArcSwap<Rules>,
    dispatcher: Arc<Dispatcher>,
    broker: Box<dyn Broker>,
    presence: Box<dyn Presence>,
    authorizer: Box<dyn Authorizer>,
    hooks: Option<Box<dyn Hooks>>,
    metrics: Metrics,
    /// Connections of each worker, those on their way to it included.
    connections: Box<[AtomicUsize]>,
    admission: Admission,
    shedding: Shedding,
    handing_over: HandOver,
    way_down: Drain,
    rebalancing: Rebalancing,
    /// A second owner for each farewell that is under way.
    farewells: Arc<()>,
    users: Users,
    cluster: Cluster,
    revocations: Revocations,
}

/// What may change while the node runs, always as a whole.
struct Rules {
    config: Arc<Config>,
    namespaces: Namespaces,
}

impl From<Config> for Rules {
    fn from(config: Config) -> Self {
        Self { namespaces: Namespaces::new(&config.namespaces), config: Arc::new(config) }
    }
}

/// What a [`Node`] is made of.
pub struct Parts {
    /// Limits and rules.
    pub config: Config,
    /// The way from the broker to the workers; `broker` was made with it.
    pub dispatcher: Arc<Dispatcher>,
    /// Carries publications.
    pub broker: Box<dyn Broker>,
    /// Knows who is where.
    pub presence: Box<dyn Presence>,
    /// Verifies tokens.
    pub authorizer: Box<dyn Authorizer>,
    /// Asks backends, if there are any to ask.
    pub hooks: Option<Box<dyn Hooks>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A publication on its way to the broker.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to.
    pub channel: Channel,
    /// What.
    pub payload: Payload,
    /// A name some protocols give their publications.
    pub event: Option<Arc<str>>,
    /// Labels for the application.
    pub tags: Arc<[(String, String)]>,
    /// In whose name, if a client's.
    pub info: Option<ClientInfo>,
    /// The id of the one client that does not get it: see [`Client::parse_id`](crate::Client::parse_id).
    pub exclude: Option<[u8; 16]>,
    /// Applied at most once under this key.
    pub idempotency_key: Option<Arc<str>>,
    /// Not kept in the history, so without a position.
    pub skip_history: bool,
    /// Applied only if this is true of the channel, which has to keep it.
    pub condition: Option<Condition>,
}

impl Publish {
    /// A publication with nothing but data.
    #[must_use]
    pub fn new(channel: Channel, payload: Payload) -> Self {
        Self {
            channel,
            payload,
            event: None,
            tags: Arc::default(),
            info: None,
            exclude: None,
            idempotency_key: None,
            skip_history: false,
            condition: None,
        }
    }
}

/// How many of what a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open connections that are somebody's.
    pub clients: usize,
    /// Different user ids, the anonymous one counted once.
    pub users: usize,
    /// Channels with subscribers.
    pub channels: usize,
    /// Subscriptions.
    pub subscriptions: usize,
}

impl Node {
    /// Puts a node together. Its workers are started with [`Worker::start`], one for each of the dispatcher's.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, dispatcher, broker, presence, authorizer, hooks } = parts;
        let shedding = Shedding::new(dispatcher.mailboxes().len());
        Arc::new(Self {
            connections: dispatcher.mailboxes().iter().map(|_| AtomicUsize::new(0)).collect(),
            name: config.name.clone(),
            rules: ArcSwap::from_pointee(config.into()),
            dispatcher,
            broker,
            presence,
            authorizer,
            hooks,
            metrics: Metrics::new(),
            admission: Admission::new(),
            shedding,
            handing_over: HandOver::default(),
            way_down: Drain::new(),
            rebalancing: Rebalancing::default(),
            farewells: Arc::default(),
            users: Users::default(),
            cluster: Cluster::new(),
            revocations: Revocations::new(),
        })
    }

    /// The node's id, new with every start.
    #[must_use]
    pub fn id(&self) -> &str {
        self.dispatcher.node()
    }

    /// What people call the node; its id if it was given no name.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.name.is_empty() { self.id() } else { &self.name }
    }

    /// Limits and rules, as they are at the moment.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.rules.load().config)
    }

    /// Takes other limits and rules; the node keeps its name. What is asked from now on is decided by them. What was agreed
    /// before stays: a subscription keeps its terms, a connection the size of its queue and its next ping.
    pub fn reconfigure(&self, config: Config) {
        self.rules.store(Arc::new(Config { name: self.name.clone(), ..config }.into()));
    }

    /// The namespace of a channel. Where everything is allowed, an unknown one is like the nameless one.
    #[must_use]
    pub fn namespace(&self, channel: &Channel) -> Option<Arc<Namespace>> {
        let rules = self.rules.load();
        let fallback = || rules.config.client.insecure.then(|| rules.namespaces.nameless().unwrap_or_default());
        rules.namespaces.resolve(channel).or_else(fallback)
    }

    /// Publishes to the cluster; resolves when the broker has applied it, or found its condition untrue.
    ///
    /// # Errors
    ///
    /// Codes 100 and 102; 108 for a condition where nothing is kept.
    pub async fn publish(&self, publish: Publish) -> Result<Published, Refusal> {
        let (publication, options) = self.prepare(publish)?;
        self.published(self.broker.publish(publication, options).await)
    }

    /// Publishes to one channel, in this order and as if one after the other, at most [`MAX_BATCH`](broker::MAX_BATCH).
    pub async fn publish_all(&self, batch: Vec<Publish>) -> Vec<Result<Published, Refusal>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut prepared = Vec::with_capacity(batch.len());
        for publish in batch {
            outcomes.push(self.prepare(publish).map(|publication| prepared.push(publication)));
        }
        let mut published = self.broker.publish_all(prepared).await.into_iter();
        let lost = || Err(broker::Error::OutcomeUnknown);
        let outcome =
            |good: Result<(), Refusal>| good.and_then(|()| self.published(published.next().unwrap_or_else(lost)));
        outcomes.into_iter().map(outcome).collect()
    }

    fn prepare(&self, publish: Publish) -> Result<(Publication, PublishOptions), Refusal> {
        let namespace = self.namespace(&publish.channel).ok_or(Refusal::UnknownChannel)?;
        let history = if publish.skip_history { None } else { namespace.retention() };
        if publish.condition.is_some() && history.is_none() {
            return Err(Refusal::NotAvailable);
        }
        let options =
            PublishOptions { history, idempotency_key: publish.idempotency_key, condition: publish.condition };
        let publication = Publication {
            channel: publish.channel,
            payload: publish.payload,
            event: publish.event,
            tags: publish.tags,
            info: publish.info,
            exclude: publish.exclude,
            stamp: None,
            time_ms: clock::unix_ms() as i64,
        };
        Ok((publication, options))
    }

    fn published(&self, published: Result<Published, broker::Error>) -> Result<Published, Refusal> {
        let published = published.map_err(|error| self.broker_failed(&error))?;
        if published.verdict == Verdict::Applied {
            self.metrics.publications.increment(1);
        }
        Ok(published)
    }

    /// Reads a channel's stream.
    ///
    /// # Errors
    ///
    /// Codes 100, 102, 108, and 112 if the position belongs to another life of the stream.
    pub async fn history(&self, channel: &Channel, request: HistoryRequest) -> Result<History, Refusal> {
        self.keeps_history(channel)?;
        self.answers_queries()?;
        let history = self.broker.history(channel, request.query(self.config().client.history_limit)).await;
        let history = history.map_err(|error| self.unavailable(&error))?;
        let elsewhere = |since: &Position| !since.epoch.is_empty() && since.epoch != history.top.epoch;
        if request.since.as_ref().is_some_and(elsewhere) {
            return Err(Refusal::UnrecoverablePosition);
        }
        Ok(history)
    }

    /// Forgets a channel's publications; its position stays.
    ///
    /// # Errors
    ///
    /// Codes 100, 102 and 108.
    pub async fn remove_history(&self, channel: &Channel) -> Result<(), Refusal> {
        self.keeps_history(channel)?;
        self.broker.remove_history(channel).await.map_err(|error| self.broker_failed(&error))
    }

    /// Reads who is in a channel.
    ///
    /// # Errors
    ///
    /// Codes 100, 102 and 108.
    pub async fn members(&self, channel: &Channel) -> Result<Vec<Arc<ClientInfo>>, Refusal> {
        self.knows_presence(channel)?;
        self.answers_queries()?;
        self.presence.members(channel).await.map_err(|error| self.unavailable(&error))
    }

    /// Counts who is in a channel.
    ///
    /// # Errors
    ///
    /// Codes 100, 102 and 108.
    pub async fn presence_stats(&self, channel: &Channel) -> Result<PresenceStats, Refusal> {
        self.knows_presence(channel)?;
        self.answers_queries()?;
        self.presence.stats(channel).await.map_err(|error| self.unavailable(&error))
    }

    /// Counts the connections of each of these users in a channel, in their order.
    ///
    /// # Errors
    ///
    /// Codes 100, 102 and 108.
    pub async fn connections_of(&self, channel: &Channel, users: &[String]) -> Result<Vec<usize>, Refusal> {
        self.knows_presence(channel)?;
        self.answers_queries()?;
        self.presence.connections(channel, users).await.map_err(|error| self.unavailable(&error))
    }

    /// Counts what this node has.
    pub async fn counts(&self) -> Counts {
        let parts = self.ask_workers(|worker| worker.counts()).await;
        let (clients, subscriptions) = parts.into_iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        Counts { clients, users: self.users.len(), channels: self.dispatcher.channel_count(), subscriptions }
    }

    /// Ends all connections and waits until they are gone and other clients know it, at most three seconds; then leaves the
    /// cluster. Whoever is to leave in peace was let go by [`Node::drain`] before.
    pub async fn shut_down(&self) {
        self.advance_to(Phase::Ending);
        tokio::join!(self.send_all_away(), self.announce_draining());
        self.say_farewell().await;
    }

    async fn send_all_away(&self) {
        let close = |worker: &Rc<Worker>| {
            for client in worker.clients() {
                client.close(Disconnect::Shutdown);
            }
        };
        self.ask_workers(close).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(3);
        let busy = || self.connections() > 0 || Arc::strong_count(&self.farewells) > 1;
        while busy() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many workers the node has.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.connections.len()
    }

    /// Open connections, those in their handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The same of one worker.
    pub(crate) fn connections_on(&self, worker: usize) -> usize {
        self.connections[worker].load(Ordering::Relaxed)
    }

    /// Chooses the worker with the fewest connections for a new one. Dropping the seat frees it.
    #[must_use]
    pub fn take_seat(self: &Arc<Self>) -> Seat {
        let counts = self.connections.iter().map(|count| count.load(Ordering::Relaxed));
        let index = counts.enumerate().min_by_key(|(_, count)| *count).map_or(0, |(index, _)| index);
        self.connections[index].fetch_add(1, Ordering::Relaxed);
        Seat { node: Arc::clone(self), index }
    }

    /// Runs `work` on every worker's thread and collects the answers.
    pub async fn ask_workers<T: Send + 'static>(
        &self,
        work: impl Fn(&Rc<Worker>) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let answers = join_all(self.post_workers(work).await).await;
        answers.into_iter().flatten().collect()
    }

    /// Runs `work` on one worker's thread; no answer if that has ended.
    pub(crate) async fn ask_worker<T: Send + 'static>(
        &self,
        index: usize,
        work: impl FnOnce(&Rc<Worker>) -> T + Send + 'static,
    ) -> Option<T> {
        self.post_worker(index, work).await.await.ok()
    }

    /// Posts `work` to every worker; what is posted first is run first.
    pub(crate) async fn post_workers<T: Send + 'static>(
        &self,
        work: impl Fn(&Rc<Worker>) -> T + Clone + Send + 'static,
    ) -> Vec<oneshot::Receiver<T>> {
        let mut answers = Vec::with_capacity(self.workers());
        for index in 0..self.workers() {
            answers.push(self.post_worker(index, work.clone()).await);
        }
        answers
    }

    async fn post_worker<T: Send + 'static>(
        &self,
        index: usize,
        work: impl FnOnce(&Rc<Worker>) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let mailbox = &self.dispatcher.mailboxes()[index];
        let (sender, answer) = oneshot::channel();
        mailbox.ready().await;
        mailbox.post(Letter::Run(Box::new(move |worker| {
            // Whoever asked may have given up.
            let _ = sender.send(work(worker));
        })));
        answer
    }

    /// Gives up the channels nobody has wanted for a while, for ever.
    pub async fn reconcile(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            self.dispatcher.sweep(&*self.broker);
        }
    }

    pub(crate) fn connection_opened(&self, worker: usize) {
        self.connections[worker].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self, worker: usize) {
        self.connections[worker].fetch_sub(1, Ordering::Relaxed);
    }

    /// Keeps the node from ending as long as it is held, and no longer than [`Node::shut_down`] has patience.
    pub(crate) fn pending_farewell(&self) -> Arc<()> {
        Arc::clone(&self.farewells)
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(crate) fn shedding(&self) -> &Shedding {
        &self.shedding
    }

    pub(crate) fn handing_over(&self) -> &HandOver {
        &self.handing_over
    }

    pub(crate) fn way_down(&self) -> &Drain {
        &self.way_down
    }

    pub(crate) fn rebalancing(&self) -> &Rebalancing {
        &self.rebalancing
    }

    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    pub(crate) fn broker(&self) -> &dyn Broker {
        &*self.broker
    }

    pub(crate) fn presence(&self) -> &dyn Presence {
        &*self.presence
    }

    pub(crate) fn authorizer(&self) -> &dyn Authorizer {
        &*self.authorizer
    }

    /// Asks backends, if there are any to ask.
    #[must_use]
    pub fn hooks(&self) -> Option<&dyn Hooks> {
        self.hooks.as_deref()
    }

    /// The hook that has a method of remote calls: its namespace's, else that of all others.
    pub(crate) fn rpc_hook(&self, method: &str) -> Option<String> {
        let rules = self.rules.load();
        let namespace = method.split_once(':').and_then(|(name, _)| rules.namespaces.named(name));
        let hooks = [namespace.map(|namespace| namespace.rpc_hook.clone()), Some(rules.config.client.rpc_hook.clone())];
        hooks.into_iter().flatten().find(|hook| !hook.is_empty())
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Notes why the broker could not do what was asked, and refuses it.
    pub(crate) fn broker_failed(&self, error: &broker::Error) -> Refusal {
        self.metrics.broker_errors.increment(1);
        tracing::debug!(%error, "broker request failed");
        match error {
            broker::Error::Unavailable(_) => Refusal::Unavailable,
            broker::Error::OutcomeUnknown => Refusal::OutcomeUnknown,
        }
    }

    /// The same for what changes nothing that anybody could see: it can only be had or not.
    pub(crate) fn unavailable(&self, error: &broker::Error) -> Refusal {
        self.broker_failed(error);
        Refusal::Unavailable
    }

    fn keeps_history(&self, channel: &Channel) -> Result<(), Refusal> {
        let namespace = self.namespace(channel).ok_or(Refusal::UnknownChannel)?;
        namespace.retention().map(|_| ()).ok_or(Refusal::NotAvailable)
    }

    fn knows_presence(&self, channel: &Channel) -> Result<(), Refusal> {
        let namespace = self.namespace(channel).ok_or(Refusal::UnknownChannel)?;
        if namespace.presence { Ok(()) } else { Err(Refusal::NotAvailable) }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A new connection's place on a worker, counted from the moment it is chosen.
#[derive(Debug)]
pub struct Seat {
    node: Arc<Node>,
    index: usize,
}

impl Seat {
    /// Runs `work` on the worker's thread. It keeps the seat until it has opened a client, which counts for itself.
    pub async fn run(self, work: impl FnOnce(&Rc<Worker>, Self) + Send + 'static) {
        let mailbox = Arc::clone(&self.node.dispatcher.mailboxes()[self.index]);
        mailbox.ready().await;
        mailbox.post(Letter::Run(Box::new(move |worker| work(worker, self))));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.node.connection_closed(self.index);
    }
}
