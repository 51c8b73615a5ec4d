//! Why requests are refused and subscriptions end.

use std::fmt;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $message:literal;)*) => {
        /// Why one request was refused; the connection goes on. Codes of the native protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])* $variant,)*
        }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The error code. Temporary faults share one.
            #[must_use]
            pub fn code(self) -> u32 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The name in logs and metrics: one of a closed set.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The text beside the code.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

refusals! {
    /// A fault of the node.
    Internal = 100, "internal", "internal server error";
    /// The broker cannot be reached; nothing was applied.
    Unavailable = 100, "unavailable", "broker unavailable, nothing was applied";
    /// The broker did not answer; what was asked may have been applied, or may still be.
    OutcomeUnknown = 100, "outcome_unknown", "no answer from the broker, outcome unknown";
    /// The backend that decides about it gave no answer.
    BackendUnavailable = 100, "backend_unavailable", "backend unavailable";
    /// Who asks is not known.
    Unauthorized = 101, "unauthorized", "unauthorized";
    /// The channel belongs to no namespace.
    UnknownChannel = 102, "unknown_channel", "unknown channel";
    /// Who asks may not do this.
    PermissionDenied = 103, "permission_denied", "permission denied";
    /// There is no such method.
    MethodNotFound = 104, "method_not_found", "method not found";
    /// The client is subscribed to the channel.
    AlreadySubscribed = 105, "already_subscribed", "already subscribed";
    /// A limit would be exceeded.
    LimitExceeded = 106, "limit_exceeded", "limit exceeded";
    /// The request makes no sense.
    BadRequest = 107, "bad_request", "bad request";
    /// The feature is off for this channel.
    NotAvailable = 108, "not_available", "not available";
    /// The token expired: a new one is needed.
    TokenExpired = 109, "token_expired", "token expired";
    /// What was asked for is over.
    Expired = 110, "expired", "expired";
    /// Too many requests; try later.
    TooManyRequests = 111, "too_many_requests", "too many requests";
    /// The position asked from cannot be continued.
    UnrecoverablePosition = 112, "unrecoverable_position", "unrecoverable position";
    /// The channel does not stand where it was expected to; nothing was applied.
    Conflict = 113, "conflict", "conflict";
}

impl Refusal {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn temporary(self) -> bool {
        matches!(
            self,
            Self::Internal
                | Self::Unavailable
                | Self::OutcomeUnknown
                | Self::BackendUnavailable
                | Self::TooManyRequests
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message(), self.code())
    }
}

impl std::error::Error for Refusal {}

/// Why the server ended a subscription. Below 2500 the client stays out, from there on it subscribes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsubscribe {
    /// The backend ended it.
    Server,
    /// The client's position cannot be continued.
    InsufficientState,
    /// The subscription's token expired and was not renewed.
    Expired,
    /// The subscription's token was revoked.
    StateInvalidated,
}

impl Unsubscribe {
    /// The code in the push.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Server => 2000,
            Self::InsufficientState => 2500,
            Self::Expired => 2501,
            Self::StateInvalidated => 2502,
        }
    }

    /// The text in the push.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Server => "server unsubscribe",
            Self::InsufficientState => "insufficient state",
            Self::Expired => "subscription expired",
            Self::StateInvalidated => "state invalidated",
        }
    }
}
