//! The node's [`Authorizer`] by tokens.

use bytes::Bytes;
use fanwire_node::authorizer::{AuthError, Authorizer, Grant, Identity, SubscriptionToken};
use fanwire_node::clock;
use fanwire_wire::{Channel, Payload, PayloadKind};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::{Reason, TokenError, Verifier};

impl Authorizer for Verifier {
    fn connection<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        match identity(self, token) {
            Err(Failed::UnknownKey) => renewed(self, move || identity(self, token)).boxed(),
            outcome => ready(outcome.map_err(Failed::into)).boxed(),
        }
    }

    fn subscription<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<SubscriptionToken, AuthError>> {
        match subscription(self, token) {
            Err(Failed::UnknownKey) => renewed(self, move || subscription(self, token)).boxed(),
            outcome => ready(outcome.map_err(Failed::into)).boxed(),
        }
    }
}

/// Why a token could not be verified at once.
enum Failed {
    /// It may have been signed with a key that is new.
    UnknownKey,
    Finally(AuthError),
}

/// Tries again when the key sets have been read. While one cannot be, it cannot be known whether the token is good.
async fn renewed<T>(verifier: &Verifier, again: impl FnOnce() -> Result<T, Failed>) -> Result<T, AuthError> {
    let complete = verifier.refresh().await;
    match again() {
        Err(Failed::UnknownKey) if !complete => Err(AuthError::Unavailable("a key set cannot be read".to_owned())),
        outcome => outcome.map_err(Failed::into),
    }
}

fn identity(verifier: &Verifier, token: &str) -> Result<Identity, Failed> {
    let token = verifier.connection(token, now())?;
    let listed = token.channels.into_iter().map(|channel| (channel, crate::Grant::default()));
    let subscriptions = listed.chain(token.subscriptions).map(|(name, terms)| {
        let channel = Channel::new(&name).map_err(|error| AuthError::Invalid(error.to_string()))?;
        Ok((channel, grant(terms, None)?))
    });
    Ok(Identity {
        user: token.user.into(),
        expire_at: token.expire_at,
        issued_at: token.issued_at,
        info: token.info.map(json).transpose()?,
        subscriptions: subscriptions.collect::<Result<_, AuthError>>()?,
        capabilities: token.capabilities,
    })
}

fn subscription(verifier: &Verifier, token: &str) -> Result<SubscriptionToken, Failed> {
    let token = verifier.subscription(token, now())?;
    Ok(SubscriptionToken {
        user: token.user.into(),
        channel: token.channel,
        issued_at: token.issued_at,
        grant: grant(token.grant, token.expire_at)?,
    })
}

fn grant(terms: crate::Grant, expire_at: Option<u64>) -> Result<Grant, AuthError> {
    Ok(Grant {
        expire_at,
        info: terms.info.map(json).transpose()?,
        data: terms.data.map(json).transpose()?,
        overrides: terms.overrides,
    })
}

/// Clients of every encoding see the same info, so it has to be JSON, also where the token has it as bytes.
fn json(info: Bytes) -> Result<Bytes, AuthError> {
    match Payload::detect(info.clone()).kind() {
        PayloadKind::Json => Ok(info),
        PayloadKind::Text | PayloadKind::Binary => Err(AuthError::Invalid("b64info or b64data is not JSON".to_owned())),
    }
}

fn now() -> u64 {
    clock::unix_ms() / 1000
}

impl From<TokenError> for Failed {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid(Reason::UnknownKey) => Self::UnknownKey,
            error => Self::Finally(error.into()),
        }
    }
}

impl From<AuthError> for Failed {
    fn from(error: AuthError) -> Self {
        Self::Finally(error)
    }
}

impl From<Failed> for AuthError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::UnknownKey => TokenError::Invalid(Reason::UnknownKey).into(),
            Failed::Finally(error) => error,
        }
    }
}

impl From<TokenError> for AuthError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::Expired,
            // Two clocks differ, which no client can help: it comes back, with another token, to this node or a better one.
            TokenError::Invalid(Reason::NotYetValid | Reason::IssuedInFuture) => Self::Expired,
            TokenError::Invalid(reason) => Self::Invalid(reason.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Secret, mint};

    const SECRET: &str = "a secret of more than thirty-two bytes";

    fn verifier() -> Verifier {
        Verifier::new(&Config { hmac_secret: Some(Secret::from(SECRET)), ..Config::default() }).unwrap()
    }

    fn connect(claims: &serde_json::Value) -> Result<Identity, AuthError> {
        let token = mint::hs256(claims, SECRET.as_bytes()).unwrap();
        Authorizer::connection(&verifier(), &token).now_or_never().unwrap()
    }

    #[test]
    fn tokens_become_identities() {
        let identity = connect(&serde_json::json!({
            "sub": "42", "info": {"name": "Ann"}, "channels": ["news"],
            "subs": {"chat:1": {"info": {"role": "admin"}, "override": {"presence": {"value": true}}}},
        }));
        let identity = identity.unwrap();
        assert_eq!((&*identity.user, identity.expire_at), ("42", None));
        assert_eq!(identity.info.unwrap(), "{\"name\":\"Ann\"}");
        let channels: Vec<_> = identity.subscriptions.iter().map(|(channel, _)| channel.as_str()).collect();
        assert_eq!(channels, ["news", "chat:1"]);
        assert_eq!(identity.subscriptions[1].1.overrides.presence, Some(true));
    }

    #[test]
    fn a_clock_that_is_behind_sends_nobody_away_for_good() {
        for claim in ["nbf", "iat"] {
            let early = connect(&serde_json::json!({ "sub": "42", claim: now() + 3600 }));
            assert!(matches!(early, Err(AuthError::Expired)), "{claim}: {early:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let refused = |claims| matches!(connect(&claims), Err(AuthError::Invalid(_)));
        assert!(refused(serde_json::json!({"sub": "42", "channels": ["not a channel"]})));
        assert!(refused(serde_json::json!({"sub": "42", "b64info": "AAEC"})));
        assert_eq!(connect(&serde_json::json!({"sub": "42", "exp": 1})), Err(AuthError::Expired));
    }
}
