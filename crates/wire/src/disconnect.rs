//! Why connections end.

use std::fmt;
use std::sync::Arc;

macro_rules! disconnects {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $reason:literal;)*) => {
        /// The one reason a connection ended: the same name in the close frame, the log and the metric.
        ///
        /// Codes 1000–2999 belong to WebSocket (RFC 6455 §7.4), the others to the native protocol:
        /// a client comes back after 3000–3499 and 4000–4499, and stays away after 3500–3999 and 4500–4999.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Disconnect {
            $($(#[$doc])* $variant,)*
            /// The backend ended it with a code (4000–4999) and a reason of its own.
            Application {
                /// The close code.
                code: u16,
                /// The text beside it.
                reason: Arc<str>,
            },
        }

        impl Disconnect {
            /// Every reason of the product itself.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The close code.
            #[must_use]
            pub fn code(&self) -> u16 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Application { code, .. } => *code,
                }
            }

            /// The name in logs and metrics: one of a closed set.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Application { .. } => "application",
                }
            }

            /// The text in the close frame.
            #[must_use]
            pub fn reason(&self) -> &str {
                match self {
                    $(Self::$variant => $reason,)*
                    Self::Application { reason, .. } => reason,
                }
            }
        }
    };
}

disconnects! {
    /// The client closed or left; nothing is sent.
    ConnectionClosed = 3000, "connection_closed", "connection closed";
    /// The node goes down.
    Shutdown = 3001, "shutdown", "shutdown";
    /// A fault of the node.
    ServerError = 3004, "server_error", "internal server error";
    /// The connection's token expired and was not renewed.
    Expired = 3005, "expired", "connection expired";
    /// A subscription's token expired, in a protocol that cannot end one subscription.
    SubscriptionExpired = 3006, "subscription_expired", "subscription expired";
    /// More bytes waited for the client than its bound.
    Slow = 3008, "slow", "slow";
    /// The socket refused bytes.
    WriteError = 3009, "write_error", "write error";
    /// The client's position cannot be continued.
    InsufficientState = 3010, "insufficient_state", "insufficient state";
    /// The backend, or a node that does not hear the others any more, asks the client to come back.
    ForceReconnect = 3011, "force_reconnect", "force reconnect";
    /// A ping was not answered.
    NoPong = 3012, "no_pong", "no pong";
    /// Too many requests.
    TooManyRequests = 3013, "too_many_requests", "too many requests";
    /// The client shall drop its state and token and come back.
    StateInvalidated = 3014, "state_invalidated", "state invalidated";
    /// The token is not valid.
    InvalidToken = 3500, "invalid_token", "invalid token";
    /// The client broke its protocol.
    BadRequest = 3501, "bad_request", "bad request";
    /// The client did not connect in time.
    Stale = 3502, "stale", "stale";
    /// The backend ended the connection.
    ForceDisconnect = 3503, "force_disconnect", "force disconnect";
    /// The node or the user has as many connections as allowed.
    ConnectionLimit = 3504, "connection_limit", "connection limit";
    /// More channels than a client may have.
    ChannelLimit = 3505, "channel_limit", "channel limit";
    /// The data cannot be carried in the client's encoding.
    InappropriateProtocol = 3506, "inappropriate_protocol", "inappropriate protocol";
    /// The client may not do this, in a protocol that cannot refuse one request.
    PermissionDenied = 3507, "permission_denied", "permission denied";
    /// The feature is off, in a protocol that cannot refuse one request.
    NotAvailable = 3508, "not_available", "not available";
    /// Too many errors.
    TooManyErrors = 3509, "too_many_errors", "too many errors";
    /// The client broke WebSocket (RFC 6455 §7.4.1, 1002).
    ProtocolError = 1002, "protocol_error", "protocol error";
    /// A kind of message the protocol does not take (1003).
    UnsupportedData = 1003, "unsupported_data", "unsupported data";
    /// A text that is not UTF-8 (1007).
    InvalidPayload = 1007, "invalid_payload", "invalid payload";
    /// A flood of control frames, or a message that is not finished in time (1008).
    PolicyViolation = 1008, "policy_violation", "policy violation";
    /// A message over the limit (1009).
    MessageTooBig = 1009, "message_too_big", "message too big";
}

impl Disconnect {
    /// The reason with this code. One that is not known here keeps its code and text.
    #[must_use]
    pub fn from_code(code: u16, reason: &str) -> Self {
        let known = Self::ALL.iter().find(|known| known.code() == code).cloned();
        known.unwrap_or_else(|| Self::Application { code, reason: reason.into() })
    }

    /// Whether a client that knows the codes comes back by itself.
    #[must_use]
    pub fn reconnect(&self) -> bool {
        !matches!(self.code(), 1009 | 3500..=3999 | 4500..=4999)
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_and_names_are_unique() {
        let codes: HashSet<_> = Disconnect::ALL.iter().map(Disconnect::code).collect();
        let names: HashSet<_> = Disconnect::ALL.iter().map(Disconnect::name).collect();
        assert_eq!((codes.len(), names.len()), (Disconnect::ALL.len(), Disconnect::ALL.len()));
    }

    #[test]
    fn codes_lead_back() {
        for known in Disconnect::ALL {
            assert_eq!(Disconnect::from_code(known.code(), "ignored"), *known);
        }
        let own = Disconnect::Application { code: 4001, reason: "mine".into() };
        assert_eq!(Disconnect::from_code(4001, "mine"), own);
    }

    #[test]
    fn advice_follows_the_code() {
        assert!(Disconnect::Shutdown.reconnect());
        assert!(!Disconnect::InvalidToken.reconnect());
        assert!(!Disconnect::MessageTooBig.reconnect());
        let application = |code| Disconnect::Application { code, reason: "x".into() };
        assert!(application(4000).reconnect());
        assert!(!application(4500).reconnect());
    }
}
