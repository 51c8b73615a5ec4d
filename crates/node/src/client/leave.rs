//! How subscriptions end.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_wire::{Channel, Unsubscribe};
use tokio::task::JoinHandle;

use super::Client;
use crate::protocol::Event;
use crate::subscription::{Join, Phase, Subscription, Turn};

impl Client {
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
        // Where a request still waits for the broker, its answer tells the client.
        if subscription.is_live() {
            self.tell(&Event::Unsubscribed { channel: &subscription.channel.name, reason });
        }
        drop(self.depart(subscription));
    }

    pub(super) fn end_expired_subscriptions(self: &Rc<Self>, now: u32) {
        let grace = super::lifecycle::seconds(self.worker.node().config().client.expiry_grace);
        let over = |s: &&Rc<Subscription>| s.ends(grace).is_some_and(|end| end <= now);
        let expired: Vec<_> = self.subscriptions.borrow().iter().filter(over).cloned().collect();
        for subscription in expired {
            if subscription.terms.renewed_by_hook {
                self.renew_subscription(&subscription);
            } else {
                self.end_subscription(&subscription, Unsubscribe::Expired);
            }
        }
    }

    /// Leaves every channel. What other clients see of it follows in a task.
    pub(super) fn leave_all(self: &Rc<Self>) {
        for subscription in self.subscriptions.take() {
            drop(self.depart(&subscription));
        }
    }

    /// Ends a subscription: the delivery to it now, what other clients see of it in a task. The handle, if there is one,
    /// is ready when they see nothing more.
    pub(super) fn depart(self: &Rc<Self>, subscription: &Rc<Subscription>) -> Option<JoinHandle<()>> {
        if subscription.phase.replace(Phase::Left) == Phase::Left {
            return None;
        }
        self.detach(subscription);
        if !subscription.listed.get() && subscription.join.get() == Join::Unsaid {
            return None;
        }
        self.farewells.borrow_mut().push(Rc::clone(subscription));
        let (client, subscription, turn) = (Rc::clone(self), Rc::clone(subscription), subscription.queue());
        let pending = self.worker.node().pending_farewell();
        Some(tokio::task::spawn_local(async move {
            let _turn = turn.await;
            client.farewell(&subscription).await;
            client.farewells.borrow_mut().retain(|other| !Rc::ptr_eq(other, &subscription));
            drop(pending);
        }))
    }

    /// The turn of a new subscription to a channel.
    pub(super) fn turn(&self, channel: &Channel) -> Turn {
        let farewells = self.farewells.borrow();
        let before = farewells.iter().rfind(|before| before.channel.name == *channel);
        before.and_then(|before| before.turn().cloned()).unwrap_or_default()
    }

    fn detach(&self, subscription: &Rc<Subscription>) {
        let channel = &subscription.channel;
        channel.deactivate(subscription);
        self.strike(subscription);
        self.worker.subscription_ended();
        if channel.leave() {
            self.worker.hub().remove(channel);
            self.worker.node().dispatcher().release(&channel.name, self.worker.index());
        }
    }

    /// Announces that the client joined, once. For whose turn it is.
    pub(super) async fn announce_join(&self, subscription: &Subscription) {
        let (Some(per), Join::Due) = (subscription.terms.announced, subscription.join.get()) else { return };
        subscription.join.set(Join::Said);
        let (node, channel) = (self.worker.node(), &subscription.channel.name);
        let info = Arc::new(self.client_info(Some(subscription)));
        if let Err(error) = node.presence().announce(channel, info, per).await {
            node.broker_failed(&error);
        }
    }

    /// Takes the client out of the channel's presence, which announces that it left. For whose turn it is.
    async fn farewell(&self, subscription: &Subscription) {
        // Nobody leaves who has not joined.
        self.announce_join(subscription).await;
        let node = self.worker.node();
        if let Err(error) = node.presence().remove(&subscription.channel.name, &self.id()).await {
            node.broker_failed(&error);
        }
    }
}
