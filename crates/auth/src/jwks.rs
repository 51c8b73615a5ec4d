//! Key sets that are fetched: `[[token.jwks]]`.
//!
//! One task for each set fetches it: at the start, again before it gets old, and when a token names a key that is not in it. Whoever needs a
//! key waits for that task, so there is one request at a time however many wait; and since what was just read is the answer
//! for a while, tokens with invented key ids cost nobody anything. The address comes from the configuration alone.

mod fetch;
mod set;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::keys::Key;
use crate::{Jwks, Mistake};

use fetch::{Fetched, Fetcher};
pub(crate) use set::KeySet;

/// A set and the task that follows it, which ends when this is dropped.
pub(crate) struct Source {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    fetcher: Fetcher,
    issuer: Option<String>,
    max_stale: Duration,
    state: watch::Sender<State>,
    asked: Notify,
}

/// What is known of a set.
#[derive(Clone, Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    /// When it was read.
    fetched: Option<Instant>,
    /// When that was tried last, and how often it was.
    tried: Option<Instant>,
    attempts: u64,
    /// It is being tried.
    trying: bool,
    failing: bool,
}

/// What all sets together do.
#[derive(Clone)]
pub(crate) struct Metrics {
    outcomes: [Counter; 2],
    keys: Gauge,
}

/// For so long what was just read, or could not be, is the answer for every key that is not in it.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a token waits for a set.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause behind a failure; it doubles with each, up to a limit.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

impl Source {
    /// Reads a section; nothing is fetched yet.
    pub(crate) fn new(index: usize, config: &Jwks) -> Result<Self, Mistake> {
        let fetcher = Fetcher::new(&config.url).map_err(|problem| Mistake::Jwks { index, problem })?;
        if config.issuer.as_deref() == Some("") {
            return Err(Mistake::Jwks { index, problem: "issuer is empty".to_owned() });
        }
        let shared = Shared {
            fetcher,
            issuer: config.issuer.clone(),
            max_stale: config.max_stale,
            state: watch::Sender::default(),
            asked: Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared), task: Mutex::default() })
    }

    /// Begins to follow the set, on the current runtime.
    pub(crate) fn start(&self, metrics: &Metrics) {
        let (shared, metrics) = (Arc::clone(&self.shared), metrics.clone());
        let task = tokio::spawn(async move { shared.follow(&metrics).await });
        if let Some(before) = self.task.lock().replace(task) {
            before.abort();
        }
    }

    /// Whose tokens its keys check; `None` for anybody's.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.shared.issuer.as_deref()
    }

    /// The keys with an id: none if what was read is too old to be trusted.
    pub(crate) fn keys(&self, kid: &str) -> Vec<Arc<Key>> {
        let state = self.shared.state.borrow();
        let fresh = state.fetched.is_some_and(|at| at.elapsed() <= self.shared.max_stale);
        if fresh { state.keys.find(kid) } else { Vec::new() }
    }

    /// Whether the set could not be read when it was tried last, or never was tried.
    pub(crate) fn is_failing(&self) -> bool {
        let state = self.shared.state.borrow();
        state.failing || state.tried.is_none()
    }

    /// Waits until the set has been read again, unless that was a moment ago.
    pub(crate) async fn refresh(&self) {
        let mut state = self.shared.state.subscribe();
        let seen = {
            let now = state.borrow_and_update();
            if !now.trying && now.tried.is_some_and(|at| at.elapsed() < PAUSE) {
                return;
            }
            now.attempts
        };
        self.shared.asked.notify_one();
        // Neither the end of the task nor that of patience changes what is known.
        let _ = timeout(PATIENCE, state.wait_for(|state| state.attempts > seen)).await;
    }
}

impl Shared {
    async fn follow(&self, metrics: &Metrics) {
        let mut retry = RETRY;
        loop {
            self.state.send_modify(|state| state.trying = true);
            let fetched = self.fetcher.fetch().await;
            let now = Instant::now();
            let due = match fetched {
                Ok(Fetched { keys, lifetime }) => {
                    retry = RETRY;
                    metrics.outcomes[0].increment(1);
                    metrics.keys.increment(keys.len() as f64 - self.state.borrow().keys.len() as f64);
                    tracing::debug!(keys = keys.len(), "a key set was read");
                    self.state.send_modify(|state| {
                        (state.keys, state.fetched, state.failing) = (Arc::new(keys), Some(now), false);
                    });
                    // Before it gets old, so that nobody waits for it.
                    now + lifetime.mul_f64(0.8)
                }
                Err(error) => {
                    metrics.outcomes[1].increment(1);
                    tracing::warn!(url = %self.fetcher, %error, "a key set cannot be read");
                    self.state.send_modify(|state| state.failing = true);
                    let due = now + retry;
                    retry = (retry * 2).min(MAX_RETRY);
                    due
                }
            };
            self.state.send_modify(|state| {
                (state.trying, state.tried) = (false, Some(now));
                state.attempts += 1;
            });
            // Whoever asked until here has its answer.
            let _ = self.asked.notified().now_or_never();
            self.wait(now, due).await;
        }
    }

    /// Waits until the set is due, or somebody asks for it who has not been answered by the last attempt.
    async fn wait(&self, tried: Instant, due: Instant) {
        tokio::select! {
            () = sleep_until(due) => {}
            () = self.asked.notified() => {
                sleep_until((tried + PAUSE).min(due)).await;
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!("fanwire_jwks_fetches_total", "Attempts to read a key set, by outcome");
        describe_gauge!("fanwire_jwks_keys", "Keys of the key sets that can check tokens");
        let outcome = |outcome| counter!("fanwire_jwks_fetches_total", "outcome" => outcome);
        let keys = gauge!("fanwire_jwks_keys");
        // A verifier that takes the place of another one begins anew.
        keys.set(0.0);
        Self { outcomes: ["read", "failed"].map(outcome), keys }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("url", &self.shared.fetcher.to_string()).finish_non_exhaustive()
    }
}
