//! Who a client is and what its tokens grant.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_wire::Channel;
pub use fanwire_wire::{Grant, Overrides};
use futures_util::future::BoxFuture;

use crate::Capability;

/// Turns tokens into identities and grants.
///
/// What needs no token (anonymous clients, the rules of namespaces) is decided by the node itself.
pub trait Authorizer: Send + Sync + 'static {
    /// Verifies a connection token.
    fn connection<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>>;

    /// Verifies a subscription token. The caller compares [`SubscriptionToken::user`] and
    /// [`SubscriptionToken::channel`] with the connection and the request.
    fn subscription<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<SubscriptionToken, AuthError>>;
}

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// The user's id; empty for an anonymous one.
    pub user: Arc<str>,
    /// When the connection ends unless renewed, in seconds of Unix time.
    pub expire_at: Option<u64>,
    /// When it was said who the client is, in seconds of Unix time; `None` counts as long ago where a user's tokens are revoked.
    pub issued_at: Option<u64>,
    /// JSON that other clients see beside the user.
    pub info: Option<Bytes>,
    /// Channels the client is subscribed to by the server.
    pub subscriptions: Vec<(Channel, Grant)>,
    /// What it may do beside what namespaces permit to everyone.
    pub capabilities: Vec<Capability>,
}

/// What a verified subscription token says.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionToken {
    /// The user it was made for.
    pub user: Arc<str>,
    /// The channel it opens.
    pub channel: String,
    /// When it was made, as in [`Identity::issued_at`].
    pub issued_at: Option<u64>,
    /// The terms.
    pub grant: Grant,
}

/// Why a token grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It was good once.
    #[error("token expired")]
    Expired,
    /// It never was good here; the text is for the log.
    #[error("invalid token: {0}")]
    Invalid(String),
    /// It cannot be verified at the moment.
    #[error("token cannot be verified: {0}")]
    Unavailable(String),
}
