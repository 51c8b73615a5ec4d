//! How subscriptions end.

use std::rc::Rc;

use fanwire_wire::{Channel, Unsubscribe};

use super::Client;
use crate::protocol::Event;
use crate::subscription::{Phase, Subscription};

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

    /// Ends the delivery to a subscription, now; returns how far it was.
    pub(super) fn detach(&self, subscription: &Rc<Subscription>) -> Phase {
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

    /// Takes the client out of a channel's presence, which announces that it left: what a subscription that was this far
    /// owes the others. A join that is still being announced answers itself.
    pub(super) async fn farewell(&self, subscription: &Subscription, was: Phase) {
        if subscription.is_seen(was)
            && let Err(error) = self.worker.node().presence().remove(&subscription.channel.name, &self.id()).await
        {
            self.broker_failed(&error);
        }
    }
}
