//! A node on the current thread, with connections that lead nowhere.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fanwire_auth::Verifier;
use fanwire_native::Native;
use fanwire_node::protocol::Opening;
use fanwire_node::{
    ClientConfig, ClientGuard, Config, Dispatcher, MemoryBroker, MemoryPresence, Namespace, Node, Parts, Protocol as _,
    Publish, Socket, Worker,
};
use fanwire_wire::{Channel, Message, Payload};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::values::{CONNECT, PAYLOAD};

/// A socket that takes everything at once and counts it.
#[derive(Clone, Debug, Default)]
pub struct Sink(Rc<Cell<u64>>);

/// A node with one worker on the current thread, and its clients. The clock is the real one.
pub struct Stage {
    runtime: Runtime,
    local: LocalSet,
    node: Arc<Node>,
    worker: Rc<Worker>,
    clients: Vec<ClientGuard>,
    written: Sink,
    native: Native,
}

impl Stage {
    /// A node whose only namespace keeps `history` publications (0: none, and no recovery).
    ///
    /// # Panics
    ///
    /// If the machine gives no runtime.
    #[must_use]
    pub fn new(history: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without IO needs nothing that could be missing");
        let local = LocalSet::new();
        let mut namespace = Namespace { presence: false, join_leave: false, ..Namespace::open("") };
        namespace.history_size = history;
        namespace.history_ttl = Duration::from_secs(if history > 0 { 3_600 } else { 0 });
        namespace.recovery = history > 0;
        namespace.positioning = history > 0;
        let client = ClientConfig { anonymous: true, ..ClientConfig::default() };
        let verifier = Verifier::new(&fanwire_auth::Config::default()).expect("nothing in it can be wrong");
        let dispatcher = Dispatcher::new(1);
        let node = Node::new(Parts {
            config: Config { client, namespaces: vec![namespace], ..Config::default() },
            dispatcher: Arc::clone(&dispatcher),
            broker: Box::new(MemoryBroker::new(Arc::clone(&dispatcher))),
            presence: Box::new(MemoryPresence::new(dispatcher)),
            authorizer: Box::new(verifier),
            hooks: None,
        });
        let worker = local.block_on(&runtime, async { Worker::start(&node, 0) });
        Self { runtime, local, node, worker, clients: Vec::new(), written: Sink::default(), native: Native::new() }
    }

    /// The bytes written to all sockets.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.0.get()
    }

    /// Adds a connected client of the native protocol in JSON.
    ///
    /// # Panics
    ///
    /// If the node refuses.
    pub fn connect(&mut self) {
        let accepted = self.native.accept(&Opening::default()).expect("no query is a good query");
        let client = self.worker.open("native", accepted.session, self.written.clone());
        self.clients.push(client);
        self.block_on(async |stage| {
            let client = &stage.clients[stage.clients.len() - 1];
            client.begin().await.expect("a client may begin");
        });
        self.command(self.clients.len() - 1, &Bytes::from_static(CONNECT.as_bytes()));
    }

    /// Adds `count` clients that are subscribed to a channel, each with a channel of `channels` in turn.
    pub fn subscribers(mut self, count: usize, channels: usize) -> Self {
        for number in 0..count {
            self.connect();
            self.subscribe(number, &format!("bench{}", number % channels));
        }
        self
    }

    /// The client `number` subscribes to a channel.
    pub fn subscribe(&self, number: usize, channel: &str) {
        self.command(number, &Bytes::from(format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#)));
    }

    /// These clients subscribe to a channel from where they stood, one right after the other.
    pub fn resume(&self, numbers: Range<usize>, channel: &str, epoch: &str, offset: u64) {
        let command = format!(
            r#"{{"id":2,"subscribe":{{"channel":"{channel}","recover":true,"epoch":"{epoch}","offset":{offset}}}}}"#
        );
        self.commands(numbers, &Bytes::from(command));
    }

    /// The client `number` ends a subscription.
    pub fn unsubscribe(&self, number: usize, channel: &str) {
        self.command(number, &Bytes::from(format!(r#"{{"id":3,"unsubscribe":{{"channel":"{channel}"}}}}"#)));
    }

    /// The client `number` publishes.
    pub fn publish_as(&self, number: usize, channel: &str) {
        let command = format!(r#"{{"id":4,"publish":{{"channel":"{channel}","data":{PAYLOAD}}}}}"#);
        self.command(number, &Bytes::from(command));
    }

    /// Lets the client `number` send a message, and waits until everything has come to rest.
    ///
    /// # Panics
    ///
    /// If the node ends the connection, or has nothing to say.
    pub fn command(&self, number: usize, message: &Bytes) {
        self.commands(number..number + 1, message);
    }

    /// The same for several clients. What is answered at once gives way to nothing in between, the clock included.
    fn commands(&self, numbers: Range<usize>, message: &Bytes) {
        let before = self.written();
        self.block_on(async |stage| {
            for client in &stage.clients[numbers] {
                client
                    .handle(Message::Text(message.clone()))
                    .await
                    .and_then(|()| client.flush())
                    .expect("a command that is allowed");
            }
        });
        assert!(self.written() > before, "the node answers");
    }

    /// Publishes so many messages in one turn, and waits until they are delivered; the stream's epoch, if there is one.
    ///
    /// # Panics
    ///
    /// If the node refuses.
    pub fn publish(&self, channel: &str, count: usize) -> Option<String> {
        let channel = Channel::new(channel).expect("a channel's name");
        self.block_on(async |stage| {
            let mut epoch = None;
            for _ in 0..count {
                let publish = Publish::new(channel.clone(), Payload::json(Bytes::from_static(PAYLOAD.as_bytes())));
                let published = stage.node.publish(publish).await.expect("the memory broker takes everything");
                epoch = published.position.map(|position| position.epoch.as_str().to_owned());
            }
            epoch
        })
    }

    /// Runs `part`, and then everything it has set going.
    fn block_on<T>(&self, part: impl AsyncFnOnce(&Self) -> T) -> T {
        self.local.block_on(&self.runtime, async {
            let result = part(self).await;
            // A letter, the turn, its slices: each yields once or twice. A sweep over a thousand clients has four slices.
            let (mut quiet, mut written) = (0, self.written());
            while quiet < 8 {
                tokio::task::yield_now().await;
                quiet = if self.written() == written { quiet + 1 } else { 0 };
                written = self.written();
            }
            result
        })
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Leaving needs the runtime.
        let clients = std::mem::take(&mut self.clients);
        self.local.block_on(&self.runtime, async move { drop(clients) });
    }
}

impl Socket for Sink {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + bytes.len() as u64);
        Ok(bytes.len())
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        self.0.set(self.0.get() + len as u64);
        Ok(len)
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn shutdown(&self, _: Shutdown) {}
}
