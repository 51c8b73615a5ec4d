//! From open to gone: connecting, pings, terms, the end.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanwire_wire::{Channel, Disconnect, Position, Refusal};

use super::join::{Prepared, Wanted};
use super::rights::second;
use super::{Client, Failure, Status, Subscribed, Timers};
use crate::admission::Kind;
use crate::authorizer::{AuthError, Grant, Identity};
use crate::hooks::{ConnectQuestion, Welcome};
use crate::moving::Why;
use crate::outlet::{Outlet, Socket};
use crate::protocol::{Event, Session};
use crate::subscription::Subscription;
use crate::{Namespace, Worker};

/// What a client says when it connects.
#[derive(Clone, Debug, Default)]
pub struct ConnectRequest {
    /// Its connection token; empty for none.
    pub token: String,
    /// Where its server-side subscriptions stood before, by channel name.
    pub positions: Vec<(String, Position)>,
    /// What becomes of the channels the server would subscribe it to.
    pub server_side: ServerSide,
    /// What it tells as headers, where it cannot set real ones.
    pub headers: Vec<(String, String)>,
    /// What else a backend learns.
    pub question: ConnectQuestion,
}

/// What becomes of the channels that the token, or the node's configuration, has for a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerSide {
    /// The client is subscribed to them.
    #[default]
    All,
    /// It is subscribed to this one, if it is among them: its protocol could not tell several apart.
    Only(Channel),
}

/// What a client learns when it has connected.
#[derive(Debug)]
pub struct Connected {
    /// Its id.
    pub client: String,
    /// The seconds until it needs a new token: its term, or the first of its capabilities, ends; `None` for never.
    pub ttl: Option<u32>,
    /// The seconds between pings.
    pub ping: u32,
    /// What the server subscribed it to.
    pub subscriptions: Vec<(Channel, Subscribed)>,
    /// From the backend, for the client itself.
    pub data: Option<Bytes>,
}

/// How long the last frame may take to leave, and the peer to answer it.
const CLOSE_SECONDS: u32 = 2;

impl Client {
    /// Opens the core's end of a connection. Leaving is the guard's `Drop`.
    pub(crate) fn open(
        worker: &Rc<Worker>,
        protocol: &'static str,
        session: Box<dyn Session>,
        socket: impl Socket + 'static,
    ) -> ClientGuard {
        let config = worker.node().config();
        let outlet = Outlet::new(socket, crate::id::random(), config.client.queue_size, worker.queues());
        let now = worker.second();
        let client = Rc::new(Self {
            worker: Rc::clone(worker),
            outlet,
            session,
            protocol,
            status: Cell::new(Status::Opened),
            user: RefCell::new(worker.nobody()),
            info: RefCell::default(),
            issued: Cell::default(),
            capabilities: RefCell::default(),
            subscriptions: RefCell::default(),
            farewells: RefCell::default(),
            ended: RefCell::default(),
            timers: Timers {
                last_read: Cell::new(now),
                deadline: Cell::new(now + seconds(config.client.connect_timeout)),
                ..Timers::default()
            },
            introduction: RefCell::default(),
            asking: Cell::default(),
        });
        client.outlet.key.set(worker.add(&client));
        client.schedule();
        worker.node().metrics().connections(protocol).increment(1);
        ClientGuard(client)
    }

    /// Lets the session begin.
    ///
    /// # Errors
    ///
    /// How the connection is to end.
    pub async fn begin(self: &Rc<Self>) -> Result<(), Disconnect> {
        self.session.on_open(self).await
    }

    /// Makes the connection somebody's.
    ///
    /// # Errors
    ///
    /// A refusal leaves the connection good for nothing but its end.
    pub async fn connect(self: &Rc<Self>, mut request: ConnectRequest) -> Result<Connected, Failure> {
        if self.status.get() != Status::Opened {
            return Err(Disconnect::BadRequest.into());
        }
        // Until the answer is known; a second request does not get in between.
        self.status.set(Status::Refused);
        self.worker.node().admit(Kind::Connect).await?;
        let (Welcome { identity, data, .. }, told) = self.welcome(&mut request).await?;
        if self.is_closed() {
            return Err(Disconnect::ConnectionClosed.into());
        }
        // No await from here until the worker knows whose it is: what is revoked from now on finds it there.
        self.check_revoked(&identity)?;
        let personal = self.worker.node().config().client.personal_channel && !identity.user.is_empty();
        let personal = personal.then(|| personal_channel(&identity.user)).flatten();

        self.status.set(Status::Welcomed);
        *self.user.borrow_mut() = Arc::clone(&identity.user);
        self.issued.set(second(identity.issued_at));
        *self.info.borrow_mut() = identity.info.map(Box::new);
        *self.capabilities.borrow_mut() = identity.capabilities.into();
        self.worker.add_user(&identity.user, self.outlet.key.get());

        let granted = personal.map(|channel| (channel, Grant::default())).into_iter().chain(identity.subscriptions);
        let wanted = granted.filter(|(channel, _)| match &request.server_side {
            ServerSide::All => true,
            ServerSide::Only(only) => channel == only,
        });
        let subscriptions = self.connect_subscriptions(wanted.collect(), &request.positions).await;
        let subscriptions = subscriptions.inspect_err(|failure| {
            if !matches!(failure, Failure::Disconnect(_)) && !self.is_closed() {
                self.status.set(Status::Refused);
                self.leave_all();
            }
        })?;
        if self.is_closed() {
            return Err(Disconnect::ConnectionClosed.into());
        }
        self.move_to(Status::Connected);
        self.set_term(identity.expire_at);
        self.timers.deadline.set(0);
        let interval = seconds(self.worker.node().config().client.ping_interval);
        // Spread over the second half of the interval, so that clients that came together are not pinged together.
        let spread = (self.outlet.key.get() % 256) * (interval / 2) / 256;
        self.timers.next_ping.set(self.worker.second() + interval - spread);
        self.timers.ping_interval.set(interval);
        self.set_lifetime();
        self.schedule();
        let ttl = self.ttl(identity.expire_at.filter(|_| told));
        Ok(Connected { client: self.id(), ttl, ping: interval, subscriptions, data })
    }

    /// Renews the connection's term and capabilities with a new token of the same user; returns the seconds left until the
    /// next, `None` for ever. Subscriptions that only a capability permitted go on as far as the new ones permit them.
    ///
    /// # Errors
    ///
    /// An expired token is refused (109); any other that does not fit ends the connection (3500).
    pub async fn refresh(self: &Rc<Self>, token: &str) -> Result<Option<u32>, Failure> {
        let node = self.worker.node();
        let identity = match node.authorizer().connection(token).await {
            Ok(identity) if identity.user == *self.user.borrow() => identity,
            _ if node.config().client.insecure => Identity::default(),
            Err(AuthError::Expired) => return Err(Refusal::TokenExpired.into()),
            Err(AuthError::Unavailable(reason)) => return Err(unavailable(&reason)),
            Ok(_) | Err(AuthError::Invalid(_)) => return Err(Disconnect::InvalidToken.into()),
        };
        self.check_revoked(&identity)?;
        self.issued.set(second(identity.issued_at));
        *self.capabilities.borrow_mut() = identity.capabilities.into();
        self.renew_subscriptions();
        self.set_term(identity.expire_at);
        self.schedule();
        Ok(self.ttl(identity.expire_at))
    }

    /// Sets the connection's term from outside and tells the client.
    pub(crate) fn set_term_and_tell(self: &Rc<Self>, expire_at: Option<u64>) {
        if !self.is_connected() {
            return;
        }
        self.set_term(expire_at);
        self.schedule();
        self.tell(&Event::Refreshed { ttl: self.ttl(expire_at) });
    }

    /// Takes the answer to a ping.
    ///
    /// # Errors
    ///
    /// [`Disconnect::BadRequest`] if there was no ping.
    pub fn pong(&self) -> Result<(), Disconnect> {
        if self.timers.pinged.replace(0) == 0 { Err(Disconnect::BadRequest) } else { Ok(()) }
    }

    /// Ends the connection: leaves every channel, tells the client why, and closes the socket once that is written.
    /// The first reason counts.
    pub fn close(self: &Rc<Self>, disconnect: Disconnect) {
        let mut farewell = BytesMut::new();
        self.session.encode_disconnect(&disconnect, &mut farewell);
        self.close_with(disconnect, farewell);
    }

    /// Asks the client to come back to another node.
    pub(crate) fn send_away(self: &Rc<Self>, why: Why) {
        self.worker.node().metrics().moved(why);
        self.close(why.disconnect());
    }

    /// Ends the connection with a last frame of the caller's.
    pub fn close_with(self: &Rc<Self>, disconnect: Disconnect, farewell: BytesMut) {
        if self.is_closed() {
            return;
        }
        tracing::debug!(client = self.id(), reason = disconnect.name(), "closing connection");
        let (lost, slow) = (disconnect == Disconnect::WriteError, disconnect == Disconnect::Slow);
        self.ended.borrow_mut().get_or_insert(disconnect);
        self.leave_all();
        self.move_to(Status::Closed);
        if slow {
            self.outlet.shed();
        }
        if lost || self.outlet.push(farewell.freeze()).is_err() {
            return self.outlet.abort();
        }
        self.outlet.finish();
        self.timers.deadline.set(self.worker.second() + CLOSE_SECONDS);
        self.schedule();
    }

    /// Looks at the client when its second has come; pings, ends what is over, and puts it down for the next look.
    pub(crate) fn tick(self: &Rc<Self>, now: u32) {
        if self.timers.check.get() != now {
            return;
        }
        self.timers.check.set(0);
        let due = |timer: &Cell<u32>| timer.get() != 0 && timer.get() <= now;
        let config = self.worker.node().config();
        let config = &config.client;
        if self.is_closed() {
            return if due(&self.timers.deadline) { self.outlet.abort() } else { self.schedule() };
        }
        if due(&self.timers.deadline) {
            return self.close(Disconnect::Stale);
        }
        if self.timers.expires.get() != 0 && self.timers.expires.get() + self.grace() <= now {
            if config.refresh_hook.is_empty() {
                return self.close(Disconnect::Expired);
            }
            self.renew();
        }
        if !self.asking.get()
            && self.timers.pinged.get() != 0
            && self.timers.pinged.get() + seconds(config.pong_timeout) <= now
        {
            return self.close(Disconnect::NoPong);
        }
        if due(&self.timers.retires) {
            return self.send_away(Why::Lifetime);
        }
        self.end_expired_subscriptions(now);
        if due(&self.timers.next_ping) {
            self.ping(now);
        }
        self.schedule();
    }

    /// Pings a client unless bytes went both ways within half the interval: each end needs a sign of the other.
    fn ping(self: &Rc<Self>, now: u32) {
        let interval = self.timers.ping_interval.get();
        let quiet_since = self.timers.last_read.get().min(self.outlet.last_write.get());
        let patience = interval.div_ceil(2);
        if quiet_since + patience > now {
            return self.timers.next_ping.set(quiet_since + patience);
        }
        self.timers.next_ping.set(now + interval);
        if self.timers.pinged.get() == 0 {
            self.timers.pinged.set(now);
            self.tell(&Event::Ping);
        }
    }

    /// Puts the client down for the next second in which something may be due.
    pub(super) fn schedule(self: &Rc<Self>) {
        if self.is_closed() && self.timers.deadline.get() == 0 {
            return;
        }
        let config = self.worker.node().config();
        let config = &config.client;
        let grace = seconds(config.expiry_grace);
        let after = |timer: &Cell<u32>, delay: u32| (timer.get() != 0).then(|| timer.get() + delay);
        let subscriptions = self.subscriptions.borrow();
        let next = [
            after(&self.timers.deadline, 0),
            after(&self.timers.next_ping, 0),
            after(&self.timers.expires, self.grace()),
            after(&self.timers.retires, 0),
            after(&self.timers.pinged, seconds(config.pong_timeout)),
        ]
        .into_iter()
        .chain(subscriptions.iter().map(|subscription| subscription.ends(grace)))
        .flatten()
        .min();
        if let Some(next) = next {
            self.look_by(next);
        }
    }

    /// Puts the client down for the end of a subscription. The others have been thought of.
    pub(super) fn schedule_end(&self, subscription: &Subscription) {
        let grace = seconds(self.worker.node().config().client.expiry_grace);
        if let Some(end) = subscription.ends(grace) {
            self.look_by(end);
        }
    }

    /// Has the client looked at in this second or before.
    fn look_by(&self, second: u32) {
        let check = self.timers.check.get();
        if check == 0 || second < check {
            self.timers.check.set(self.worker.look_at(self.outlet.key.get(), second));
        }
    }

    /// How long after its term the connection goes on: clients may be late, a backend is asked.
    fn grace(&self) -> u32 {
        let config = self.worker.node().config();
        if config.client.refresh_hook.is_empty() { seconds(config.client.expiry_grace) } else { 0 }
    }

    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Failure> {
        let node = self.worker.node();
        let config = node.config();
        let config = &config.client;
        if token.is_empty() {
            let welcome = config.anonymous || config.insecure;
            return if welcome { Ok(Identity::default()) } else { Err(Refusal::Unauthorized.into()) };
        }
        match node.authorizer().connection(token).await {
            Ok(identity) => Ok(identity),
            Err(_) if config.insecure => Ok(Identity::default()),
            Err(AuthError::Expired) => Err(Refusal::TokenExpired.into()),
            Err(AuthError::Unavailable(reason)) => Err(unavailable(&reason)),
            Err(AuthError::Invalid(reason)) => {
                tracing::debug!(client = self.id(), reason, "connection token refused");
                Err(Disconnect::InvalidToken.into())
            }
        }
    }

    /// Begins the server-side subscriptions, all live at the same moment: the connect reply comes before anything they carry.
    async fn connect_subscriptions(
        self: &Rc<Self>,
        wanted: Vec<(Channel, Grant)>,
        positions: &[(String, Position)],
    ) -> Result<Vec<(Channel, Subscribed)>, Failure> {
        let mut prepared: Vec<Prepared> = Vec::with_capacity(wanted.len());
        for (channel, grant) in wanted {
            if self.subscription(&channel).is_some() {
                continue;
            }
            let since =
                positions.iter().find(|(name, _)| name == channel.as_str()).map(|(_, position)| position.clone());
            match self.prepare(Wanted::by_server(channel, grant, since)).await {
                // Ended while it began: no reason to refuse the connection.
                Err(Failure::Refusal(Refusal::Expired)) => {}
                outcome => prepared.push(outcome?),
            }
        }
        prepared.into_iter().filter(Prepared::is_wanted).map(|prepared| self.finish(prepared)).collect()
    }

    /// Goes on to a new status; who is connected is counted.
    fn move_to(&self, status: Status) {
        let was = self.status.replace(status);
        if status == Status::Connected {
            self.worker.count_in(&self.user());
        } else if was == Status::Connected {
            self.worker.count_out(&self.user());
        }
    }

    /// Lets the connection live for three quarters of its lifetime or more: what came together does not go together.
    fn set_lifetime(&self) {
        let lifetime = self.worker.node().config().client.lifetime;
        if !lifetime.is_zero() {
            let dithered = lifetime.mul_f64(0.75 + 0.25 * crate::id::share());
            self.timers.retires.set(self.worker.second() + seconds(dithered));
        }
    }

    fn set_term(&self, expire_at: Option<u64>) {
        self.timers.expires.set(self.worker.second_of(expire_at));
    }
}

/// An open connection; dropping it leaves everything.
#[derive(Debug)]
pub struct ClientGuard(Rc<Client>);

impl Deref for ClientGuard {
    type Target = Rc<Client>;

    fn deref(&self) -> &Rc<Client> {
        &self.0
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        let client = &self.0;
        client.leave_all();
        client.move_to(Status::Closed);
        client.outlet.abort();
        let unsaid = if client.outlet.is_broken() { Disconnect::WriteError } else { Disconnect::ConnectionClosed };
        let reason = client.ended().unwrap_or(unsaid);
        client.worker.remove(client.outlet.key.get(), &client.user());
        let metrics = client.worker.node().metrics();
        metrics.connections(client.protocol).decrement(1);
        metrics.disconnected(&reason);
        tracing::debug!(client = client.id(), reason = reason.name(), "connection closed");
    }
}

/// A user's own channel; none for an id that would name other users, or that no channel name can hold.
fn personal_channel(user: &str) -> Option<Channel> {
    let channel = Channel::new(&format!("#{user}")).ok()?;
    let own = channel.users().is_some_and(|mut users| users.next() == Some(user) && users.next().is_none());
    if !own {
        tracing::warn!("a user id with a comma has no personal channel");
    }
    own.then_some(channel)
}

fn unavailable(reason: &str) -> Failure {
    tracing::warn!(reason, "tokens cannot be verified");
    Refusal::Internal.into()
}

/// Whole seconds, rounded up; at least one.
pub(crate) fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(MAX_SECONDS).clamp(1, MAX_SECONDS)
}

/// Longer times, about 48 days, count as this: what is reckoned with them stays far from the end of a `u32`.
const MAX_SECONDS: u32 = u32::MAX / 1024;

/// The namespace's options as this grant changes them.
pub(super) fn overridden(namespace: &Namespace, grant: &Grant) -> Namespace {
    let overrides = &grant.overrides;
    let keeps = namespace.retention().is_some();
    Namespace {
        presence: overrides.presence.unwrap_or(namespace.presence),
        join_leave: overrides.join_leave.unwrap_or(namespace.join_leave),
        force_join_leave: overrides.force_join_leave.unwrap_or(namespace.force_join_leave),
        recovery: keeps && overrides.recovery.unwrap_or(namespace.recovery),
        positioning: keeps && overrides.positioning.unwrap_or(namespace.positioning),
        ..namespace.clone()
    }
}
