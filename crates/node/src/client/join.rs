//! How a subscription begins: prepared with the broker, recovered, made live.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::{Channel, Disconnect, Position, Refusal};
use tokio::time::timeout;

use super::lifecycle::overridden;
use super::subscribe::{Recovery, Subscribed};
use super::{Client, Failure};
use crate::authorizer::Grant;
use crate::broker::{History, HistoryQuery, Order};
use crate::clock;
use crate::config::ClientConfig;
use crate::hub::{Audience, JoinGuard};
use crate::namespace::RecoveryMode;
use crate::presence::Per;
use crate::subscription::{Origin, Phase, Subscription, Terms};

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
                announced: (options.join_leave || options.force_join_leave).then_some(options.join_leave_per),
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
        if let Some(per) = subscription.terms.announced {
            let client = Rc::clone(self);
            let subscription = Rc::clone(&subscription);
            tokio::task::spawn_local(async move { client.announce_join(&subscription, per).await });
        }
        Ok((channel.name.clone(), subscribed))
    }

    /// Announces a join behind the reply; a leave that came in between follows it.
    async fn announce_join(&self, subscription: &Subscription, per: Per) {
        let info = Arc::new(self.client_info(Some(subscription)));
        if let Err(error) = self.worker.node().presence().announce(&subscription.channel.name, info, per).await {
            self.broker_failed(&error);
        }
        if subscription.phase.get() == Phase::Left {
            self.farewell(subscription, Phase::Announced).await;
        } else {
            subscription.phase.set(Phase::Announced);
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
