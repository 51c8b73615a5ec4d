//! The core's end of one connection.

mod hooks;
mod join;
mod leave;
mod lifecycle;
mod requests;
mod rights;
mod subscribe;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanwire_wire::{Channel, ClientInfo, Disconnect, Message, Refusal};

use crate::hooks::{BackendError, Introduction};
use crate::hub;
use crate::outlet::Outlet;
use crate::protocol::{Event, Session};
use crate::subscription::Subscription;
use crate::{Capability, Worker};

pub use lifecycle::{ClientGuard, ConnectRequest, Connected, ServerSide};
pub use requests::HistoryRequest;
pub use subscribe::{Recovery, SubscribeRequest, Subscribed};

/// The core's end of one connection: who it is, what it is subscribed to, and its way out.
///
/// Belongs to its worker's thread. Sessions call its methods; whatever they answer is written by the session.
pub struct Client {
    worker: Rc<Worker>,
    outlet: Rc<Outlet>,
    session: Box<dyn Session>,
    protocol: &'static str,
    status: Cell<Status>,
    /// Who it is, once connected.
    user: RefCell<Arc<str>>,
    info: RefCell<Option<Box<Bytes>>>,
    /// When it was said who it is, in seconds of Unix time; 0 for long ago.
    issued: Cell<u32>,
    /// What it may do beside what namespaces permit to everyone.
    capabilities: RefCell<Box<[Capability]>>,
    /// By name.
    subscriptions: RefCell<Vec<Rc<Subscription>>>,
    /// Those that ended and that other clients may still see.
    farewells: RefCell<Vec<Rc<Subscription>>>,
    /// The first reason to end the connection.
    ended: RefCell<Option<Disconnect>>,
    timers: Timers,
    /// What it brought along, as far as hooks have a use for it.
    introduction: RefCell<Option<Arc<Introduction>>>,
    /// A message of its own waits for a backend.
    asking: Cell<bool>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Nobody yet.
    Opened,
    /// Asked to connect and was refused: good for nothing more.
    Refused,
    /// Somebody, but not told yet: nothing else may be told first.
    Welcomed,
    /// Somebody.
    Connected,
    /// On its way out.
    Closed,
}

/// Seconds of the worker's clock; 0 for none.
#[derive(Debug, Default)]
struct Timers {
    /// When the wheel looks at the client next.
    check: Cell<u32>,
    /// When something last came in.
    last_read: Cell<u32>,
    /// When a ping was sent that is not answered.
    pinged: Cell<u32>,
    /// When the next ping may be due.
    next_ping: Cell<u32>,
    /// The silence after which it is: as the client was told when it connected, for it counts on that.
    ping_interval: Cell<u32>,
    /// When the connection's term ends.
    expires: Cell<u32>,
    /// When it is old enough to go to another node.
    retires: Cell<u32>,
    /// By when it must have connected, or its last frame must have left.
    deadline: Cell<u32>,
}

/// Why a request got no answer of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request is refused; the connection goes on.
    Refusal(Refusal),
    /// The backend refuses it, in its own words; the connection goes on.
    Backend(BackendError),
    /// The connection ends.
    Disconnect(Disconnect),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl From<Disconnect> for Failure {
    fn from(disconnect: Disconnect) -> Self {
        Self::Disconnect(disconnect)
    }
}

impl Client {
    /// The connection's id, a random UUID.
    #[must_use]
    pub fn id(&self) -> String {
        crate::id::format(&self.outlet.client)
    }

    /// Reads the id of a connection, of this node or another.
    #[must_use]
    pub fn parse_id(text: &str) -> Option<[u8; 16]> {
        crate::id::parse(text)
    }

    pub(crate) fn id_bytes(&self) -> &[u8; 16] {
        &self.outlet.client
    }

    /// How many channels it is subscribed to, or is about to be.
    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions.borrow().len()
    }

    /// Whether it is subscribed to a channel, or is about to be.
    pub(crate) fn is_subscribed(&self, channel: &Channel) -> bool {
        self.subscription(channel).is_some()
    }

    /// The user's id; empty for an anonymous one, and before the connection is somebody's.
    #[must_use]
    pub fn user(&self) -> Arc<str> {
        self.user.borrow().clone()
    }

    /// The name of the protocol it speaks.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// The bytes that wait for its full socket.
    pub(crate) fn blocked_bytes(&self) -> usize {
        self.outlet.blocked_bytes()
    }

    /// The worker it belongs to.
    #[must_use]
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Whether the connection is on its way out: nothing more is answered.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.status.get() == Status::Closed
    }

    /// Whether the connection is somebody's.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.status.get() == Status::Connected
    }

    /// Whether it is known whose the connection is, told or not.
    pub(crate) fn is_somebody(&self) -> bool {
        matches!(self.status.get(), Status::Welcomed | Status::Connected)
    }

    /// Why the connection ends, if it does.
    #[must_use]
    pub fn ended(&self) -> Option<Disconnect> {
        self.ended.borrow().clone()
    }

    /// Gives the session one message. What it answers leaves with [`Client::flush`].
    ///
    /// # Errors
    ///
    /// How the connection is to end: see [`Client::close`].
    pub async fn handle(self: &Rc<Self>, message: Message) -> Result<(), Disconnect> {
        self.touch();
        self.session.on_message(self, message).await
    }

    /// Notes that something came in.
    pub fn touch(&self) {
        self.timers.last_read.set(self.worker.second());
    }

    /// Puts a finished frame behind those already waiting; it leaves with [`Client::flush`].
    ///
    /// # Errors
    ///
    /// How the connection ends.
    pub fn push(&self, frame: Bytes) -> Result<(), Disconnect> {
        self.outlet.push(frame)
    }

    /// Writes what was pushed.
    ///
    /// # Errors
    ///
    /// How the connection ends.
    pub fn flush(&self) -> Result<(), Disconnect> {
        if self.outlet.is_waiting() {
            self.outlet.last_write.set(self.worker.second());
        }
        self.outlet.flush()
    }

    /// Tells the client something, at once.
    pub(crate) fn tell(self: &Rc<Self>, event: &Event<'_>) {
        let mut frame = BytesMut::new();
        let told = self
            .session
            .encode_event(event, &mut frame)
            .and_then(|()| self.push(frame.freeze()))
            .and_then(|()| self.flush());
        if let Err(disconnect) = told {
            self.close(disconnect);
        }
    }

    /// The subscription to a channel in any phase.
    fn subscription(&self, channel: &Channel) -> Option<Rc<Subscription>> {
        let subscriptions = self.subscriptions.borrow();
        find(&subscriptions, channel).ok().map(|at| Rc::clone(&subscriptions[at]))
    }

    /// Puts a subscription on the list. There is no other one to its channel.
    fn enlist(&self, subscription: &Rc<Subscription>) {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let at = find(&subscriptions, &subscription.channel.name).unwrap_or_else(|place| place);
        hub::make_room(&mut subscriptions);
        subscriptions.insert(at, Rc::clone(subscription));
    }

    /// Takes a subscription off the list, if it stands there.
    fn strike(&self, subscription: &Rc<Subscription>) {
        let mut subscriptions = self.subscriptions.borrow_mut();
        if let Ok(at) = find(&subscriptions, &subscription.channel.name)
            && Rc::ptr_eq(&subscriptions[at], subscription)
        {
            subscriptions.remove(at);
        }
    }

    /// What other clients see of this one.
    fn client_info(&self, subscription: Option<&Subscription>) -> ClientInfo {
        ClientInfo {
            user: self.user(),
            client: self.id().into(),
            conn_info: self.info.borrow().as_deref().cloned(),
            chan_info: subscription.and_then(Subscription::info),
        }
    }
}

/// Where the subscription to a channel stands, or would stand.
fn find(subscriptions: &[Rc<Subscription>], channel: &Channel) -> Result<usize, usize> {
    subscriptions.binary_search_by(|subscription| subscription.channel.name.cmp(channel))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id())
            .field("protocol", &self.protocol)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
