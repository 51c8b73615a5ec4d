//! What can go wrong.

use std::time::Duration;

/// Any other error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why something was not done, or is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address or key that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The server did not answer. Whether it did what was asked is not known.
    #[error("cannot reach {url}")]
    Unreachable {
        /// Who was asked.
        url: String,
        /// What went wrong.
        source: BoxError,
    },
    /// An HTTP status that no method answers with: something else answered, or the server is too busy.
    #[error("{url} answers with HTTP status {status}")]
    Status {
        /// Who was asked.
        url: String,
        /// The status.
        status: u16,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server answers something that is not the protocol.
    #[error("{url} does not answer like a Fanwire gateway")]
    Foreign {
        /// Who was asked.
        url: String,
        /// What could not be read.
        source: BoxError,
    },
    /// The server understood, and said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The server ended the connection.
    #[error("the connection was closed: {code} {reason}")]
    Closed {
        /// The close code.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// The server ended the subscription.
    #[error("the subscription was ended: {code} {reason}")]
    Unsubscribed {
        /// The code.
        code: u32,
        /// Its words.
        reason: String,
    },
    /// The connection is gone, or was silent for too long. What was under way may be done or not.
    #[error("the connection was lost")]
    Lost(#[source] BoxError),
    /// There is no connection at the moment; nothing was sent.
    #[error("not connected")]
    NotConnected,
    /// Too many requests wait for an answer; nothing was sent.
    #[error("too many requests under way")]
    Busy,
    /// The subscriber did not take its events in time; what did not fit is fetched again where the channel keeps it.
    #[error("events came faster than they were taken")]
    Slow,
    /// There is a subscription to this channel already.
    #[error("there is a subscription to this channel already")]
    Subscribed,
    /// The application has no token.
    #[error("no token")]
    Token(#[source] BoxError),
    /// The client was closed.
    #[error("the client is closed")]
    Gone,
}

/// A refusal in the server's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code, as in docs/api.md and docs/protocols.md.
    pub code: u32,
    /// Its words.
    pub message: String,
    /// Whether the same request may succeed later.
    pub temporary: bool,
}

impl Refusal {
    /// One of the control API.
    pub(crate) fn of_api(code: u32, message: String) -> Self {
        Self { code, message, temporary: matches!(code, 100 | 111 | 503 | 504) }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl Error {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost(_) | Self::NotConnected | Self::Busy => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 502..=504),
            Self::Refused(refusal) => refusal.temporary,
            Self::Closed { code, .. } => may_return(*code),
            Self::Unsubscribed { code, .. } => *code >= 2500,
            _ => false,
        }
    }
}

/// Whether a client may come back after a close code.
pub(crate) fn may_return(code: u16) -> bool {
    // Below 3000 are WebSocket's own codes. Of those only "message too big" would happen again.
    !matches!(code, 1009 | 3500..=3999 | 4500..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_come_back() {
        for code in [1000, 1006, 1012, 3001, 3005, 3499, 4000, 4499, 5000] {
            assert!(may_return(code), "{code}");
        }
        for code in [1009, 3500, 3503, 3999, 4500, 4999] {
            assert!(!may_return(code), "{code}");
        }
    }
}
