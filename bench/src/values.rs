//! What is encoded and carried.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_native::Native;
use fanwire_node::Protocol;
use fanwire_plain::Plain;
use fanwire_wire::{Broadcast, Channel, Epoch, Payload, Position, Publication, Stamp};

/// 128 bytes of JSON, as in the fan-out benchmark.
pub(crate) const PAYLOAD: &str = concat!(
    r#"{"number":1234567890,"text":""#,
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0",
    r#""}"#
);

/// The first command of a client.
pub(crate) const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// How a client talks.
#[derive(Clone, Copy, Debug)]
pub enum Encoding {
    /// The native protocol, in JSON.
    Json,
    /// The native protocol, in protobuf.
    Protobuf,
    /// The plain protocol.
    Plain,
}

impl Encoding {
    /// The protocol that speaks it.
    #[must_use]
    pub fn protocol(self) -> Box<dyn Protocol> {
        match self {
            Self::Json | Self::Protobuf => Box::new(Native::new()),
            Self::Plain => Box::new(Plain),
        }
    }

    /// What the client asks for.
    #[must_use]
    pub fn query(self) -> &'static str {
        match self {
            Self::Json => "",
            Self::Protobuf => "cf_protocol=protobuf",
            Self::Plain => "channel=bench",
        }
    }
}

/// A publication with a place in a stream.
///
/// # Panics
///
/// Never: the names in it are valid.
#[must_use]
pub fn publication() -> Arc<Publication> {
    Arc::new(Publication {
        channel: Channel::new("bench").expect("a channel's name"),
        payload: Payload::json(Bytes::from_static(PAYLOAD.as_bytes())),
        event: None,
        tags: Arc::default(),
        info: None,
        exclude: None,
        stamp: Some(Stamp { position: Position { epoch: Epoch::from("abcdefgh"), offset: 123_456 }, prev: 123_455 }),
        time_ms: 1_700_000_000_000,
    })
}

/// The same for subscribers.
#[must_use]
pub fn broadcast() -> Broadcast {
    Broadcast::Publication(publication())
}
