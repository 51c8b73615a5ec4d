//! How a subscription begins: prepared with the broker, recovered, made live.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::{Channel, Disconnect, Position, Refusal};
use tokio::time::timeout;

use super::lifecycle::overridden;
use super::subscribe::{Recovery, Subscribed};
use super::{Client, Failure};
use crate::authorizer::Grant;
use crate::broker::{self, History, Resume, Start, weight};
use crate::clock;
use crate::hub::{Audience, JoinGuard};
use crate::namespace::{Namespace, RecoveryMode};
use crate::subscription::{Join, Origin, Phase, Subscription, Terms};

/// A subscription somebody has a right to.
pub(super) struct Wanted {
    pub(super) channel: Channel,
    pub(super) grant: Grant,
    pub(super) origin: Origin,
    pub(super) since: Option<Position>,
    pub(super) reject_unrecovered: bool,
    pub(super) join_leave: bool,
    /// When the token for it was made, in seconds of Unix time; 0 for long ago, or for none.
    pub(super) issued: u32,
}

impl Wanted {
    /// A subscription the server makes.
    pub(super) fn by_server(channel: Channel, grant: Grant, since: Option<Position>) -> Self {
        Self { channel, grant, origin: Origin::Server, since, reject_unrecovered: false, join_leave: false, issued: 0 }
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
        !self.subscription.has_left()
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
        let terms = Terms {
            origin: wanted.origin,
            presence: options.presence,
            announced: (options.join_leave || options.force_join_leave).then_some(options.join_leave_per),
            hears_joins: options.force_join_leave || options.join_leave && wanted.join_leave,
            recoverable: options.recovery,
            positioned: options.recovery || options.positioning,
            renewed_by_hook: !options.sub_refresh_hook.is_empty() && wanted.origin != Origin::Capability,
        };
        let turn = (terms.presence || terms.announced.is_some()).then(|| self.turn(&wanted.channel));
        let subscription = Rc::new(Subscription::new(self.worker.hub().channel(&wanted.channel), terms, turn));
        subscription.set_expires(self.worker.second_of(wanted.grant.expire_at));
        subscription.set_issued(wanted.issued);
        subscription.set_info(wanted.grant.info.clone());
        subscription.channel.enter();
        self.worker.subscription_began();
        self.enlist(&subscription);

        let prepared = self.collect(&subscription, wanted, &options).await;
        if prepared.is_err() {
            drop(self.depart(&subscription));
        }
        prepared
    }

    async fn collect(
        self: &Rc<Self>,
        subscription: &Rc<Subscription>,
        wanted: Wanted,
        options: &Namespace,
    ) -> Result<Prepared, Failure> {
        let node = Arc::clone(self.worker.node());
        let Wanted { channel, grant, since, reject_unrecovered, .. } = wanted;
        let terms = subscription.terms;
        let (mode, retention) = (options.recovery_mode, options.retention().filter(|_| terms.positioned));
        let hold = retention.map(|retention| (retention, subscription.channel.begin_join()));
        let confirmed = node.dispatcher().want(&channel, self.worker.index(), node.broker()).await;
        confirmed.map_err(|error| node.unavailable(&error))?;

        let since = since.filter(|_| terms.recoverable);
        let max_bytes = self.outlet.bound() / 2;
        let mut stream = match hold {
            Some((retention, mut hold)) => {
                let from = match (&since, mode) {
                    (None, _) => Start::End,
                    (Some(since), RecoveryMode::Stream) => Start::Behind(since.clone()),
                    (Some(_), RecoveryMode::Cache) => Start::Latest,
                };
                let resume = Resume { from, retention, max_bytes };
                // Once, unless something is lost for good at this very moment.
                loop {
                    let history = node.broker().resume(&channel, resume.clone()).await;
                    let history = history.map_err(|error| node.unavailable(&error))?;
                    self.catch_up(&hold, &history.top).await;
                    if !hold.is_outdated(&history.top) {
                        break Some((history, hold));
                    }
                    hold = subscription.channel.begin_join();
                }
            }
            None => None,
        };
        let recovery = stream.as_mut().zip(since).map(|((history, _), since)| {
            let recovery = recover(mode, &since, history, max_bytes);
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
            self.appear(subscription).await.map_err(|error| node.unavailable(&error))?;
        }
        if subscription.has_left() {
            return Err(if self.is_closed() { Disconnect::ConnectionClosed.into() } else { Refusal::Expired.into() });
        }
        subscription.phase.set(Phase::Prepared);
        Ok(Prepared { subscription: Rc::clone(subscription), stream, recovery, grant })
    }

    /// Waits until the worker has dispatched what the history read contains.
    async fn catch_up(&self, hold: &JoinGuard, top: &Position) {
        if hold.meets(top) {
            return;
        }
        // What was dispatched before the read was answered waits in the mailbox; it may be for subscribers without a position, or
        // the word of a loss, which does not concern this one.
        self.worker.barrier().await;
        // What did not was lost on its way: those who miss it are told.
        if let Some(gap) = hold.catch_up(top) {
            self.worker.tell_of(gap);
        }
        // A channel that was read further than it is dispatched may stand beyond. Whether it was in time shows in what is behind.
        let _ = timeout(CATCH_UP, hold.meet(top)).await;
    }

    /// Makes a subscription live; from here on nothing is missed and nothing comes twice.
    pub(super) fn finish(self: &Rc<Self>, prepared: Prepared) -> Result<(Channel, Subscribed), Failure> {
        let Prepared { subscription, stream, recovery, grant } = prepared;
        let channel = &subscription.channel;
        debug_assert_eq!(subscription.phase.get(), Phase::Prepared, "nothing was awaited since, or it was asked for");
        let terms = subscription.terms;
        // A client that is told of a term has to renew it, with a subscription token. A capability is renewed with its
        // connection token, and backends decide anew without being asked for it.
        let told = !matches!(terms.origin, Origin::Capability | Origin::Hook) && !terms.renewed_by_hook;
        let mut subscribed = Subscribed {
            recoverable: subscription.terms.recoverable,
            positioned: subscription.terms.positioned,
            ttl: grant.expire_at.filter(|_| told).map(clock::seconds_until),
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
                    publications.retain(|publication| publication.exclude != Some(self.outlet.client));
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
        self.schedule_end(&subscription);
        if subscription.terms.announced.is_some() {
            subscription.join.set(Join::Due);
            let (client, subscription, turn) = (Rc::clone(self), Rc::clone(&subscription), subscription.queue());
            // Behind the reply.
            tokio::task::spawn_local(async move {
                let _turn = turn.await;
                client.announce_join(&subscription).await;
            });
        }
        Ok((channel.name.clone(), subscribed))
    }

    /// Lists the client in the channel's presence, unless the subscription is over by then.
    async fn appear(self: &Rc<Self>, subscription: &Rc<Subscription>) -> Result<(), broker::Error> {
        let (client, subscription, turn) = (Rc::clone(self), Rc::clone(subscription), subscription.queue());
        // A task of its own: whoever asked may be gone, and what was begun has to end before it is taken back.
        let listing = tokio::task::spawn_local(async move {
            let _turn = turn.await;
            if subscription.has_left() {
                return Ok(());
            }
            subscription.listed.set(true);
            let info = Arc::new(client.client_info(Some(&subscription)));
            client.worker.node().presence().add(&subscription.channel.name, info).await.map(|_| ())
        });
        listing.await.unwrap_or_else(|_| Err(broker::Error::Unavailable("the worker stops".into())))
    }
}

/// How long publications may be under way that an earlier read has contained already.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Decides whether the history read continues where the client stood: wholly, or not at all. Takes the publications out of it.
fn recover(mode: RecoveryMode, since: &Position, history: &mut History, max_bytes: usize) -> Recovery {
    let History { publications, top } = history;
    match mode {
        RecoveryMode::Stream => {
            // One too large for the queue would end this connection, and each that tries again.
            let bytes: usize = publications.iter().map(|publication| weight(publication)).sum();
            if !since.epoch.is_empty() && since.epoch != top.epoch || bytes > max_bytes {
                return Recovery::Failed;
            }
            let mut offset = since.offset;
            for publication in &*publications {
                match &publication.stamp {
                    Some(stamp) if stamp.prev == offset => offset = stamp.position.offset,
                    _ => return Recovery::Failed,
                }
            }
            if offset == top.offset { Recovery::Complete(mem::take(publications)) } else { Recovery::Failed }
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
