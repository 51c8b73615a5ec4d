//! Whose tokens are refused, although they are good by themselves.
//!
//! The broker keeps them for all nodes; a node keeps what it has read, and reads on every second: so it learns of each, whether it
//! was told, deaf, or not there.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::Refusal;
use fanwire_wire::cluster::Command;
use futures_util::future::join_all;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use parking_lot::RwLock;
use tokio::sync::oneshot::Receiver;
use tokio::time::{Instant, sleep};

use crate::broker::{Error, Revocation};
use crate::cluster::Missing;
use crate::{Node, clock};

/// The revocations of all users that this node knows. Its lock is a leaf.
pub(crate) struct Revocations {
    /// By user: tokens issued before this second are refused.
    before: RwLock<HashMap<Arc<str>, u64>>,
    kept: Gauge,
    refused: [Counter; 2],
    ended: [Counter; 2],
}

/// What a token was for that was refused, or what ended with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    Connection,
    Subscription,
}

/// The most users with a revocation at the same time.
pub(crate) const MAX_REVOKED: usize = 100_000;

/// How often what the broker keeps is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How often those are forgotten that concern only tokens that have expired.
const SWEEP: Duration = Duration::from_secs(60);

/// How far in the future tokens may be revoked, in seconds: as far as their makers' clocks may be ahead.
const LEEWAY: u64 = 30;

impl Revocations {
    pub(crate) fn new() -> Self {
        describe_gauge!("fanwire_revocations", "Users whose older tokens are refused");
        describe_counter!(
            "fanwire_revoked_tokens_total",
            "Tokens refused because they were revoked, by what they were for"
        );
        describe_counter!(
            "fanwire_revoked_total",
            "Connections and subscriptions ended because their token was revoked"
        );
        let kinds = ["connection", "subscription"];
        Self {
            before: RwLock::default(),
            kept: gauge!("fanwire_revocations"),
            refused: kinds.map(|kind| counter!("fanwire_revoked_tokens_total", "kind" => kind)),
            ended: kinds.map(|kind| counter!("fanwire_revoked_total", "kind" => kind)),
        }
    }

    /// Whether a token of this user is refused. One that does not say when it was issued counts as old.
    pub(crate) fn refuse(&self, what: Revoked, user: &str, issued_at: Option<u64>) -> bool {
        let before = self.before.read().get(user).copied();
        let refused = before.is_some_and(|before| issued_at.is_none_or(|issued| issued < before));
        if refused {
            self.refused[what as usize].increment(1);
        }
        refused
    }

    /// Counts what ended.
    pub(crate) fn ended(&self, what: Revoked) {
        self.ended[what as usize].increment(1);
    }

    /// Takes a revocation; the latest of a user counts. Says whether it was news.
    fn learn(&self, Revocation { user, before }: &Revocation) -> bool {
        let mut all = self.before.write();
        let known = all.get(&**user).copied();
        if known.is_some_and(|known| known >= *before) {
            return false;
        }
        if known.is_none() && all.len() >= MAX_REVOKED {
            tracing::warn!(limit = MAX_REVOKED, "too many revocations: one is not remembered");
            return true;
        }
        all.insert(Arc::clone(user), *before);
        self.kept.set(all.len() as f64);
        true
    }

    fn is_full(&self, user: &str) -> bool {
        let all = self.before.read();
        all.len() >= MAX_REVOKED && !all.contains_key(user)
    }

    /// Forgets what concerns only tokens from before this second.
    fn forget(&self, oldest: u64) {
        let mut all = self.before.write();
        all.retain(|_, before| *before >= oldest);
        self.kept.set(all.len() as f64);
    }
}

impl Node {
    /// Refuses a user's tokens that were issued before a second of Unix time, on all nodes, and ends what was begun with them.
    ///
    /// # Errors
    ///
    /// Code 107 for no user or a time to come, 106 if too many users have a revocation, 100 if the broker cannot keep it; nothing
    /// is done then. [`Refusal::OutcomeUnknown`] if it is done on this node, and the others may not learn of it.
    pub async fn revoke(&self, user: &str, before: u64) -> Result<Missing, Refusal> {
        if user.is_empty() || before > now() + LEEWAY {
            return Err(Refusal::BadRequest);
        }
        if self.revocations().is_full(user) {
            return Err(Refusal::LimitExceeded);
        }
        let revocation = Revocation { user: user.into(), before };
        let kept = self.broker().revoke(&revocation, self.config().client.revocation_ttl).await;
        let unknown = match kept {
            Ok(()) => None,
            Err(error @ Error::Unavailable(_)) => return Err(self.broker_failed(&error)),
            Err(error) => Some(self.broker_failed(&error)),
        };
        let told = self.command(Command::Revoke { user: user.to_owned(), before }).await;
        match (unknown, told) {
            (Some(refusal), _) => Err(refusal),
            // It is kept: whoever did not hear it reads it.
            (None, Err(Refusal::OutcomeUnknown)) => Ok(Missing { unasked: true, ..Missing::default() }),
            (None, told) => told,
        }
    }

    /// Reads what the broker keeps, for ever.
    pub(crate) async fn follow_revocations(&self) {
        let mut place = String::new();
        let mut swept = Instant::now();
        loop {
            match self.broker().revocations(&place).await {
                Ok(kept) => {
                    place = kept.place;
                    if !kept.revocations.is_empty() {
                        join_all(self.apply(kept.revocations).await).await;
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%error, "revocations cannot be read"),
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.revocations().forget(now().saturating_sub(self.config().client.revocation_ttl.as_secs()));
            }
            sleep(LOOK).await;
        }
    }

    /// Takes revocations, and lets every worker end what was begun with the tokens they are about.
    pub(crate) async fn apply(&self, mut revocations: Vec<Revocation>) -> Vec<Receiver<()>> {
        // Known before any worker is told: what connects in between is refused, or told.
        revocations.retain(|revocation| self.revocations().learn(revocation));
        if revocations.is_empty() {
            return Vec::new();
        }
        let revocations: Arc<[_]> = revocations.into();
        self.post_workers(move |worker| {
            for Revocation { user, before } in &*revocations {
                worker.clients_of(user).iter().for_each(|client| client.revoke(*before));
            }
        })
        .await
    }
}

fn now() -> u64 {
    clock::unix_ms() / 1000
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("users", &self.before.read().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str, before: u64) -> Revocation {
        Revocation { user: user.into(), before }
    }

    #[test]
    fn the_latest_counts_until_it_is_forgotten() {
        let all = Revocations::new();
        let refused = |user, issued| all.refuse(Revoked::Connection, user, issued);
        assert!(!refused("ann", None), "nobody is revoked");
        assert!(all.learn(&of("ann", 100)));
        assert!(!all.learn(&of("ann", 100)) && !all.learn(&of("ann", 50)));
        assert!(refused("ann", Some(99)) && refused("ann", None));
        assert!(!refused("ann", Some(100)) && !refused("bob", None));
        assert!(all.learn(&of("ann", 200)) && refused("ann", Some(199)));
        all.forget(200);
        assert!(refused("ann", Some(199)));
        all.forget(201);
        assert!(!refused("ann", Some(199)));
    }

    #[test]
    fn users_are_bounded() {
        let all = Revocations::new();
        for number in 0..MAX_REVOKED {
            all.learn(&of(&number.to_string(), 1));
        }
        assert!(all.is_full("ann") && !all.is_full("7"));
        assert!(all.learn(&of("ann", 1)), "what is connected ends all the same");
        assert_eq!(all.before.read().len(), MAX_REVOKED);
    }
}
