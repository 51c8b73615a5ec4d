//! What the server does to connections: which ones, and on which terms.

use bytes::Bytes;

/// Which connections of a user are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The user's id.
    pub user: String,
    /// Only this connection.
    pub client: Option<String>,
    /// All but these connections.
    pub except: Vec<String>,
}

/// The terms of one subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// When the subscription ends unless renewed, in seconds of Unix time.
    pub expire_at: Option<u64>,
    /// JSON that other clients see beside the user, in this channel.
    pub info: Option<Bytes>,
    /// JSON for the subscriber itself.
    pub data: Option<Bytes>,
    /// Deviations from the namespace's options.
    pub overrides: Overrides,
}

/// Deviations from a namespace's options, for one subscription; `None` leaves the option as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Whether the subscriber is listed in presence.
    pub presence: Option<bool>,
    /// Whether its joining and leaving is announced.
    pub join_leave: Option<bool>,
    /// Whether it receives joins and leaves without asking.
    pub force_join_leave: Option<bool>,
    /// Whether the subscription is recoverable.
    pub recovery: Option<bool>,
    /// Whether the subscription has a position.
    pub positioning: Option<bool>,
}
