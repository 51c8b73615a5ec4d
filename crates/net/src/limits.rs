//! What a peer may do.

use std::time::Duration;

/// What a peer may do before its connection ends. Each field says its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in bytes, over all its fragments; a larger one ends the connection (1009). Default: 65536.
    pub max_message_size: usize,
    /// The most fragments of one message, empty ones included (1008). Default: 64.
    pub max_fragments: usize,
    /// How long a message may take from its first byte to its last (1008). Default: 10s.
    pub message_timeout: Duration,
    /// The control frames a client may send each second, on the average (1008). Default: 20.
    pub control_rate: u32,
    /// The control frames it may send at once. Default: 40.
    pub control_burst: u32,
    /// How long an opening may take from accept to the answer. Default: 5s.
    pub handshake_timeout: Duration,
    /// Connections that may be in their opening at the same moment; more wait in the listener's backlog. On a site without
    /// client protocols: all connections. Default: 512, and those that may wait for their turn
    /// ([`Node::handshakes_in_line`](fanwire_node::Node::handshakes_in_line)).
    pub max_handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 64 * 1024,
            max_fragments: 64,
            message_timeout: Duration::from_secs(10),
            control_rate: 20,
            control_burst: 40,
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 512,
        }
    }
}
