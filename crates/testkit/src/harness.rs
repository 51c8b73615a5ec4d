//! One node on the current thread, on a paused clock, with fake connections.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::protocol::{Opening, Rejection};
use fanwire_node::{
    Broker, Client, ClientConfig, ClientGuard, Config, ConnectRequest, Dispatcher, Failure, MemoryBroker,
    MemoryPresence, Namespace, Node, Parts, Presence, Protocol, SubscribeRequest, Subscribed, Worker,
};
use fanwire_wire::{Disconnect, Message};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{FakeSocket, Faults, FaultyBroker, Frame, HookBook, Probe, TokenBook};

/// One node with one worker on the current thread: memory broker behind [`Faults`], memory presence, [`TokenBook`].
///
/// The clock is paused: it moves only in [`Harness::settle`] (by a millisecond) and [`Harness::pass`].
#[derive(Debug)]
pub struct Harness {
    /// The node.
    pub node: Arc<Node>,
    /// Its only worker.
    pub worker: Rc<Worker>,
    /// The way to the worker, for tests that play the broker.
    pub dispatcher: Arc<Dispatcher>,
    /// What the broker does wrong.
    pub faults: Faults,
    start: Instant,
    /// The time that passed on purpose.
    passed: Cell<Duration>,
    /// The time that settling took.
    settled: Cell<Duration>,
}

/// By how much settling moves the clock.
const SETTLE: Duration = Duration::from_millis(1);

/// Runs `test` with a node of this configuration, on a runtime of its own with a paused clock.
///
/// # Panics
///
/// When `test` does.
pub fn run<T>(config: Config, test: impl AsyncFnOnce(&Harness) -> T) -> T {
    run_with(config, |dispatcher| Box::new(MemoryBroker::new(dispatcher)), test)
}

/// The same over another broker.
///
/// # Panics
///
/// When `test` does.
pub fn run_with<T>(
    config: Config,
    broker: impl FnOnce(Arc<Dispatcher>) -> Box<dyn Broker>,
    test: impl AsyncFnOnce(&Harness) -> T,
) -> T {
    on_paused_clock(async || {
        let harness = Harness::start(config, broker);
        // What a node does when it starts is over.
        harness.settle().await;
        test(&harness).await
    })
}

/// Runs `test` on a runtime of its own with a paused clock, where it starts as many nodes as it likes.
///
/// # Panics
///
/// When `test` does.
pub fn on_paused_clock<T>(test: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without IO needs nothing that could be missing");
    LocalSet::new().block_on(&runtime, test())
}

/// A configuration in which anonymous clients may do everything, in one nameless namespace like this.
#[must_use]
pub fn open_config(namespace: Namespace) -> Config {
    let client = ClientConfig { anonymous: true, ..ClientConfig::default() };
    Config { client, namespaces: vec![namespace], ..Config::default() }
}

impl Harness {
    /// Starts a node on the current thread, inside a [`LocalSet`]. Whether the clock is paused is up to the runtime.
    #[must_use]
    pub fn start(config: Config, broker: impl FnOnce(Arc<Dispatcher>) -> Box<dyn Broker>) -> Self {
        let dispatcher = Dispatcher::new(1);
        let broker = broker(Arc::clone(&dispatcher));
        Self::with_dispatcher(config, dispatcher, broker)
    }

    /// The same with a broker that is made already, with this dispatcher of one worker.
    #[must_use]
    pub fn with_dispatcher(config: Config, dispatcher: Arc<Dispatcher>, broker: Box<dyn Broker>) -> Self {
        let presence = Box::new(MemoryPresence::new(Arc::clone(&dispatcher)));
        Self::with_presence(config, dispatcher, broker, presence)
    }

    /// The same with a presence that is made already, too.
    #[must_use]
    pub fn with_presence(
        config: Config,
        dispatcher: Arc<Dispatcher>,
        broker: Box<dyn Broker>,
        presence: Box<dyn Presence>,
    ) -> Self {
        let faults = Faults::default();
        let broker = FaultyBroker::new(broker, faults.clone());
        let node = Node::new(Parts {
            config,
            dispatcher: Arc::clone(&dispatcher),
            broker: Box::new(broker),
            presence,
            authorizer: Box::new(TokenBook),
            hooks: Some(Box::new(HookBook::default())),
        });
        let worker = Worker::start(&node, 0);
        tokio::task::spawn_local(Arc::clone(&node).reconcile());
        tokio::task::spawn_local(Arc::clone(&node).take_part());
        Self {
            node,
            worker,
            dispatcher,
            faults,
            start: Instant::now(),
            passed: Cell::default(),
            settled: Cell::default(),
        }
    }

    /// Runs every task until all of them wait for something that only the test, or later time, brings.
    pub async fn settle(&self) {
        // A paused clock goes on only when nothing else can: then everything has come to rest.
        sleep(SETTLE).await;
        self.settled.set(self.settled.get() + SETTLE);
    }

    /// Lets time pass, with all tasks running. What settling took in between counts.
    pub async fn pass(&self, time: Duration) {
        let waited = self.start.elapsed().saturating_sub(self.settled.get());
        self.passed.set(self.passed.get().max(waited) + time);
        sleep_until(self.start + self.passed.get()).await;
        self.settle().await;
    }

    /// Opens a connection of `protocol`.
    ///
    /// # Errors
    ///
    /// The protocol's HTTP answer, if it does not accept.
    pub fn open(&self, protocol: &dyn Protocol, opening: &Opening) -> Result<FakeClient, Rejection> {
        FakeClient::open(&self.worker, protocol, opening)
    }

    /// Opens a connection of the [`Probe`] protocol and connects it with this token (empty: nobody).
    ///
    /// # Panics
    ///
    /// If the node refuses.
    pub async fn probe(&self, token: &str) -> FakeClient {
        let client = self.probe_unconnected("");
        client.connect(token).await;
        client
    }

    /// Opens a connection of the [`Probe`] protocol with this query, and does not connect it.
    ///
    /// # Panics
    ///
    /// If the probe does not know the query.
    #[must_use]
    pub fn probe_unconnected(&self, query: &str) -> FakeClient {
        let opening = Opening { query: query.to_owned(), ..Opening::default() };
        self.open(&Probe, &opening).expect("the probe knows the query")
    }
}

/// A connection without a network, and the peer at its other end.
pub struct FakeClient {
    /// The core's end.
    pub client: Rc<Client>,
    /// The wire between.
    pub socket: FakeSocket,
    /// The subprotocol the server chose.
    pub subprotocol: Option<&'static str>,
    inbox: mpsc::Sender<Message>,
    task: JoinHandle<()>,
}

impl FakeClient {
    /// Opens a connection of `protocol` on `worker`.
    ///
    /// # Errors
    ///
    /// The protocol's HTTP answer, if it does not accept.
    pub fn open(worker: &Rc<Worker>, protocol: &dyn Protocol, opening: &Opening) -> Result<Self, Rejection> {
        let accepted = protocol.accept(opening)?;
        let socket = FakeSocket::new();
        let guard = worker.open(protocol.name(), accepted.session, socket.clone());
        let client = Rc::clone(&guard);
        let (inbox, messages) = mpsc::channel(1024);
        let task = tokio::task::spawn_local(drive(guard, socket.clone(), messages));
        Ok(Self { client, socket, subprotocol: accepted.subprotocol, inbox, task })
    }

    /// The peer sends a message.
    ///
    /// # Panics
    ///
    /// If a thousand messages wait.
    pub fn send(&self, message: Message) {
        match self.inbox.try_send(message) {
            // What is sent into a connection that is gone is lost.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => panic!("the node reads nothing"),
        }
    }

    /// The peer sends a text.
    ///
    /// # Panics
    ///
    /// If a thousand messages wait.
    pub fn send_text(&self, text: &str) {
        self.send(Message::Text(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// The peer hangs up without a word.
    pub fn leave(&self) {
        self.task.abort();
    }

    /// Whether the connection is gone, and everything of it was left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.task.is_finished()
    }

    /// Connects with this token (empty: nobody).
    ///
    /// # Panics
    ///
    /// If the node refuses.
    pub async fn connect(&self, token: &str) {
        let request = ConnectRequest { token: token.to_owned(), ..ConnectRequest::default() };
        self.client.connect(request).await.expect("the node accepts the token");
    }

    /// Subscribes to a channel, with joins and leaves.
    ///
    /// # Errors
    ///
    /// Those of [`Client::subscribe`].
    pub async fn subscribe(&self, channel: &str) -> Result<Subscribed, Failure> {
        self.client
            .subscribe(SubscribeRequest {
                channel: channel.to_owned(),
                join_leave: true,
                ..SubscribeRequest::default()
            })
            .await
    }

    /// Takes the frames of the [`Probe`] protocol that arrived since the last call.
    ///
    /// # Panics
    ///
    /// If there are others among them.
    #[must_use]
    pub fn take(&self) -> Vec<Value> {
        let parse = |frame| match frame {
            Frame::Text(text) => serde_json::from_str(&text).expect("the probe writes JSON"),
            Frame::Binary(bytes) => serde_json::from_slice(&bytes).expect("the probe writes JSON"),
            Frame::Close(code, _) => serde_json::json!({ "close": code }),
            other => panic!("unexpected frame {other:?}"),
        };
        self.socket.take().into_iter().map(parse).collect()
    }

    /// Takes the data of the publications among [`FakeClient::take`].
    ///
    /// # Panics
    ///
    /// As there.
    #[must_use]
    pub fn take_publications(&self) -> Vec<Value> {
        self.take().into_iter().filter_map(|mut frame| frame.get_mut("pub").map(Value::take)).collect()
    }
}

impl fmt::Debug for FakeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeClient").field("client", &self.client).field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Does for a fake connection what a transport does for a real one.
async fn drive(guard: ClientGuard, socket: FakeSocket, mut messages: mpsc::Receiver<Message>) {
    let settle = |outcome: Result<(), Disconnect>| {
        if let Err(disconnect) = outcome.and_then(|()| guard.flush()) {
            guard.close(disconnect);
        }
    };
    settle(guard.begin().await);
    loop {
        let message = tokio::select! {
            biased;
            () = socket.read_ended() => return,
            message = messages.recv() => message,
        };
        match message {
            None => return,
            Some(_) if guard.is_closed() => {}
            Some(message) => settle(guard.handle(message).await),
        }
    }
}
