//! What a backend is asked before something happens to a client.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_wire::{Channel, Payload};
use futures_util::future::BoxFuture;

use crate::authorizer::{Grant, Identity};
use crate::client::Failure;

/// Asks backends: the configuration says which hook, by its name, has an event.
///
/// Answers come within a bounded time. A backend that gives none costs the one who asks a temporary refusal
/// ([`Refusal::BackendUnavailable`](fanwire_wire::Refusal::BackendUnavailable)) and nobody else anything: a worker never waits.
pub trait Hooks: Send + Sync + 'static {
    /// What of a client's opening is kept for the questions about it.
    fn keeps(&self) -> Arc<Kept>;

    /// Asks who a client without a token is.
    fn connect(&self, hook: &str, asker: Asker, question: ConnectQuestion) -> Asked<Welcome>;

    /// Asks whether a connection goes on.
    fn refresh(&self, hook: &str, asker: Asker) -> Asked<Renewal>;

    /// Asks whether a client may subscribe, on which terms.
    fn subscribe(&self, hook: &str, asker: Asker, channel: Channel, data: Option<Payload>) -> Asked<Grant>;

    /// Asks whether a client may publish this.
    fn publish(&self, hook: &str, asker: Asker, channel: Channel, payload: Payload) -> Asked<Approval>;

    /// Passes a client's call on.
    fn rpc(&self, hook: &str, asker: Asker, method: String, payload: Option<Payload>) -> Asked<Option<Payload>>;

    /// Asks whether a subscription goes on.
    fn sub_refresh(&self, hook: &str, asker: Asker, channel: Channel) -> Asked<Renewal>;
}

/// A question under way. Dropping it gives it up.
pub type Asked<T> = BoxFuture<'static, Result<T, Failure>>;

/// Names of headers, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of the request that opened the connection.
    pub headers: Vec<String>,
    /// Of those that a client tells in its own protocol, where it cannot set real ones.
    pub client_headers: Vec<String>,
}

/// The one a question is about.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// The connection's id.
    pub client: String,
    /// The user's id; empty for an anonymous one, and before the connection is somebody's.
    pub user: Arc<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// What it brought along, as far as hooks have a use for it.
    pub introduction: Option<Arc<Introduction>>,
}

/// What a client speaks, in the words that backends know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The protocol.
    pub protocol: &'static str,
    /// What payloads are: `json` or `binary`.
    pub encoding: &'static str,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { protocol: "json", encoding: "json" }
    }
}

/// What a client brought along, and what a backend attached to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Those headers of the opening request that are kept, by name in lower case; a name may come more than once.
    pub headers: Vec<(String, String)>,
    /// Those that it told in its own protocol.
    pub client_headers: Vec<(String, String)>,
    /// JSON that a backend attached and that no client sees.
    pub meta: Option<Bytes>,
}

/// What else a client says when it connects.
#[derive(Clone, Debug, Default)]
pub struct ConnectQuestion {
    /// The name of its software.
    pub name: String,
    /// The version of its software.
    pub version: String,
    /// Anything it has to say.
    pub data: Option<Payload>,
    /// The server-side subscriptions it had.
    pub channels: Vec<String>,
}

/// Who a client is, by the word of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Welcome {
    /// Who it is.
    pub identity: Identity,
    /// For the client itself.
    pub data: Option<Bytes>,
    /// JSON for later questions about it.
    pub meta: Option<Bytes>,
}

/// Whether something that has a term goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is over.
    Expired,
    /// It goes on.
    Until {
        /// When to ask again, in seconds of Unix time; `None` for never.
        expire_at: Option<u64>,
        /// JSON that other clients see from now on; `None` leaves it.
        info: Option<Bytes>,
    },
}

/// A publication that may be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Approval {
    /// To publish in place of what the client sent.
    pub payload: Option<Payload>,
    /// Not kept in the history.
    pub skip_history: bool,
    /// Labels for the application.
    pub tags: Vec<(String, String)>,
    /// Applied at most once under this key.
    pub idempotency_key: Option<Arc<str>>,
}

/// What a backend says in place of an answer: the client gets it as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendError {
    /// The code, of the backend's choice.
    pub code: u32,
    /// The text beside it.
    pub message: Arc<str>,
    /// Whether the same request may succeed later.
    pub temporary: bool,
}
