//! What a client may do.

use std::rc::Rc;

use fanwire_wire::{Channel, Disconnect, Payload, Refusal, Unsubscribe};

use super::{Client, Failure};
use crate::authorizer::{AuthError, Grant, Identity, SubscriptionToken};
use crate::capability::{self, Permit};
use crate::namespace::Permission;
use crate::revocations::Revoked;
use crate::subscription::{Origin, Subscription};
use crate::{Action, clock};

/// By what right a client subscribes.
pub(super) struct Right {
    pub(super) origin: Origin,
    pub(super) grant: Grant,
    /// When the token that says so was made, in seconds of Unix time; 0 for long ago, or for none.
    pub(super) issued: u32,
}

impl Right {
    pub(super) fn of(origin: Origin) -> Self {
        Self { origin, grant: Grant::default(), issued: 0 }
    }
}

/// A second of Unix time in as little space as it needs for the next eighty years; 0 for none.
pub(super) fn second(unix_seconds: Option<u64>) -> u32 {
    unix_seconds.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX))
}

impl Client {
    /// Finds the right by which the client may subscribe.
    pub(super) async fn authorize(
        self: &Rc<Self>,
        channel: &Channel,
        token: &str,
        data: Option<Payload>,
    ) -> Result<Right, Failure> {
        let node = self.worker.node();
        let namespace = node.namespace(channel).ok_or(Refusal::UnknownChannel)?;
        if namespace.subscribe == Permission::Nobody
            && (namespace.subscribe_hook.is_empty() || !token.is_empty())
            && !node.config().client.insecure
        {
            return Err(Refusal::PermissionDenied.into());
        }
        if !token.is_empty() {
            return match self.grant(channel, token).await {
                Err(_) if node.config().client.insecure => Ok(Right::of(Origin::Token)),
                granted => granted,
            };
        }
        let hook_decides = !namespace.subscribe_hook.is_empty() && !channel.is_private() && channel.users().is_none();
        if hook_decides && self.capability(Action::Subscribe, channel).is_none() {
            return self.ask_to_subscribe(&namespace.subscribe_hook, channel, data).await;
        }
        let user = self.user();
        let listed = channel.users().map(|mut users| !user.is_empty() && users.any(|listed| listed == &*user));
        let allowed = node.config().client.insecure
            || !hook_decides
                && !channel.is_private()
                && listed.unwrap_or(match namespace.subscribe {
                    Permission::Anyone => true,
                    Permission::Authenticated => !user.is_empty(),
                    Permission::Subscriber | Permission::Token | Permission::Nobody => false,
                });
        if allowed {
            return Ok(Right::of(Origin::Client));
        }
        let permit = self.capability(Action::Subscribe, channel).ok_or(Refusal::PermissionDenied)?;
        let grant = Grant { expire_at: permit.expire_at, ..Grant::default() };
        Ok(Right { grant, ..Right::of(Origin::Capability) })
    }

    /// Reads a subscription token of this client for `channel`.
    pub(super) async fn grant(&self, channel: &Channel, token: &str) -> Result<Right, Failure> {
        let revocations = self.worker.node().revocations();
        match self.worker.node().authorizer().subscription(token).await {
            Ok(SubscriptionToken { user, channel: granted, .. })
                if user != *self.user.borrow() || granted != channel.as_str() =>
            {
                Err(Disconnect::InvalidToken.into())
            }
            Ok(SubscriptionToken { user, issued_at, .. })
                if revocations.refuse(Revoked::Subscription, &user, issued_at) =>
            {
                Err(Refusal::TokenExpired.into())
            }
            Ok(SubscriptionToken { grant, issued_at, .. }) => {
                Ok(Right { origin: Origin::Token, grant, issued: second(issued_at) })
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

    /// Checks a right. Channels that not everyone may enter are open to their subscribers at most, and to those with a capability.
    pub(super) fn permit(&self, action: Action, channel: &Channel, permission: Permission) -> Result<(), Refusal> {
        let closed = channel.is_private() || channel.users().is_some();
        let permission = match permission {
            Permission::Anyone | Permission::Authenticated if closed => Permission::Subscriber,
            permission => permission,
        };
        let subscription = || self.subscription(channel).filter(|subscription| subscription.is_live());
        let permitted = self.worker.node().config().client.insecure
            || match permission {
                Permission::Anyone => true,
                Permission::Authenticated => !self.user().is_empty(),
                Permission::Subscriber => subscription().is_some(),
                Permission::Token => subscription().is_some_and(|found| found.terms.origin == Origin::Token),
                Permission::Nobody => false,
            }
            || permission != Permission::Nobody && self.capability(action, channel).is_some();
        if permitted { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    /// Refuses an identity whose tokens are revoked: a newer one may be good.
    pub(super) fn check_revoked(&self, identity: &Identity) -> Result<(), Refusal> {
        let node = self.worker.node();
        let revoked = node.revocations().refuse(Revoked::Connection, &identity.user, identity.issued_at);
        if revoked && !node.config().client.insecure { Err(Refusal::TokenExpired) } else { Ok(()) }
    }

    /// Ends what was begun with tokens made before a second of Unix time: the connection, or single subscriptions.
    pub(crate) fn revoke(self: &Rc<Self>, before: u64) {
        let revocations = self.worker.node().revocations();
        let old = |issued: u32| u64::from(issued) < before;
        if !self.is_somebody() {
            return;
        }
        if old(self.issued.get()) {
            revocations.ended(Revoked::Connection);
            return self.close(Disconnect::StateInvalidated);
        }
        let concerned =
            |subscription: &&Rc<Subscription>| subscription.terms.origin == Origin::Token && old(subscription.issued());
        let concerned: Vec<_> = self.subscriptions.borrow().iter().filter(concerned).cloned().collect();
        for subscription in concerned {
            revocations.ended(Revoked::Subscription);
            self.end_subscription(&subscription, Unsubscribe::StateInvalidated);
        }
    }

    /// Gives the subscriptions by capability their new ends.
    pub(super) fn renew_subscriptions(self: &Rc<Self>) {
        let by_capability = |subscription: &&Rc<Subscription>| subscription.terms.origin == Origin::Capability;
        let concerned: Vec<_> = self.subscriptions.borrow().iter().filter(by_capability).cloned().collect();
        for subscription in concerned {
            match self.capability(Action::Subscribe, &subscription.channel.name) {
                Some(permit) => subscription.set_expires(self.worker.second_of(permit.expire_at)),
                None => self.end_subscription(&subscription, Unsubscribe::Server),
            }
        }
    }

    /// The seconds until the client needs a new token, for its term or for the first capability that ends.
    pub(super) fn ttl(&self, expire_at: Option<u64>) -> Option<u32> {
        let capabilities = self.capabilities.borrow();
        let ends = capabilities.iter().filter_map(|capability| capability.expire_at);
        ends.chain(expire_at).min().map(clock::seconds_until)
    }

    /// Whether a capability permits an action, and until when.
    fn capability(&self, action: Action, channel: &Channel) -> Option<Permit> {
        capability::find(&self.capabilities.borrow(), action, channel, clock::unix_ms() / 1000)
    }
}
