//! What tokens say once verified, and why they are refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanwire_node::Capability;
use fanwire_wire::Overrides;

use crate::verifier::MAX_TOKEN_SIZE;

/// What a verified connection token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionToken {
    /// The user's id; empty for an anonymous one.
    pub user: String,
    /// When the connection ends unless renewed, in seconds of Unix time; always later than the moment of verification.
    pub expire_at: Option<u64>,
    /// When the token was made, in seconds of Unix time.
    pub issued_at: Option<u64>,
    /// What other clients see beside the user: JSON on one line, or any bytes if the token has it as `b64info`.
    pub info: Option<Bytes>,
    /// Channels the client is subscribed to by the server, as the token has them: not checked.
    pub channels: Vec<String>,
    /// More of those, each with its terms.
    pub subscriptions: BTreeMap<String, Grant>,
    /// What the client may do, in channels named by their form.
    pub capabilities: Vec<Capability>,
    /// JSON about the connection that clients never see.
    pub meta: Option<Bytes>,
}

/// What a verified subscription token says.
///
/// It is good for nothing until `user` and `channel` are compared with the connection and the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionToken {
    /// The user it was made for; empty for an anonymous one.
    pub user: String,
    /// The channel it opens; never empty.
    pub channel: String,
    /// When the subscription ends unless renewed, in seconds of Unix time; always later than the moment of verification.
    pub expire_at: Option<u64>,
    /// When the token was made, in seconds of Unix time.
    pub issued_at: Option<u64>,
    /// The terms.
    pub grant: Grant,
}

/// The terms of one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What other clients see beside the user in this channel: JSON on one line, or any bytes if it came as `b64info`.
    pub info: Option<Bytes>,
    /// What the subscriber is told: JSON on one line, or any bytes if it came as `b64data`.
    pub data: Option<Bytes>,
    /// Deviations from the options of the channel's namespace.
    pub overrides: Overrides,
}

/// Why a token grants nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good once; the client should fetch another.
    #[error("the token has expired")]
    Expired,
    /// It never was good here.
    #[error("the token is invalid: {0}")]
    Invalid(#[from] Reason),
}

/// What is wrong with a token, without any of its content: fit for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is too large to be looked at.
    #[error("it has more than {MAX_TOKEN_SIZE} bytes")]
    TooLarge,
    /// It is not a JWT in compact form.
    #[error("it is not three parts of base64url with a JSON object in the first two")]
    Malformed,
    /// Its header demands extensions.
    #[error("its header has `crit`")]
    Critical,
    /// Its key id has characters no key id has.
    #[error("its header has an unacceptable `kid`")]
    KeyId,
    /// There is no key for its algorithm.
    #[error("its algorithm is unknown, or no key for it is configured")]
    Algorithm,
    /// No key set has its key.
    #[error("its `kid` is in no key set")]
    UnknownKey,
    /// It was not signed with our key.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing or is not what it must be.
    #[error("its claim `{0}` is missing or has a wrong type or value")]
    Claim(&'static str),
    /// It was made for someone else.
    #[error("its audience is another one")]
    Audience,
    /// It was made by someone else.
    #[error("its issuer is another one")]
    Issuer,
    /// Its `nbf` is to come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Its `iat` is to come.
    #[error("it was issued in the future")]
    IssuedInFuture,
    /// It has a `channel`, so it is a subscription token and opens no connection.
    #[error("it is a subscription token")]
    SubscriptionToken,
}
