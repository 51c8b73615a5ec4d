//! The log of who did what, without what was said: no payloads, no secrets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::caller::{Caller, Subject};
use crate::keys::Scope;
use crate::methods::Method;
use crate::types::Fault;

/// Which calls are written to the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audit {
    /// None.
    Off,
    /// Those of the scopes `disconnect` and `admin`, and every call that was not permitted.
    #[default]
    Changes,
    /// Each.
    All,
}

/// What the log says of a call, kept until its outcome is known.
#[derive(Default)]
pub(crate) struct Entry {
    channel: String,
    channels: usize,
    user: String,
    client: String,
}

/// The longest name that is logged, in characters: it comes from outside, and may be as long as a body.
const MAX_SHOWN: usize = 255;

impl Audit {
    /// Keeps what a request is about, if that will be written.
    pub(crate) fn keep(self, method: Method, subject: Subject<'_>, permitted: bool) -> Option<Entry> {
        let changes = matches!(method.scope(), Some(Scope::Disconnect | Scope::Admin));
        let written = match self {
            Self::Off => false,
            Self::Changes => changes || !permitted,
            Self::All => true,
        };
        let shown = |text: &str| text.chars().take(MAX_SHOWN).collect();
        written.then(|| Entry {
            channel: subject.channels.first().map(|channel| shown(channel)).unwrap_or_default(),
            channels: subject.channels.len(),
            user: shown(subject.user),
            client: shown(subject.client),
        })
    }
}

impl Entry {
    /// Writes what became of the call.
    pub(crate) fn write(&self, caller: &Caller, method: &str, fault: Option<&Fault>, took: Duration) {
        let Self { channel, channels, user, client } = self;
        tracing::info!(
            target: "fanwire::audit",
            key = caller.name(),
            certificate = caller.certificate(),
            peer = caller.peer.map(display),
            method,
            channel = given(channel),
            channels = (*channels > 1).then_some(*channels),
            user = given(user),
            client = given(client),
            outcome = fault.map_or("ok", |fault| fault.refusal.name()),
            ms = took.as_millis() as u64,
            "call"
        );
    }
}

/// A name, if there is one: as text, which each format of the log escapes in its own way.
fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
