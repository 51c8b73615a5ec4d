//! Subscriptions: asked for, prepared with the broker, made live, recovered, left.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanwire_wire::{Broadcast, Channel, Disconnect, Position, Publication, Refusal, Unsubscribe};
use tokio::time::timeout;

use super::lifecycle::overridden;
use super::{Client, Failure};
use crate::authorizer::{AuthError, Grant, SubscriptionToken};
use crate::broker::{History, HistoryQuery, Order};
use crate::clock;
use crate::config::ClientConfig;
use crate::hub::{Audience, JoinGuard};
use crate::namespace::{Permission, RecoveryMode};
use crate::protocol::Event;
use crate::subscription::{Origin, Phase, Subscription, Terms};

/// What a client says when it subscribes.
#[derive(Clone, Debug, Default)]
pub struct SubscribeRequest {
    /// The channel's name.
    pub channel: String,
    /// Its subscription token; empty for none.
    pub token: String,
    /// Where it stood before, if it wants to go on from there.
    pub since: Option<Position>,
    /// Whether it would rather be refused (112) than begin anew when that is impossible.
    pub reject_unrecovered: bool,
    /// Whether it wants the joins and leaves of others.
    pub join_leave: bool,
}

/// What a client learns when a subscription begins.
#[derive(Clone, Debug, Default)]
pub struct Subscribed {
    /// Where the client stands, if the subscription has a position. After a complete recovery: where it stood before.
    pub position: Option<Position>,
    /// Whether the subscription can be recovered later.
    pub recoverable: bool,
    /// Whether it has a position.
    pub positioned: bool,
    /// How the recovery went, if one was asked for.
    pub recovery: Option<Recovery>,
    /// The seconds until it ends; `None` for never.
    pub ttl: Option<u32>,
    /// JSON for the subscriber.
    pub data: Option<Bytes>,
}

/// How a recovery went: complete or not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovery {
    /// Nothing is missing behind these (cache mode: this is the latest).
    Complete(Vec<Arc<Publication>>),
    /// Something may be missing.
    Failed,
}

/// A subscription somebody has a right to.
pub(super) struct Wanted {
    pub(super) channel: Channel,
    pub(super) grant: Grant,
    pub(super) origin: Origin,
    pub(super) since: Option<Position>,
    pub(super) reject_unrecovered: bool,
    pub(super) join_leave: bool,
}

impl Wanted {
    /// A subscription the server makes.
    pub(super) fn by_server(channel: Channel, grant: Grant, since: Option<Position>) -> Self {
        Self { channel, grant, origin: Origin::Server, since, reject_unrecovered: false, join_leave: false }
    }
}

/// A subscription that lacks nothing but to be made live.
pub(super) struct Prepared {
    subscription: Rc<Subscription>,
    stream: Option<(History, JoinGuard)>,
    recovery: Option<(Position, Recovery)>,
    grant: Grant,
}

impl Prepared {
    /// Whether nobody has ended it meanwhile.
    pub(super) fn is_wanted(&self) -> bool {
        self.subscription.phase.get() != Phase::Left
    }
}

impl Client {
    /// Subscribes to a channel. The subscription is live when this returns:
    /// push the reply before anything is awaited.
    ///
    /// # Errors
    ///
    /// Codes 102, 103, 105, 106, 107, 109 and 112 as refusals; a token made for somebody else ends the connection (3500).
    pub async fn subscribe(self: &Rc<Self>, request: SubscribeRequest) -> Result<Subscribed, Failure> {
        let channel = Channel::new(&request.channel).map_err(|_| Refusal::BadRequest)?;
        self.check_room(&channel)?;
        let (origin, grant) = self.authorize(&channel, &request.token).await?;
        let prepared = self
            .prepare(Wanted {
                channel,
                grant,
                origin,
                since: request.since,
                reject_unrecovered: request.reject_unrecovered,
                join_leave: request.join_leave,
            })
            .await?;
        let (_, subscribed) = self.finish(prepared)?;
        self.schedule();
        Ok(subscribed)
    }

    /// Leaves a channel; quiet if the client is not in it.
    pub async fn unsubscribe(self: &Rc<Self>, channel: &str) {
        let found = Channel::new(channel).ok().and_then(|channel| self.subscription(&channel));
        if let Some(subscription) = found {
            let was = self.detach(&subscription);
            self.farewell(&subscription, was).await;
        }
    }

    /// Renews a subscription's term with a new token; returns the seconds left, `None` for ever.
    ///
    /// # Errors
    ///
    /// Expired tokens are refused (109), bad ones (103); one made for somebody else ends the connection (3500).
    pub async fn refresh_subscription(self: &Rc<Self>, channel: &str, token: &str) -> Result<Option<u32>, Failure> {
        let channel = Channel::new(channel).map_err(|_| Refusal::BadRequest)?;
        let Some(subscription) = self.subscription(&channel) else { return Err(Refusal::BadRequest.into()) };
        let grant = match self.grant(&channel, token).await {
            Err(_) if self.worker.node().config().client.insecure => Grant::default(),
            granted => granted?,
        };
        subscription.expires.set(self.worker.second_of(grant.expire_at));
        *subscription.info.borrow_mut() = grant.info.map(Box::new);
        self.schedule();
        Ok(grant.expire_at.map(clock::seconds_until))
    }

    /// Subscribes the client from outside and tells it.
    ///
    /// # Errors
    ///
    /// Those of a subscription; being subscribed already is none.
    pub(crate) async fn subscribe_by_server(
        self: &Rc<Self>,
        channel: Channel,
        grant: Grant,
        since: Option<Position>,
    ) -> Result<(), Failure> {
        if !self.is_connected() || self.subscription(&channel).is_some() {
            return Ok(());
        }
        let prepared = self.prepare(Wanted::by_server(channel, grant, since)).await?;
        let (channel, subscribed) = self.finish(prepared)?;
        self.tell(&Event::Subscribed {
            channel: &channel,
            position: subscribed.position.as_ref(),
            recoverable: subscribed.recoverable,
            positioned: subscribed.positioned,
            data: subscribed.data.as_ref(),
        });
        if let Some(Recovery::Complete(missed)) = subscribed.recovery {
            self.deliver(missed)?;
        }
        self.schedule();
        Ok(())
    }

    /// Hands over publications read from the history, in a protocol's form for live ones.
    fn deliver(&self, publications: Vec<Arc<Publication>>) -> Result<(), Disconnect> {
        let mut frames = BytesMut::new();
        for publication in publications {
            self.session.encoder().encode(&Broadcast::Publication(publication), &mut frames)?;
        }
        self.push(frames.freeze())?;
        self.flush()
    }

    /// Ends a subscription from outside and tells the client.
    pub(crate) fn unsubscribe_by_server(self: &Rc<Self>, channel: &Channel, reason: Unsubscribe) {
        let Some(subscription) = self.subscription(channel) else { return };
        self.end_subscription(&subscription, reason);
    }

    /// Ends a subscription and tells the client.
    pub(crate) fn end_subscription(self: &Rc<Self>, subscription: &Rc<Subscription>, reason: Unsubscribe) {
        if subscription.phase.get() == Phase::Left {
            return;
        }
        if reason == Unsubscribe::InsufficientState {
            self.worker.node().metrics().insufficient_state.increment(1);
        }
        let (client, subscription) = (Rc::clone(self), Rc::clone(subscription));
        // Where a request still waits for the broker, its answer tells the client.
        if subscription.is_live() {
            self.tell(&Event::Unsubscribed { channel: &subscription.channel.name, reason });
        }
        // Delivery ends here; what other clients see of it may take its time.
        let was = self.detach(&subscription);
        tokio::task::spawn_local(async move { client.farewell(&subscription, was).await });
    }

    pub(super) fn end_expired_subscriptions(self: &Rc<Self>, now: u32) {
        let grace = super::lifecycle::seconds(self.worker.node().config().client.expiry_grace);
        let over = |s: &&Rc<Subscription>| s.expires.get() != 0 && s.expires.get() + grace <= now;
        let expired: Vec<_> = self.subscriptions.borrow().iter().filter(over).cloned().collect();
        for subscription in expired {
            self.end_subscription(&subscription, Unsubscribe::Expired);
        }
    }

    /// Leaves every channel. What other clients see of it follows in a task.
    pub(super) fn leave_all(self: &Rc<Self>) {
        let all = self.subscriptions.borrow().clone();
        let left: Vec<_> = all.into_iter().map(|subscription| (self.detach(&subscription), subscription)).collect();
        self.subscriptions.borrow_mut().shrink_to_fit();
        if left.iter().any(|(was, subscription)| subscription.is_seen(*was)) {
            let client = Rc::clone(self);
            tokio::task::spawn_local(async move {
                for (was, subscription) in left {
                    client.farewell(&subscription, was).await;
                }
            });
        }
    }

    /// Begins a subscription and collects all that it needs from the broker.
    pub(super) async fn prepare(self: &Rc<Self>, wanted: Wanted) -> Result<Prepared, Failure> {
        if self.is_closed() {
            return Err(Disconnect::ConnectionClosed.into());
        }
        self.check_room(&wanted.channel)?;
        let node = Arc::clone(self.worker.node());
        let namespace = node.namespace(&wanted.channel).ok_or(Refusal::UnknownChannel)?;
        let options = overridden(&namespace, &wanted.grant);
        let subscription = Rc::new(Subscription {
            channel: self.worker.hub().channel(&wanted.channel),
            terms: Terms {
                origin: wanted.origin,
                presence: options.presence,
                announced: options.join_leave || options.force_join_leave,
                hears_joins: options.force_join_leave || options.join_leave && wanted.join_leave,
                recoverable: options.recovery,
                positioned: options.recovery || options.positioning,
            },
            phase: Cell::new(Phase::Joining),
            place: Cell::default(),
            expires: Cell::new(self.worker.second_of(wanted.grant.expire_at)),
            info: RefCell::new(wanted.grant.info.clone().map(Box::new)),
        });
        subscription.channel.enter();
        node.metrics().subscriptions.increment(1);
        self.subscriptions.borrow_mut().push(Rc::clone(&subscription));

        let prepared = self.collect(&subscription, wanted, options.recovery_mode).await;
        if prepared.is_err() {
            self.detach(&subscription);
        }
        prepared
    }

    async fn collect(
        self: &Rc<Self>,
        subscription: &Rc<Subscription>,
        wanted: Wanted,
        mode: RecoveryMode,
    ) -> Result<Prepared, Failure> {
        let node = Arc::clone(self.worker.node());
        let Wanted { channel, grant, since, reject_unrecovered, .. } = wanted;
        let terms = subscription.terms;
        let hold = terms.positioned.then(|| subscription.channel.begin_join());
        let confirmed = node.dispatcher().want(&channel, self.worker.index(), node.broker()).await;
        confirmed.map_err(|error| self.broker_failed(&error))?;

        let since = since.filter(|_| terms.recoverable);
        let limit = node.config().client.history_limit;
        let stream = match hold {
            Some(hold) => {
                let query = match (&since, mode) {
                    (None, _) => HistoryQuery { since: None, limit: 0, order: Order::Forward },
                    // One more than allowed tells that there is more.
                    (Some(since), RecoveryMode::Stream) => {
                        HistoryQuery { since: Some(since.offset), limit: limit + 1, order: Order::Forward }
                    }
                    (Some(_), RecoveryMode::Cache) => HistoryQuery { since: None, limit: 1, order: Order::Reverse },
                };
                let history = node.broker().history(&channel, query).await;
                let history = history.map_err(|error| self.broker_failed(&error))?;
                self.catch_up(&hold, &history.top).await;
                Some((history, hold))
            }
            None => None,
        };
        let recovery = stream.as_ref().zip(since).map(|((history, _), since)| {
            let recovery = recover(mode, &since, history, &node.config().client);
            node.metrics().recovered(matches!(recovery, Recovery::Complete(_)));
            // The client walks up from where it stood; in cache mode there is nothing to walk.
            let start = match (&recovery, mode) {
                (Recovery::Complete(_), RecoveryMode::Stream) => {
                    Position { epoch: history.top.epoch.clone(), offset: since.offset }
                }
                _ => history.top.clone(),
            };
            (start, recovery)
        });
        if reject_unrecovered && matches!(recovery, Some((_, Recovery::Failed))) {
            return Err(Refusal::UnrecoverablePosition.into());
        }
        if terms.presence {
            let info = Arc::new(self.client_info(Some(subscription)));
            let added = node.presence().add(&channel, info).await;
            added.map_err(|error| self.broker_failed(&error))?;
        }
        if subscription.phase.get() == Phase::Left {
            // Ended while the broker was asked: take back what the other end could not know of.
            self.farewell(subscription, Phase::Prepared).await;
            return Err(if self.is_closed() { Disconnect::ConnectionClosed.into() } else { Refusal::Expired.into() });
        }
        subscription.phase.set(Phase::Prepared);
        Ok(Prepared { subscription: Rc::clone(subscription), stream, recovery, grant })
    }

    /// Waits until the worker has dispatched what the history read contains. What does not come in time was lost on its
    /// way: the subscribers that missed it are told.
    async fn catch_up(&self, hold: &JoinGuard, top: &Position) {
        // Whether it was in time shows in what is behind.
        let _ = timeout(CATCH_UP, hold.meet(top)).await;
        for (key, subscription) in hold.catch_up(top) {
            self.worker.tell_gap(key, &subscription);
        }
    }

    /// Makes a subscription live; from here on nothing is missed and nothing comes twice.
    pub(super) fn finish(self: &Rc<Self>, prepared: Prepared) -> Result<(Channel, Subscribed), Failure> {
        let Prepared { subscription, stream, recovery, grant } = prepared;
        let channel = &subscription.channel;
        debug_assert_eq!(subscription.phase.get(), Phase::Prepared, "nothing was awaited since, or it was asked for");
        let mut subscribed = Subscribed {
            recoverable: subscription.terms.recoverable,
            positioned: subscription.terms.positioned,
            ttl: grant.expire_at.map(clock::seconds_until),
            data: grant.data,
            ..Subscribed::default()
        };
        if let Some((history, hold)) = stream {
            let Some(behind) = hold.behind(&history.top) else {
                return Err(Disconnect::InsufficientState.into());
            };
            let end = behind.last().and_then(|last| last.stamp.as_ref()).map_or(&history.top, |stamp| &stamp.position);
            subscribed.position = Some(match recovery {
                Some((start, Recovery::Complete(mut publications))) => {
                    publications.extend(behind);
                    subscribed.recovery = Some(Recovery::Complete(publications));
                    start
                }
                Some((_, Recovery::Failed)) => {
                    subscribed.recovery = Some(Recovery::Failed);
                    end.clone()
                }
                None => end.clone(),
            });
        }
        let audience = if subscription.terms.hears_joins { Audience::JoinLeave } else { Audience::Publications };
        channel.activate(&subscription, &self.outlet, self.session.encoder(), audience);
        subscription.phase.set(Phase::Live);
        if subscription.terms.announced {
            let client = Rc::clone(self);
            let subscription = Rc::clone(&subscription);
            tokio::task::spawn_local(async move { client.announce_join(&subscription).await });
        }
        Ok((channel.name.clone(), subscribed))
    }

    /// Announces a join behind the reply; a leave that came in between follows it.
    async fn announce_join(&self, subscription: &Subscription) {
        let info = Arc::new(self.client_info(Some(subscription)));
        let channel = &subscription.channel.name;
        self.announce(Broadcast::Join(channel.clone(), Arc::clone(&info))).await;
        if subscription.phase.get() == Phase::Left {
            self.announce(Broadcast::Leave(channel.clone(), info)).await;
        } else {
            subscription.phase.set(Phase::Announced);
        }
    }

    /// Ends the delivery to a subscription, now; returns how far it was.
    fn detach(&self, subscription: &Rc<Subscription>) -> Phase {
        let was = subscription.phase.replace(Phase::Left);
        if was == Phase::Left {
            return was;
        }
        let channel = &subscription.channel;
        channel.deactivate(subscription);
        self.subscriptions.borrow_mut().retain(|other| !Rc::ptr_eq(other, subscription));
        self.worker.node().metrics().subscriptions.decrement(1);
        if channel.leave() {
            self.worker.hub().remove(channel);
            self.worker.node().dispatcher().release(&channel.name, self.worker.index());
        }
        was
    }

    /// Takes the client out of a channel's presence and announces that it left: what a subscription that was
    /// this far owes the others. A join that is still being announced answers itself.
    async fn farewell(&self, subscription: &Subscription, was: Phase) {
        let channel = &subscription.channel.name;
        let node = self.worker.node();
        if subscription.terms.presence
            && matches!(was, Phase::Prepared | Phase::Live | Phase::Announced)
            && let Err(error) = node.presence().remove(channel, &self.id()).await
        {
            self.broker_failed(&error);
        }
        if was == Phase::Announced {
            let info = Arc::new(self.client_info(Some(subscription)));
            self.announce(Broadcast::Leave(channel.clone(), info)).await;
        }
    }

    async fn announce(&self, broadcast: Broadcast) {
        if let Err(error) = self.worker.node().broker().announce(broadcast).await {
            self.broker_failed(&error);
        }
    }

    fn check_room(&self, channel: &Channel) -> Result<(), Refusal> {
        if self.subscription(channel).is_some() {
            return Err(Refusal::AlreadySubscribed);
        }
        if self.subscriptions.borrow().len() >= self.worker.node().config().client.max_channels {
            return Err(Refusal::LimitExceeded);
        }
        Ok(())
    }

    /// Finds the right by which the client may subscribe.
    async fn authorize(&self, channel: &Channel, token: &str) -> Result<(Origin, Grant), Failure> {
        let node = self.worker.node();
        let namespace = node.namespace(channel).ok_or(Refusal::UnknownChannel)?;
        if namespace.subscribe == Permission::Nobody && !node.config().client.insecure {
            return Err(Refusal::PermissionDenied.into());
        }
        if !token.is_empty() {
            return match self.grant(channel, token).await {
                Err(_) if node.config().client.insecure => Ok((Origin::Token, Grant::default())),
                granted => Ok((Origin::Token, granted?)),
            };
        }
        let user = self.user();
        let listed = channel.users().map(|mut users| !user.is_empty() && users.any(|listed| listed == &*user));
        let allowed = node.config().client.insecure
            || !channel.is_private()
                && listed.unwrap_or(match namespace.subscribe {
                    Permission::Anyone => true,
                    Permission::Authenticated => !user.is_empty(),
                    Permission::Subscriber | Permission::Token | Permission::Nobody => false,
                });
        if allowed { Ok((Origin::Client, Grant::default())) } else { Err(Refusal::PermissionDenied.into()) }
    }

    /// Reads a subscription token of this client for `channel`.
    async fn grant(&self, channel: &Channel, token: &str) -> Result<Grant, Failure> {
        match self.worker.node().authorizer().subscription(token).await {
            Ok(SubscriptionToken { user, channel: granted, grant }) => {
                if user == *self.user.borrow() && granted == channel.as_str() {
                    Ok(grant)
                } else {
                    Err(Disconnect::InvalidToken.into())
                }
            }
            Err(AuthError::Expired) => Err(Refusal::TokenExpired.into()),
            Err(AuthError::Unavailable(reason)) => {
                tracing::warn!(reason, "tokens cannot be verified");
                Err(Refusal::Internal.into())
            }
            Err(AuthError::Invalid(reason)) => {
                tracing::debug!(client = self.id(), reason, "subscription token refused");
                Err(Refusal::PermissionDenied.into())
            }
        }
    }
}

/// How long publications may be under way that a history read contains already.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Decides whether the history read continues where the client stood: wholly, or not at all.
fn recover(mode: RecoveryMode, since: &Position, history: &History, limits: &ClientConfig) -> Recovery {
    let History { publications, top } = history;
    match mode {
        RecoveryMode::Stream => {
            if !since.epoch.is_empty() && since.epoch != top.epoch || publications.len() > limits.history_limit {
                return Recovery::Failed;
            }
            // One too large for the queue would end this connection, and each that tries again.
            let bytes: usize = publications.iter().map(|publication| publication.payload.bytes().len()).sum();
            if bytes > limits.queue_size / 2 {
                return Recovery::Failed;
            }
            let mut offset = since.offset;
            for publication in publications {
                match &publication.stamp {
                    Some(stamp) if stamp.prev == offset => offset = stamp.position.offset,
                    _ => return Recovery::Failed,
                }
            }
            if offset == top.offset { Recovery::Complete(publications.clone()) } else { Recovery::Failed }
        }
        RecoveryMode::Cache => match publications.first() {
            Some(latest) if latest.stamp.as_ref().is_some_and(|stamp| stamp.position == *top) => {
                let known = since.offset > 0 && since == top;
                Recovery::Complete(if known { Vec::new() } else { vec![Arc::clone(latest)] })
            }
            _ => Recovery::Failed,
        },
    }
}
