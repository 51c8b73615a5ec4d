//! From a token to what it grants.

use futures_util::future::join_all;

use crate::{
    Config, ConnectionToken, Error, Reason, SubscriptionToken, TokenError,
    claims::{Audience, Object},
    jwks::{Metrics, Source},
    jws::{self, Signed},
    keys::Keys,
};

/// Verifies tokens with the configured keys.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    sources: Vec<Source>,
    audience: Option<String>,
    issuer: Option<String>,
}

impl Verifier {
    /// Loads the keys.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the configuration, files that cannot be read included.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let (keys, mut mistakes) = match Keys::load(config) {
            Ok(keys) => (Some(keys), Vec::new()),
            Err(error) => (None, error.mistakes),
        };
        let sources = config.jwks.iter().enumerate().map(|(index, jwks)| Source::new(index, jwks));
        let sources = sources.filter_map(|source| source.map_err(|mistake| mistakes.push(mistake)).ok()).collect();
        let Some(keys) = keys.filter(|_| mistakes.is_empty()) else { return Err(Error { mistakes }) };
        Ok(Self { keys, sources, audience: config.audience.clone(), issuer: config.issuer.clone() })
    }

    /// Begins to fetch the key sets, and to keep them up to date until the verifier is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(&self) {
        let metrics = Metrics::new();
        self.sources.iter().for_each(|source| source.start(&metrics));
    }

    /// Whether there is any key, or set of keys; without one every token is refused.
    pub fn has_keys(&self) -> bool {
        self.keys.any() || !self.sources.is_empty()
    }

    /// Waits until the key sets have been read again, those that were read a moment ago excepted. Says whether all could be.
    /// Of a verifier that was not [started](Self::start) none is read, and that takes a few seconds.
    pub async fn refresh(&self) -> bool {
        join_all(self.sources.iter().map(Source::refresh)).await;
        !self.sources.iter().any(Source::is_failing)
    }

    /// Verifies a connection token at the time `now`, in seconds of Unix time.
    ///
    /// # Errors
    ///
    /// Why the token grants nothing.
    pub fn connection(&self, token: &str, now: u64) -> Result<ConnectionToken, TokenError> {
        let signed = self.authentic(token)?;
        let claims = signed.parse()?;
        // A subscription token names its user too, and would make a connection out of a permission for one channel.
        if claims.text("channel")?.is_some() {
            return Err(Reason::SubscriptionToken.into());
        }
        let verified = ConnectionToken {
            user: claims.get("sub")?.unwrap_or_default(),
            expire_at: None,
            issued_at: claims.time("iat")?,
            info: claims.payload("info", "b64info")?,
            channels: claims.get_or_null("channels")?.unwrap_or_default(),
            subscriptions: claims.subscriptions()?,
            capabilities: claims.capabilities()?,
            meta: claims.json("meta")?,
        };
        Ok(ConnectionToken { expire_at: self.admit(&claims, now)?, ..verified })
    }

    /// Verifies a subscription token at the time `now`, in seconds of Unix time.
    ///
    /// # Errors
    ///
    /// Why the token grants nothing.
    pub fn subscription(&self, token: &str, now: u64) -> Result<SubscriptionToken, TokenError> {
        let signed = self.authentic(token)?;
        let claims = signed.parse()?;
        // It would bind the token to one connection, which nothing here compares: ignoring it would grant too much.
        if claims.text("client")?.is_some() {
            return Err(Reason::Claim("client").into());
        }
        let verified = SubscriptionToken {
            user: claims.get("sub")?.unwrap_or_default(),
            channel: claims.text("channel")?.ok_or(Reason::Claim("channel"))?,
            expire_at: None,
            issued_at: claims.time("iat")?,
            grant: claims.grant()?,
        };
        Ok(SubscriptionToken { expire_at: self.admit(&claims, now)?, ..verified })
    }

    /// The claims of a token that was signed with one of our keys.
    fn authentic(&self, token: &str) -> Result<Signed<'_>, Reason> {
        if token.len() > MAX_TOKEN_SIZE {
            return Err(Reason::TooLarge);
        }
        jws::verify(token, &self.keys, &self.sources)
    }

    /// Checks for whom, by whom and for which time the token was made, and says when its effect ends.
    ///
    /// Expiry comes last: only a token that is good in every other respect is worth renewing.
    fn admit(&self, claims: &Object<'_>, now: u64) -> Result<Option<u64>, TokenError> {
        let audience = claims.get::<Audience>("aud")?;
        if let Some(expected) = &self.audience
            && !audience.is_some_and(|audience| audience.includes(expected))
        {
            return Err(Reason::Audience.into());
        }
        let issuer = claims.get::<String>("iss")?;
        if self.issuer.is_some() && self.issuer != issuer {
            return Err(Reason::Issuer.into());
        }

        let latest_start = now.saturating_add(LEEWAY);
        if claims.time("nbf")?.is_some_and(|time| time > latest_start) {
            return Err(Reason::NotYetValid.into());
        }
        if claims.time("iat")?.is_some_and(|time| time > latest_start) {
            return Err(Reason::IssuedInFuture.into());
        }

        let exp = claims.time("exp")?;
        // `expire_at` takes the place of `exp` for the effect of the token, not for the token itself; 0 means no end.
        let end = match claims.time("expire_at")? {
            Some(0) => None,
            Some(time) => Some(time),
            None => exp,
        };
        let past = |time: u64| time <= now.saturating_sub(LEEWAY);
        if exp.is_some_and(past) || end.is_some_and(past) {
            return Err(TokenError::Expired);
        }
        // Within the leeway the end may have passed already; a connection is never told of an end in the past.
        Ok(end.map(|time| time.max(now.saturating_add(1))))
    }
}

/// How far the clocks of token makers may differ from ours, in seconds.
pub const LEEWAY: u64 = 30;

/// The largest token that is looked at, in bytes. A token carries an identity and a few channels, not documents.
pub const MAX_TOKEN_SIZE: usize = 8 * 1024;
