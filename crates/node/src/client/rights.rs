//! What a client may do.

use fanwire_wire::{Channel, Disconnect, Refusal};

use super::{Client, Failure};
use crate::authorizer::{AuthError, Grant, SubscriptionToken};
use crate::namespace::Permission;
use crate::subscription::Origin;

impl Client {
    /// Finds the right by which the client may subscribe.
    pub(super) async fn authorize(&self, channel: &Channel, token: &str) -> Result<(Origin, Grant), Failure> {
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
    pub(super) async fn grant(&self, channel: &Channel, token: &str) -> Result<Grant, Failure> {
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

    /// Checks a right. Channels that not everyone may enter are open to their subscribers at most.
    pub(super) fn permit(&self, channel: &Channel, permission: Permission) -> Result<(), Refusal> {
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
            };
        if permitted { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }
}
