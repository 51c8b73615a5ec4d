//! One thread and the connections it owns.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::{Broadcast, Channel, Disconnect, Position, Unsubscribe};
use futures_util::FutureExt;
use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::clock;
use crate::hub::{Gap, Hub, Outcome};
use crate::lists::Lists;
use crate::mailbox::{Letter, Mailbox};
use crate::outlet::{Queues, Socket};
use crate::protocol::Session;
use crate::shedding::Relief;
use crate::subscription::Subscription;
use crate::sweep::Sweeps;
use crate::wheel::Wheel;
use crate::{Client, ClientGuard, Node};

/// One thread and the connections it owns. Everything in it belongs to that thread: no lock, no atomic.
pub struct Worker {
    node: Arc<Node>,
    index: usize,
    mailbox: Arc<Mailbox>,
    hub: Hub,
    clients: RefCell<Slab<Rc<Client>>>,
    /// The connections of each user.
    users: RefCell<HashMap<Arc<str>, SmallVec<[u32; 2]>>>,
    /// Connections that are somebody's.
    connected: Cell<usize>,
    subscriptions: Cell<usize>,
    wheel: RefCell<Wheel>,
    pub(crate) lists: RefCell<Lists>,
    /// What waits in all outlets.
    queues: Rc<Queues>,
    nobody: Arc<str>,
    /// Where the sequence of [`Worker::next_delay`] is.
    gaps_told: Cell<u32>,
    /// Where the next search for slow clients begins.
    searched: Cell<usize>,
}

/// The time over which subscribers are told that their position cannot be continued.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// The connections among which slow ones are searched at once: a millisecond or two.
const MAX_SEARCHED: usize = 16 * 1024;

/// The open batches that may gather before their sweep comes first.
const MAX_OPEN_BYTES: usize = 256 * 1024;

impl Worker {
    /// Starts a node's worker on the current thread, inside a [`tokio::task::LocalSet`]; it runs until the set is dropped.
    ///
    /// # Panics
    ///
    /// If the node has no worker of this index, or outside of a `LocalSet`.
    pub fn start(node: &Arc<Node>, index: usize) -> Rc<Self> {
        let worker = Rc::new(Self {
            node: Arc::clone(node),
            index,
            mailbox: Arc::clone(&node.dispatcher().mailboxes()[index]),
            hub: Hub::default(),
            clients: RefCell::default(),
            users: RefCell::default(),
            connected: Cell::default(),
            subscriptions: Cell::default(),
            wheel: RefCell::new(Wheel::new()),
            lists: RefCell::default(),
            queues: Rc::new(Queues::new(node.shedding().queue_share())),
            nobody: "".into(),
            gaps_told: Cell::default(),
            searched: Cell::default(),
        });
        tokio::task::spawn_local(vital("delivery", Rc::clone(&worker).deliver()));
        tokio::task::spawn_local(vital("timers", Rc::clone(&worker).keep_time()));
        tokio::task::spawn_local(vital("vitals", Rc::clone(&worker).measure()));
        worker
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Which of the node's workers this is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Opens the core's end of a connection that `session` and `socket` are the other halves of.
    pub fn open(
        self: &Rc<Self>,
        protocol: &'static str,
        session: Box<dyn Session>,
        socket: impl Socket + 'static,
    ) -> ClientGuard {
        Client::open(self, protocol, session, socket)
    }

    /// The open connections.
    #[must_use]
    pub fn clients(&self) -> Vec<Rc<Client>> {
        self.clients.borrow().iter().map(|(_, client)| Rc::clone(client)).collect()
    }

    /// Some of the connections that are not on their way out.
    pub(crate) fn open_clients(&self, most: usize) -> Vec<Rc<Client>> {
        let clients = self.clients.borrow();
        let open = clients.iter().map(|(_, client)| client).filter(|client| !client.is_closed());
        open.take(most).cloned().collect()
    }

    /// The connections of a user.
    #[must_use]
    pub fn clients_of(&self, user: &str) -> Vec<Rc<Client>> {
        let users = self.users.borrow();
        let clients = self.clients.borrow();
        let keys = users.get(user).map(SmallVec::as_slice).unwrap_or_default();
        keys.iter().filter_map(|key| clients.get(*key as usize).cloned()).collect()
    }

    /// Connections that are somebody's, and subscriptions.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.connected.get(), self.subscriptions.get())
    }

    /// The bytes that wait for full sockets.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.queues.bytes()
    }

    /// Some of the connections for which bytes wait, each with how many, those with the most first. It looks at no more than a
    /// part of many connections, and at the next part the next time.
    pub(crate) fn slowest(&self, most: usize) -> Vec<(usize, Rc<Client>)> {
        if self.queues.bytes() == 0 {
            return Vec::new();
        }
        let clients = self.clients.borrow();
        let end = clients.capacity();
        let first = if self.searched.get() < end { self.searched.get() } else { 0 };
        let part = end.min(MAX_SEARCHED);
        self.searched.set(if part < end { (first + part) % end } else { 0 });
        let keys = (first..end).chain(0..first).take(part);
        let waiting =
            |client: &Rc<Client>| Some((client.blocked_bytes(), Rc::clone(client))).filter(|(bytes, _)| *bytes > 0);
        let mut slow: Vec<_> = keys.filter_map(|key| waiting(clients.get(key)?)).collect();
        slow.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        slow.truncate(most);
        slow
    }

    /// A connection has become somebody's.
    pub(crate) fn count_in(&self, user: &Arc<str>) {
        self.connected.set(self.connected.get() + 1);
        self.node.users().add(user);
    }

    /// It is somebody's no more.
    pub(crate) fn count_out(&self, user: &str) {
        self.connected.set(self.connected.get() - 1);
        self.node.users().remove(user);
    }

    /// A subscription has begun.
    pub(crate) fn subscription_began(&self) {
        self.subscriptions.set(self.subscriptions.get() + 1);
        self.node.metrics().subscriptions.increment(1);
    }

    /// A subscription has ended.
    pub(crate) fn subscription_ended(&self) {
        self.subscriptions.set(self.subscriptions.get() - 1);
        self.node.metrics().subscriptions.decrement(1);
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Whole seconds of this worker's clock; never 0.
    pub(crate) fn second(&self) -> u32 {
        self.wheel.borrow().now()
    }

    /// The second of a Unix time; 0 for none.
    pub(crate) fn second_of(&self, unix_seconds: Option<u64>) -> u32 {
        unix_seconds.map_or(0, |at| self.second().saturating_add(clock::seconds_until(at)).min(u32::MAX / 2))
    }

    /// Puts a client down to be looked at; returns the second in which it will be.
    pub(crate) fn look_at(&self, key: u32, second: u32) -> u32 {
        self.wheel.borrow_mut().add(key, second)
    }

    /// One empty user id for all who are nobody.
    pub(crate) fn nobody(&self) -> Arc<str> {
        Arc::clone(&self.nobody)
    }

    pub(crate) fn queues(&self) -> Rc<Queues> {
        Rc::clone(&self.queues)
    }

    pub(crate) fn add(&self, client: &Rc<Client>) -> u32 {
        let key = self.clients.borrow_mut().insert(Rc::clone(client));
        self.node.connection_opened(self.index);
        u32::try_from(key).expect("descriptors run out long before 2^32 clients")
    }

    pub(crate) fn add_user(&self, user: &Arc<str>, key: u32) {
        if !user.is_empty() {
            self.users.borrow_mut().entry(Arc::clone(user)).or_default().push(key);
        }
    }

    pub(crate) fn remove(&self, key: u32, user: &str) {
        self.clients.borrow_mut().try_remove(key as usize);
        self.node.connection_closed(self.index);
        let mut users = self.users.borrow_mut();
        if let Some(keys) = users.get_mut(user) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                users.remove(user);
            }
        }
    }

    /// The path from mailbox to sockets. One turn: wait for a letter, let everything readable arrive with it,
    /// dispatch it all, then write every dirty connection once. A long sweep is cut into slices;
    /// between them sockets are read, and what arrives joins the next batches.
    async fn deliver(self: Rc<Self>) {
        let mut letters = VecDeque::new();
        let mut sweeps = Sweeps::default();
        loop {
            self.mailbox.filled().await;
            loop {
                tokio::task::yield_now().await;
                // Letters that cannot be opened yet stay where they count: their posters wait.
                if letters.is_empty() {
                    self.mailbox.swap(&mut letters);
                }
                if sweeps.have_room() {
                    self.open_letters(&mut letters);
                }
                let (more, ended) = sweeps.advance(&self.hub, &self.node, &self.queues, self.second());
                for (key, disconnect) in ended {
                    self.end(key, disconnect);
                }
                if !more && letters.is_empty() {
                    break;
                }
            }
        }
    }

    /// Opens letters until enough is dispatched for the sweeps to come first.
    fn open_letters(self: &Rc<Self>, letters: &mut VecDeque<Letter>) {
        while self.hub.open_bytes.get() < MAX_OPEN_BYTES {
            match letters.pop_front() {
                None => return,
                Some(Letter::Run(task)) => task(self),
                Some(Letter::Dispatch(Broadcast::Join(..) | Broadcast::Leave(..), _))
                    if self.node.shedding().gives_up(Relief::Memberships) => {}
                Some(Letter::Dispatch(broadcast, at)) => {
                    let Outcome { ended, gap, late } = self.hub.dispatch(&broadcast, at);
                    for (key, disconnect) in ended {
                        self.end(key, disconnect);
                    }
                    if let Some(gap) = gap {
                        self.tell_of(gap);
                    }
                    self.node.metrics().lost_late.increment(late);
                }
            }
        }
    }

    /// Tells the subscribers of a channel that what lies between two positions will never come.
    pub(crate) fn lose(self: &Rc<Self>, channel: &Channel, from: &Position, top: &Position) {
        if let Some(gap) = self.hub.lose(channel, from, top) {
            self.tell_of(gap);
        }
    }

    fn end(&self, key: u32, disconnect: Disconnect) {
        if let Some(client) = self.client(key) {
            client.close(disconnect);
        }
    }

    /// Ends subscriptions whose position cannot be continued: nothing more is delivered to them from now on, and they are
    /// told spread over the next seconds, for all of them come back at once to ask for what they miss.
    pub(crate) fn tell_of(self: &Rc<Self>, gap: Gap) {
        self.node.metrics().lost_in_gaps.increment(gap.unpositioned);
        if gap.positioned.is_empty() {
            return;
        }
        let now = Instant::now();
        let stop = |(key, subscription): (u32, Rc<Subscription>)| {
            subscription.channel.deactivate(&subscription);
            (now + self.next_delay(), key, subscription)
        };
        let mut untold: Vec<_> = gap.positioned.into_iter().map(stop).collect();
        untold.sort_by_key(|(at, ..)| *at);
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            for (at, key, subscription) in untold {
                sleep_until(at).await;
                // Who left meanwhile, or began anew, has nothing to do with it any more; nor has another client of this key.
                if !subscription.has_left()
                    && let Some(client) = worker.client(key)
                {
                    client.end_subscription(&subscription, Unsubscribe::InsufficientState);
                }
            }
        });
    }

    /// When to tell the next one of a gap. Multiples of the golden ratio, modulo one, are spread evenly however many there
    /// are, over one channel or a thousand.
    fn next_delay(&self) -> Duration {
        const GOLDEN: u32 = 0x9e37_79b9;
        self.gaps_told.set(self.gaps_told.get().wrapping_add(GOLDEN));
        TELL_WITHIN.mul_f64(f64::from(self.gaps_told.get()) / f64::from(u32::MAX))
    }

    /// Waits until everything is dispatched that was in the mailbox when it is called.
    pub(crate) async fn barrier(&self) {
        let (sender, receiver) = oneshot::channel();
        self.mailbox.ready().await;
        self.mailbox.post(Letter::Run(Box::new(move |_| {
            // Whoever waited may be gone.
            let _ = sender.send(());
        })));
        // Comes always: the one who opens letters ends with this task.
        let _ = receiver.await;
    }

    fn client(&self, key: u32) -> Option<Rc<Client>> {
        self.clients.borrow().get(key as usize).cloned()
    }

    /// Looks at the clients whose second has come, once a second.
    async fn keep_time(self: Rc<Self>) {
        const SECOND: Duration = Duration::from_secs(1);
        let mut ticks = interval_at(Instant::now() + SECOND, SECOND);
        // A stall of the worker counts as one second: what clients said meanwhile is read before they are blamed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut reported = (0, 0);
        loop {
            ticks.tick().await;
            let due = self.wheel.borrow_mut().advance();
            let now = self.second();
            for (looked_at, key) in due.into_iter().enumerate() {
                if let Some(client) = self.client(key) {
                    client.tick(now);
                }
                if looked_at % 256 == 255 {
                    tokio::task::yield_now().await;
                }
            }
            self.hub.meter.tick();
            self.lists.borrow_mut().clear();
            self.report(&mut reported);
        }
    }

    /// Measures how late this worker comes to what it has to do, and what waits for its clients.
    async fn measure(self: Rc<Self>) {
        const EVERY: Duration = Duration::from_millis(100);
        let vitals = self.node.shedding().vitals(self.index);
        // Of the last two seconds: one that was not late says that the others were no more than a hitch.
        let mut lags = VecDeque::from([Duration::ZERO; 20]);
        loop {
            let due = Instant::now() + EVERY;
            sleep_until(due).await;
            let lag = due.elapsed();
            self.node.metrics().worker_lag_seconds.record(lag.as_secs_f64());
            lags.pop_front();
            lags.push_back(lag);
            vitals.set(lags.iter().copied().min().unwrap_or_default(), self.queues.bytes());
        }
    }

    /// Moves the gauges that all workers share by what changed here.
    fn report(&self, reported: &mut (usize, usize)) {
        let metrics = self.node.metrics();
        let current = (self.hub.len(), self.queues.bytes());
        metrics.channels.increment(current.0 as f64 - reported.0 as f64);
        metrics.queue_bytes.increment(current.1 as f64 - reported.1 as f64);
        *reported = current;
    }
}

/// Runs a task without which the worker's connections look alive and are not: its panic ends the process.
/// A session's panic costs one connection; here half a frame may stand in a batch, and going on would send it.
async fn vital(name: &str, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!(name, "a worker's task panicked; the process ends");
        std::process::abort();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}
