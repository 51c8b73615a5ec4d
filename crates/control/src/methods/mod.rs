//! What can be asked of a node.

mod batch;
mod channels;
mod clients;
mod info;
mod publish;

use fanwire_wire::Refusal;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::Api;
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
    Presence = "presence",
    PresenceStats = "presence_stats",
    History = "history",
    HistoryRemove = "history_remove",
    Channels = "channels",
    Info = "info",
    Batch = "batch",
}

impl Api {
    /// Calls one method.
    pub(crate) async fn call(&self, method: Method, params: &[u8]) -> Result<Box<RawValue>, Fault> {
        let started = tokio::time::Instant::now();
        let node = &*self.node;
        let outcome = match method {
            Method::Publish => run(params, |request| publish::publish(node, request)).await,
            Method::Broadcast => run(params, |request| publish::broadcast(node, request)).await,
            Method::Subscribe => run(params, |request| clients::subscribe(node, request)).await,
            Method::Unsubscribe => run(params, |request| clients::unsubscribe(node, request)).await,
            Method::Disconnect => run(params, |request| clients::disconnect(node, request)).await,
            Method::Refresh => run(params, |request| clients::refresh(node, request)).await,
            Method::Presence => run(params, |request| channels::presence(node, request)).await,
            Method::PresenceStats => run(params, |request| channels::presence_stats(node, request)).await,
            Method::History => run(params, |request| channels::history(node, request)).await,
            Method::HistoryRemove => run(params, |request| channels::history_remove(node, request)).await,
            Method::Channels => run(params, |request| channels::channels(node, request)).await,
            Method::Info => run(params, |info::Request {}| info::info(node)).await,
            // A batch holds the others, and no batch.
            Method::Batch => Err(Refusal::MethodNotFound.into()),
        };
        self.metrics.called(method, outcome.as_ref().err(), started.elapsed());
        outcome
    }
}

/// Reads a method's request, runs it, and writes its result.
async fn run<Q, A, F>(params: &[u8], method: impl FnOnce(Q) -> F) -> Result<Box<RawValue>, Fault>
where
    Q: DeserializeOwned,
    A: Serialize,
    F: Future<Output = Result<A, Fault>>,
{
    let result = method(parse(params)?).await?;
    to_raw_value(&result).map_err(|error| unwritable(&error))
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
