//! All backends, as the node knows them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fanwire_node::authorizer::Grant;
use fanwire_node::hooks::{Approval, Asked, Asker, ConnectQuestion, Hooks, Kept, Renewal, Welcome};
use fanwire_wire::{Channel, Payload, Refusal};
use tokio::runtime::Handle;

use crate::config::{HookConfig, Parsed};
use crate::convert::{self, Data};
use crate::event::{Question, Response};
use crate::hook::Hook;
use crate::{metrics, proto};

/// All backends, by the names of their hooks. Clones share them.
#[derive(Clone)]
pub struct Backends {
    set: Arc<ArcSwap<Set>>,
    runtime: Handle,
}

/// The backends of one configuration.
#[derive(Default)]
struct Set {
    hooks: HashMap<String, Arc<Hook>>,
    kept: Arc<Kept>,
    /// Some hook gives back what a backend attached.
    keeps_meta: bool,
}

/// Sections `[[hook]]` that are right, with the files they name.
pub struct Wanted(Vec<(HookConfig, Parsed)>);

/// What carries clients, in the words that backends know.
const TRANSPORT: &str = "websocket";

impl Backends {
    /// Gets ready to ask; connections are made when they are needed, by tasks on `runtime`.
    ///
    /// # Errors
    ///
    /// All that is wrong with the configuration.
    pub fn new(configs: &[HookConfig], runtime: &Handle) -> Result<Self, Vec<String>> {
        metrics::describe();
        let backends = Self { set: Arc::default(), runtime: runtime.clone() };
        backends.replace(Wanted::new(configs)?);
        Ok(backends)
    }

    /// The names of hooks that would be others, new or gone.
    #[must_use]
    pub fn changed(&self, wanted: &Wanted) -> Vec<String> {
        let set = self.set.load();
        let differs = |(config, parsed): &&(HookConfig, Parsed)| {
            !set.hooks.get(&config.name).is_some_and(|hook| hook.is_as(config, parsed))
        };
        let mut names: Vec<_> = wanted.0.iter().filter(differs).map(|(config, _)| config.name.clone()).collect();
        let is_gone = |name: &&String| !wanted.0.iter().any(|(config, _)| config.name == **name);
        names.extend(set.hooks.keys().filter(is_gone).cloned());
        names.sort();
        names
    }

    /// Asks by other sections from the next question on. A hook that stays as it is keeps its connections and what is
    /// known of its backend; questions under way are answered by whom they were asked.
    pub fn replace(&self, wanted: Wanted) {
        let before = self.set.load_full();
        let mut set = Set { keeps_meta: wanted.0.iter().any(|(config, _)| config.include_meta), ..Set::default() };
        let mut kept = Kept::default();
        for (config, parsed) in wanted.0 {
            kept.headers.extend(parsed.headers.iter().map(|name| name.as_str().to_owned()));
            kept.client_headers.extend(parsed.client_headers.iter().map(|name| name.as_str().to_owned()));
            let same = before.hooks.get(&config.name).filter(|hook| hook.is_as(&config, &parsed));
            let hook = same.cloned().unwrap_or_else(|| {
                // Before the new one begins, which has the same gauge.
                before.hooks.get(&config.name).inspect(|hook| hook.retire());
                Hook::new(config.clone(), parsed, self.runtime.clone())
            });
            set.hooks.insert(config.name, hook);
        }
        for names in [&mut kept.headers, &mut kept.client_headers] {
            names.sort();
            names.dedup();
        }
        set.kept = Arc::new(kept);
        before.hooks.iter().filter(|(name, _)| !set.hooks.contains_key(*name)).for_each(|(_, hook)| hook.retire());
        self.set.store(Arc::new(set));
    }

    /// Asks a hook; `question` is given the hook and the `meta` to send.
    fn ask<Q: Question, T: Send + 'static>(
        &self,
        hook: &str,
        asker: Asker,
        question: impl FnOnce(&Hook, &Asker, Bytes) -> Q,
        read: impl FnOnce(Option<<Q::Response as Response>::Result>) -> Result<T, String> + Send + 'static,
    ) -> Asked<T> {
        let Some(hook) = self.set.load().hooks.get(hook).cloned() else {
            tracing::error!(hook, "no [[hook]] has this name");
            return Box::pin(std::future::ready(Err(Refusal::BackendUnavailable.into())));
        };
        let meta = asker.introduction.as_ref().and_then(|introduction| introduction.meta.clone());
        let meta = meta.filter(|_| hook.config().include_meta).unwrap_or_default();
        let question = question(&hook, &asker, meta);
        Box::pin(hook.ask(asker, question, read))
    }
}

/// A question with the fields that all have.
macro_rules! about {
    ($asker:expr, $message:ident { $($fields:tt)* }) => {
        proto::$message {
            client: $asker.client.clone(),
            transport: TRANSPORT.to_owned(),
            protocol: $asker.dialect.protocol.to_owned(),
            encoding: $asker.dialect.encoding.to_owned(),
            $($fields)*
        }
    };
}

impl Wanted {
    /// Reads the sections, and the files they name.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn new(configs: &[HookConfig]) -> Result<Self, Vec<String>> {
        let (mut wanted, mut mistakes) = (Vec::new(), Vec::new());
        for (index, config) in configs.iter().enumerate() {
            if configs[..index].iter().any(|earlier| earlier.name == config.name) {
                mistakes.push(format!("hook {:?}: defined twice", config.name));
            }
            match config.parse() {
                Ok(parsed) => wanted.push((config.clone(), parsed)),
                Err(more) => mistakes.extend(more),
            }
        }
        if mistakes.is_empty() { Ok(Self(wanted)) } else { Err(mistakes) }
    }
}

impl Hooks for Backends {
    fn keeps(&self) -> Arc<Kept> {
        Arc::clone(&self.set.load().kept)
    }

    fn connect(&self, hook: &str, asker: Asker, question: ConnectQuestion) -> Asked<Welcome> {
        let ConnectQuestion { name, version, data, channels } = question;
        let keeps_meta = self.set.load().keeps_meta;
        self.ask(
            hook,
            asker,
            |hook, asker, _| {
                let Data { data, b64data } = data_for(hook, data);
                about!(asker, ConnectRequest { data, b64data, name, version, channels })
            },
            move |result| convert::welcome(result, keeps_meta),
        )
    }

    fn refresh(&self, hook: &str, asker: Asker) -> Asked<Renewal> {
        let question =
            |_: &Hook, asker: &Asker, meta| about!(asker, RefreshRequest { user: (*asker.user).to_owned(), meta });
        self.ask(hook, asker, question, convert::renewal)
    }

    fn subscribe(&self, hook: &str, asker: Asker, channel: Channel, data: Option<Payload>) -> Asked<Grant> {
        self.ask(
            hook,
            asker,
            |hook, asker, meta| {
                let Data { data, b64data } = data_for(hook, data);
                let (user, channel) = ((*asker.user).to_owned(), channel.as_str().to_owned());
                about!(asker, SubscribeRequest { user, channel, meta, data, b64data })
            },
            convert::grant,
        )
    }

    fn publish(&self, hook: &str, asker: Asker, channel: Channel, payload: Payload) -> Asked<Approval> {
        self.ask(
            hook,
            asker,
            |hook, asker, meta| {
                let Data { data, b64data } = data_for(hook, Some(payload));
                let (user, channel) = ((*asker.user).to_owned(), channel.as_str().to_owned());
                about!(asker, PublishRequest { user, channel, data, b64data, meta })
            },
            convert::approval,
        )
    }

    fn rpc(&self, hook: &str, asker: Asker, method: String, payload: Option<Payload>) -> Asked<Option<Payload>> {
        self.ask(
            hook,
            asker,
            |hook, asker, meta| {
                let Data { data, b64data } = data_for(hook, payload);
                about!(asker, RpcRequest { user: (*asker.user).to_owned(), method, data, b64data, meta })
            },
            convert::answer,
        )
    }

    fn sub_refresh(&self, hook: &str, asker: Asker, channel: Channel) -> Asked<Renewal> {
        let question = |_: &Hook, asker: &Asker, meta| {
            let (user, channel) = ((*asker.user).to_owned(), channel.as_str().to_owned());
            about!(asker, SubRefreshRequest { user, channel, meta })
        };
        self.ask(hook, asker, question, convert::sub_renewal)
    }
}

fn data_for(hook: &Hook, payload: Option<Payload>) -> Data {
    Data::new(payload, hook.is_grpc(), hook.wants_base64())
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").field("hooks", &self.set.load().hooks.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(config, _)| &config.name)).finish()
    }
}
