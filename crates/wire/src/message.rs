//! Bytes in.

use bytes::Bytes;

/// One complete message from a client, whatever fragments it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Valid UTF-8.
    Text(Bytes),
    /// Any bytes.
    Binary(Bytes),
    /// The answer to a transport-level ping.
    Pong,
}
