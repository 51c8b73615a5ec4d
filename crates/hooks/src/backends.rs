//! All backends, as the node knows them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_node::authorizer::Grant;
use fanwire_node::hooks::{Approval, Asked, Asker, ConnectQuestion, Hooks, Kept, Renewal, Welcome};
use fanwire_wire::{Channel, Payload, Refusal};
use tokio::runtime::Handle;

use crate::config::HookConfig;
use crate::convert::{self, Data};
use crate::event::{Question, Response};
use crate::hook::Hook;
use crate::{metrics, proto};

/// All backends, by the names of their hooks.
pub struct Backends {
    hooks: HashMap<String, Arc<Hook>>,
    kept: Kept,
    /// Some hook gives back what a backend attached.
    keeps_meta: bool,
}

/// What carries clients, in the words that backends know.
const TRANSPORT: &str = "websocket";

impl Backends {
    /// Gets ready to ask; connections are made when they are needed, by tasks on `runtime`.
    ///
    /// # Errors
    ///
    /// All that is wrong with the configuration.
    pub fn new(configs: &[HookConfig], runtime: &Handle) -> Result<Self, Vec<String>> {
        let (mut hooks, mut mistakes) = (HashMap::new(), Vec::new());
        metrics::describe();
        let mut kept = Kept::default();
        for config in configs {
            match config.parse() {
                Ok(parsed) => {
                    kept.headers.extend(parsed.headers.iter().map(|name| name.as_str().to_owned()));
                    kept.client_headers.extend(parsed.client_headers.iter().map(|name| name.as_str().to_owned()));
                    let hook = Hook::new(config.clone(), parsed, runtime.clone());
                    if hooks.insert(config.name.clone(), hook).is_some() {
                        mistakes.push(format!("hook {:?}: defined twice", config.name));
                    }
                }
                Err(more) => mistakes.extend(more),
            }
        }
        for names in [&mut kept.headers, &mut kept.client_headers] {
            names.sort();
            names.dedup();
        }
        let keeps_meta = configs.iter().any(|config| config.include_meta);
        if mistakes.is_empty() { Ok(Self { hooks, kept, keeps_meta }) } else { Err(mistakes) }
    }

    /// Asks a hook; `question` is given the hook and the `meta` to send.
    fn ask<Q: Question, T: Send + 'static>(
        &self,
        hook: &str,
        asker: Asker,
        question: impl FnOnce(&Hook, &Asker, Bytes) -> Q,
        read: impl FnOnce(Option<<Q::Response as Response>::Result>) -> Result<T, String> + Send + 'static,
    ) -> Asked<T> {
        let Some(hook) = self.hooks.get(hook).cloned() else {
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

impl Hooks for Backends {
    fn keeps(&self) -> &Kept {
        &self.kept
    }

    fn connect(&self, hook: &str, asker: Asker, question: ConnectQuestion) -> Asked<Welcome> {
        let ConnectQuestion { name, version, data, channels } = question;
        let keeps_meta = self.keeps_meta;
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
        f.debug_struct("Backends").field("hooks", &self.hooks.keys()).finish_non_exhaustive()
    }
}
