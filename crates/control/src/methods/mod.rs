//! What can be asked of a node.

mod batch;
mod channels;
mod clients;
mod info;
mod moves;
mod publish;

use std::future::ready;

use fanwire_wire::Refusal;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use crate::Api;
use crate::caller::{About, Caller, Subject};
use crate::keys::Scope;
use crate::types::Fault;

macro_rules! methods {
    ($($variant:ident = $name:literal,)*) => {
        /// A method, by the name in its path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Method {
            $($variant,)*
        }

        impl Method {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub(crate) fn find(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

methods! {
    Publish = "publish",
    Broadcast = "broadcast",
    Subscribe = "subscribe",
    Unsubscribe = "unsubscribe",
    Disconnect = "disconnect",
    Refresh = "refresh",
    Revoke = "revoke",
    Presence = "presence",
    PresenceStats = "presence_stats",
    History = "history",
    HistoryRemove = "history_remove",
    Channels = "channels",
    Info = "info",
    Drain = "drain",
    Rebalance = "rebalance",
    Batch = "batch",
}

impl Method {
    /// What a key must be for, to call it; nothing for what only holds other calls.
    pub(crate) fn scope(self) -> Option<Scope> {
        match self {
            Self::Publish | Self::Broadcast => Some(Scope::Publish),
            Self::Presence | Self::PresenceStats | Self::History | Self::Channels | Self::Info => Some(Scope::Read),
            Self::Subscribe | Self::Unsubscribe | Self::Disconnect | Self::Refresh | Self::Revoke => {
                Some(Scope::Disconnect)
            }
            Self::HistoryRemove | Self::Drain | Self::Rebalance => Some(Scope::Admin),
            Self::Batch => None,
        }
    }
}

impl Api {
    /// Calls one method with parameters in JSON.
    pub(crate) async fn call(&self, caller: &Caller, method: Method, params: &[u8]) -> Result<Box<RawValue>, Fault> {
        let node = &*self.node;
        let call = Call { api: self, caller, method, params };
        match method {
            Method::Publish => call.run(|request| publish::publish(node, request)).await,
            Method::Broadcast => call.run(|request| publish::broadcast(node, request)).await,
            Method::Subscribe => call.run(|request| clients::subscribe(node, request)).await,
            Method::Unsubscribe => call.run(|request| clients::unsubscribe(node, request)).await,
            Method::Disconnect => call.run(|request| clients::disconnect(node, request)).await,
            Method::Refresh => call.run(|request| clients::refresh(node, request)).await,
            Method::Revoke => call.run(|request| clients::revoke(node, request)).await,
            Method::Presence => call.run(|request| channels::presence(node, request)).await,
            Method::PresenceStats => call.run(|request| channels::presence_stats(node, request)).await,
            Method::History => call.run(|request| channels::history(node, request)).await,
            Method::HistoryRemove => call.run(|request| channels::history_remove(node, request)).await,
            Method::Channels => call.run(|request| channels::channels(node, caller, request)).await,
            Method::Info => call.run(|info::Request {}| info::info(node)).await,
            Method::Drain => call.run(|request| moves::drain(node, request)).await,
            Method::Rebalance => call.run(|request| moves::rebalance(&self.node, request)).await,
            // A batch holds the others, and no batch.
            Method::Batch => call.run(|Nothing {}| ready(Err::<(), _>(Refusal::MethodNotFound.into()))).await,
        }
    }

    /// Runs a method for a caller, if it may: the one way to each of them, whatever the request came in.
    pub(crate) async fn perform<Q: About, A, F>(
        &self,
        caller: &Caller,
        method: Method,
        request: Result<Q, Fault>,
        run: impl FnOnce(Q) -> F,
    ) -> Result<A, Fault>
    where
        F: Future<Output = Result<A, Fault>>,
    {
        let started = Instant::now();
        let subject = request.as_ref().map(About::subject).unwrap_or_default();
        let admitted = caller.admit(method, subject);
        let entry = self.audit.keep(method, subject, admitted.is_ok());
        let outcome = match admitted.and(request) {
            Ok(request) => run(request).await,
            Err(fault) => Err(fault),
        };
        let (fault, took) = (outcome.as_ref().err(), started.elapsed());
        self.metrics.called(method, fault, took);
        caller.count(fault);
        if let Some(entry) = entry {
            entry.write(caller, method.name(), fault, took);
        }
        outcome
    }
}

/// What is called, for whom, with what.
struct Call<'a> {
    api: &'a Api,
    caller: &'a Caller,
    method: Method,
    params: &'a [u8],
}

impl Call<'_> {
    /// Reads the request, runs the method, and writes its result.
    async fn run<Q, A, F>(self, run: impl FnOnce(Q) -> F) -> Result<Box<RawValue>, Fault>
    where
        Q: DeserializeOwned + About,
        A: Serialize,
        F: Future<Output = Result<A, Fault>>,
    {
        let result = self.api.perform(self.caller, self.method, parse(self.params), run).await?;
        to_raw_value(&result).map_err(|error| unwritable(&error))
    }
}

/// A request that says nothing.
#[derive(Debug, Deserialize)]
struct Nothing {}

impl About for Nothing {
    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }
}

/// Reads an object. Nothing at all is the same as `{}`.
fn parse<'a, Q: Deserialize<'a>>(params: &'a [u8]) -> Result<Q, Fault> {
    match params.trim_ascii_start().first() {
        None => Ok(serde_json::from_slice(b"{}")?),
        Some(b'{') => Ok(serde_json::from_slice(params)?),
        // `serde` would read an array as the fields in their order.
        Some(_) => Err(Fault::transport(StatusCode::BAD_REQUEST, Refusal::BadRequest, "expected a JSON object")),
    }
}

/// Writes an answer.
pub(crate) fn write(answer: &impl Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(answer).map_err(|error| unwritable(&error))
}

fn unwritable(error: &serde_json::Error) -> Fault {
    tracing::error!(%error, "answer cannot be written");
    Refusal::Internal.into()
}
