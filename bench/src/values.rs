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
    numbered(123_456)
}

/// The publication at an offset.
pub(crate) fn numbered(offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        channel: Channel::new("bench").expect("a channel's name"),
        payload: Payload::json(Bytes::from_static(PAYLOAD.as_bytes())),
        event: None,
        tags: Arc::default(),
        info: None,
        exclude: None,
        stamp: Some(Stamp { position: position(offset), prev: offset - 1 }),
        time_ms: 1_700_000_000_000,
    })
}

/// A place in its stream.
pub(crate) fn position(offset: u64) -> Position {
    Position { epoch: Epoch::from("abcdefgh"), offset }
}

/// What a client sends so many times: a command to publish, in a masked text frame.
#[must_use]
pub fn client_frames(count: usize) -> Vec<u8> {
    let text = format!(r#"{{"id":4,"publish":{{"channel":"bench","data":{PAYLOAD}}}}}"#);
    let mask = [0x5A, 0x0F, 0xC3, 0x81];
    let length = u16::try_from(text.len()).expect("a short text").to_be_bytes();
    // A final text frame whose length is in the two bytes behind the marker.
    let mut frame = vec![0x81, 0x80 | 126, length[0], length[1]];
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame.repeat(count)
}

/// The same for subscribers.
#[must_use]
pub fn broadcast() -> Broadcast {
    Broadcast::Publication(publication())
}
