//! On whose behalf a call is made, and whether it may be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use fanwire_wire::{Pattern, Refusal};
use http::StatusCode;

use crate::keys::{Key, Keys};
use crate::methods::Method;
use crate::metrics::OfKey;
use crate::pace::Pace;
use crate::types::Fault;

/// On whose behalf calls are made, and what they may do.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// `None` where no key is asked for: everything is allowed.
    key: Option<Arc<Holder>>,
    /// From where.
    pub(crate) peer: Option<SocketAddr>,
    /// The name in its certificate, if it showed one.
    certificate: Option<CertificateName>,
}

/// The name in the certificate that a caller showed. Among a request's extensions, if the listener asked for one; written to the
/// audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName(pub Arc<str>);

/// What a request is about, for permissions and the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    /// The channels it names; a broadcast has many, and `None` is for what is about no channel.
    pub(crate) channels: &'a [String],
    pub(crate) user: &'a str,
    pub(crate) client: &'a str,
}

/// A request that says what it is about. Without it no method can be called.
pub(crate) trait About {
    /// What the request is about, as it says itself: nothing of it is validated.
    fn subject(&self) -> Subject<'_>;
}

/// A key in use, with what its calls have in common.
#[derive(Debug)]
struct Holder {
    key: Key,
    pace: Option<Pace>,
    metrics: OfKey,
    /// Another configuration has come, which does not have it, or has it differently.
    retired: AtomicBool,
}

impl Caller {
    /// Somebody without a key, for the log.
    pub(crate) fn stranger(peer: Option<SocketAddr>) -> Self {
        Self { key: None, peer, certificate: None }
    }

    /// The same caller, with the certificate it showed.
    pub(crate) fn with_certificate(self, certificate: Option<CertificateName>) -> Self {
        Self { certificate, ..self }
    }

    /// The name in its certificate, if it showed one.
    pub(crate) fn certificate(&self) -> Option<&str> {
        self.certificate.as_ref().map(|name| &*name.0)
    }

    /// The name of its key; `""` if it needs none.
    pub(crate) fn name(&self) -> &str {
        self.key.as_ref().map_or("", |holder| &holder.key.name)
    }

    /// Decides whether a method may be called, for all the channels it is about, and takes the time of the call.
    pub(crate) fn admit(&self, method: Method, subject: Subject<'_>) -> Result<(), Fault> {
        let (Some(holder), Some(scope)) = (&self.key, method.scope()) else { return Ok(()) };
        let key = &holder.key;
        let denied = |detail| Err(Fault::transport(StatusCode::FORBIDDEN, Refusal::PermissionDenied, detail));
        if holder.retired.load(Ordering::Relaxed) {
            let detail = format!("the key {:?} was changed or removed", key.name);
            return Err(Fault::transport(StatusCode::UNAUTHORIZED, Refusal::Unauthorized, detail));
        }
        if !key.scopes.contains(&scope) {
            return denied(format!(
                "{} needs the scope {}, which the key {:?} lacks",
                method.name(),
                scope.name(),
                key.name
            ));
        }
        if let Some(channel) = subject.channels.iter().find(|channel| !self.sees(channel)) {
            // As it was given: a name may be anything, and no longer than a body.
            let shown: String = channel.chars().take(64).collect();
            return denied(format!("the key {:?} is not for the channel {shown:?}", key.name));
        }
        let Some(pace) = &holder.pace else { return Ok(()) };
        let calls = subject.channels.len().max(1);
        pace.take(calls).map_err(|after| {
            let ms = after.as_micros().div_ceil(1000);
            Fault::too_fast(format!("the key {:?} has a rate of calls; again in {ms} ms", key.name), after)
        })
    }

    /// Whether it has to do with a channel.
    pub(crate) fn sees(&self, channel: &str) -> bool {
        self.patterns().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(channel)))
    }

    /// Which channels it has to do with; `None` for all.
    pub(crate) fn patterns(&self) -> Option<&[Pattern]> {
        self.key.as_ref().and_then(|holder| holder.key.channels.as_deref())
    }

    /// Counts what became of a call.
    pub(crate) fn count(&self, fault: Option<&Fault>) {
        if let Some(holder) = &self.key {
            holder.metrics.count(fault);
        }
    }
}

/// The keys in use, until others are.
#[derive(Debug)]
pub(crate) struct Ring(ArcSwap<Access>);

#[derive(Debug)]
enum Access {
    Open,
    Listed(Vec<Arc<Holder>>),
}

impl Ring {
    pub(crate) fn new(keys: &Keys) -> Self {
        Self(ArcSwap::from_pointee(Access::new(keys, &[])))
    }

    /// Takes other keys from now on. One that is the same goes on; calls under way with others are the last they make.
    pub(crate) fn replace(&self, keys: &Keys) {
        let before = self.0.load_full();
        let after = Access::new(keys, before.holders());
        let kept = |holder: &Arc<Holder>| after.holders().iter().any(|other| Arc::ptr_eq(holder, other));
        let (gone, after) =
            (before.holders().iter().filter(|holder| !kept(holder)).cloned().collect::<Vec<_>>(), after);
        self.0.store(Arc::new(after));
        gone.iter().for_each(|holder| holder.retired.store(true, Ordering::Relaxed));
    }

    /// Whether no key is asked for.
    pub(crate) fn is_open(&self) -> bool {
        matches!(**self.0.load(), Access::Open)
    }

    /// Finds the caller with this secret; where no key is asked for, that is anyone.
    pub(crate) fn caller(&self, secret: Option<&[u8]>, peer: Option<SocketAddr>) -> Result<Caller, Fault> {
        match &**self.0.load() {
            Access::Open => Ok(Caller::stranger(peer)),
            Access::Listed(holders) => {
                let unauthorized = || Fault::transport(StatusCode::UNAUTHORIZED, Refusal::Unauthorized, "");
                let secret = secret.ok_or_else(unauthorized)?;
                // Every key is looked at, for the same reason as every secret of one.
                let opened = holders.iter().fold(
                    None,
                    |found, holder| {
                        if holder.key.opens(secret) { Some(holder) } else { found }
                    },
                );
                Ok(Caller { key: Some(Arc::clone(opened.ok_or_else(unauthorized)?)), ..Caller::stranger(peer) })
            }
        }
    }
}

impl Access {
    fn new(keys: &Keys, before: &[Arc<Holder>]) -> Self {
        if keys.is_open() {
            return Self::Open;
        }
        let holder = |key: &Key| match before.iter().find(|holder| holder.key == *key) {
            Some(same) => Arc::clone(same),
            None => Arc::new(Holder {
                key: key.clone(),
                pace: key.pace(),
                metrics: OfKey::new(&key.name),
                retired: AtomicBool::new(false),
            }),
        };
        Self::Listed(keys.listed().iter().map(holder).collect())
    }

    fn holders(&self) -> &[Arc<Holder>] {
        match self {
            Self::Open => &[],
            Self::Listed(holders) => holders,
        }
    }
}
