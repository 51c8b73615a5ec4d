//! Where in a channel's stream something stands.

use std::fmt;
use std::sync::Arc;

/// The life of one stream: as long as it is the same, offsets are comparable.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The longest epoch taken from outside, in bytes; those made here are shorter.
    pub const MAX_LEN: usize = 64;

    /// The epoch as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether no epoch is known (a client that never had a position).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Epoch {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A point in a channel's stream: everything up to and with `offset` is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// The stream's life.
    pub epoch: Epoch,
    /// The last publication behind this point; 0 before the first one.
    pub offset: u64,
}
