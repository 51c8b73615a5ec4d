//! Why a run ended without a figure.

use std::io;

/// A failed run, or one that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The other side did not keep what it promises.
    #[error("FAILED: {0}")]
    Failed(String),
    /// Something that the measurement needs is missing or wrong.
    #[error("{0}")]
    Setup(String),
    /// A system call failed.
    #[error("{context}: {source}")]
    Io {
        /// What was attempted.
        context: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Adds to a system error what was attempted.
pub(crate) trait Context<T> {
    /// Wraps the error, if there is one, with `context`.
    fn context(self, context: impl Into<String>) -> Result<T, Error>;
}

impl Error {
    /// The process's exit code: the table stands in the crate's documentation.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Setup(_) | Self::Io { .. } => 2,
        }
    }
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, context: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { context: context.into(), source: source.into() })
    }
}
