//! The configuration is read again: on SIGHUP, or when the control plane is asked to.
//!
//! One task does it, one wish after the other. What it reads is taken on as a whole, or not at all.

use std::hash::RandomState;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fanwire_auth::Verifier;
use fanwire_control::{Api, Changes, Keys, Reload};
use fanwire_hooks::{Backends, Wanted};
use fanwire_node::Node;
use fanwire_node::authorizer::{AuthError, Authorizer, Identity, SubscriptionToken};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::config::{Config, Mistakes, changes};

/// Reads the configuration from where it came from.
pub(crate) type Source = Arc<dyn Fn() -> Result<Config, Mistakes> + Send + Sync>;

/// The wishes that wait at most; more are refused.
pub(crate) const MAX_WAITING: usize = 16;

/// Everything that a new configuration changes.
pub(crate) struct Reloader {
    pub(crate) source: Source,
    /// What is in effect.
    pub(crate) running: Config,
    pub(crate) keys: Keys,
    pub(crate) node: Arc<Node>,
    pub(crate) api: Arc<Api>,
    pub(crate) verifier: Arc<LiveVerifier>,
    pub(crate) hooks: Backends,
}

impl Reloader {
    /// Serves wishes for as long as the gateway runs.
    pub(crate) async fn run(mut self, mut hangups: Signal, mut wishes: mpsc::Receiver<Reload>) {
        let metrics = Metrics::new();
        let state = RandomState::new();
        let mut fingerprint = changes::fingerprint(&self.running.token, &state);
        loop {
            let wish = tokio::select! {
                Some(()) = hangups.recv() => None,
                Some(wish) = wishes.recv() => Some(wish),
                else => return,
            };
            let dry_run = wish.as_ref().is_some_and(|wish| wish.dry_run);
            // Reading files blocks, and signals may come in numbers: one after the other is enough.
            let read = tokio::task::block_in_place(|| self.read(fingerprint, &state));
            let outcome = match read {
                Ok(new) if dry_run => Ok(new.changes),
                Ok(new) => {
                    fingerprint = new.fingerprint;
                    Ok(self.take_on(new))
                }
                Err(mistakes) => Err(mistakes),
            };
            if !dry_run {
                metrics.count(outcome.is_ok());
                report(&outcome);
            }
            if let Some(Reload { answer, .. }) = wish {
                // Whoever asked may have given up.
                let _ = answer.send(outcome);
            }
        }
    }

    /// Reads all there is, and changes nothing.
    fn read(&self, fingerprint: u64, state: &RandomState) -> Result<New, Vec<String>> {
        let wanted = (self.source)().map_err(|Mistakes(mistakes)| mistakes)?;
        let config = changes::merge(&self.running, &wanted);
        // It may be right by itself, and wrong together with what stays: a control plane open to the world needs its keys.
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(mistakes.into_iter().map(|mistake| format!("before a restart: {mistake}")).collect());
        }
        let (verifier, keys) = config.secrets()?;
        let hooks = Wanted::new(&config.hook)?;
        let mut changes = changes::compare(&self.running, &wanted);
        let now = changes::fingerprint(&config.token, state);
        let mut also = |name: String| {
            if !changes.changed.contains(&name) {
                changes.changed.push(name);
            }
        };
        if now != fingerprint {
            also("token".to_owned());
        }
        self.keys.changed(&keys).into_iter().for_each(|name| also(format!("api_key.{name}")));
        self.hooks.changed(&hooks).into_iter().for_each(|name| also(format!("hook.{name}")));
        Ok(New { config, verifier, keys, hooks, fingerprint: now, changes })
    }

    fn take_on(&mut self, new: New) -> Changes {
        let New { config, verifier, keys, hooks, changes, .. } = new;
        if changes.changed.iter().any(|name| name == "token") {
            self.verifier.replace(verifier);
        }
        self.api.replace_keys(&keys);
        // Before the namespaces that may name them.
        self.hooks.replace(hooks);
        self.node.reconfigure(config.of_node());
        self.running = config;
        self.keys = keys;
        changes
    }
}

/// What was read, with what it changes.
struct New {
    config: Config,
    verifier: Verifier,
    keys: Keys,
    hooks: Wanted,
    fingerprint: u64,
    changes: Changes,
}

fn report(outcome: &Result<Changes, Vec<String>>) {
    match outcome {
        Ok(Changes { changed, needs_restart }) => {
            tracing::info!(changed = changed.join(" "), "configuration read again");
            if !needs_restart.is_empty() {
                tracing::warn!(keys = needs_restart.join(" "), "these changes need a restart");
            }
        }
        Err(mistakes) => {
            tracing::warn!(mistakes = mistakes.join("; "), "the configuration is wrong; nothing was changed");
        }
    }
}

/// Verifies tokens with the keys of the moment.
pub(crate) struct LiveVerifier(ArcSwap<Verifier>);

impl LiveVerifier {
    pub(crate) fn new(verifier: Verifier) -> Self {
        Self(ArcSwap::from_pointee(verifier))
    }

    fn replace(&self, verifier: Verifier) {
        verifier.start();
        self.0.store(Arc::new(verifier));
    }
}

/// Handed to the node, while another owner replaces the keys.
pub(crate) struct SharedVerifier(pub(crate) Arc<LiveVerifier>);

impl Authorizer for SharedVerifier {
    fn connection<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        let verifier = self.0.0.load_full();
        async move { Authorizer::connection(&*verifier, token).await }.boxed()
    }

    fn subscription<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<SubscriptionToken, AuthError>> {
        let verifier = self.0.0.load_full();
        async move { Authorizer::subscription(&*verifier, token).await }.boxed()
    }
}

struct Metrics {
    applied: Counter,
    invalid: Counter,
    valid: Gauge,
}

impl Metrics {
    fn new() -> Self {
        describe_counter!("fanwire_config_reloads_total", "Times the configuration was read again");
        describe_gauge!("fanwire_config_valid", "1 if the configuration was right when it was last read, else 0");
        let reloads = |outcome: &'static str| counter!("fanwire_config_reloads_total", "outcome" => outcome);
        let metrics =
            Self { applied: reloads("applied"), invalid: reloads("invalid"), valid: gauge!("fanwire_config_valid") };
        metrics.valid.set(1.0);
        metrics
    }

    fn count(&self, applied: bool) {
        if applied { &self.applied } else { &self.invalid }.increment(1);
        self.valid.set(if applied { 1.0 } else { 0.0 });
    }
}
