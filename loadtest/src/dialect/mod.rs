//! What differs between the protocols of servers: the opening exchange, publications in what was read, pings, publishing.
//!
//! A dialect is one file: `opening`, `publish`, and the reading of what one frame brought. Nothing else in this program
//! knows a protocol by name.

mod mqtt;
pub(crate) mod native;
mod nats;
pub(crate) mod numbers;
mod plain;
mod socket_io;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::client::Who;
use crate::frames::{Fault, Tally, client_binary, client_text};
use numbers::Numbers;

/// The protocol that a server speaks over WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dialect {
    /// Fanwire's native protocol in JSON, which is Centrifugo's
    #[default]
    Native,
    /// A channel for each connection, bare payloads: Fanwire's plain protocol, Nchan, servers made with ws
    Plain,
    /// Socket.IO 4 with events named subscribe, publish and message, as in loadtest/peers/socket_io.mjs
    SocketIo,
    /// The client protocol of NATS
    Nats,
    /// MQTT 3.1.1 with QoS 0
    Mqtt,
}

/// What a session is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It subscribes to its channel.
    Subscribe,
    /// It publishes; if the dialect knows such connections, to its channel only. It is subscribed to nothing.
    Publish,
}

/// A part of the opening exchange: what is sent, and how many replies end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Finished bytes; nothing where the server speaks first.
    pub(crate) send: Vec<u8>,
    /// Replies that come before the next step.
    pub(crate) replies: u64,
}

impl Dialect {
    /// Where the upgrade is usually asked for; `{channel}` stands for the session's channel.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Native => "/connection/websocket",
            Self::Plain => "/plain?channel={channel}",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Nats => "/",
            Self::Mqtt => "/mqtt",
        }
    }

    /// The WebSocket subprotocol that is asked for.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        (self == Self::Mqtt).then_some("mqtt")
    }

    /// Whether the path decides about the channel: then a connection publishes to one channel only.
    pub(crate) fn one_channel_each(self) -> bool {
        self == Self::Plain
    }

    /// Whether Fanwire speaks it.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Native | Self::Plain)
    }

    /// What is said between the upgrade and a session that is ready.
    pub(crate) fn opening(self, purpose: Purpose, who: &Who) -> Vec<Step> {
        let channel = (purpose == Purpose::Subscribe).then_some(who.channel.as_str());
        match self {
            Self::Native => native::opening(channel, who.token.as_deref()),
            Self::Plain => Vec::new(),
            Self::SocketIo => socket_io::opening(channel),
            Self::Nats => nats::opening(channel),
            Self::Mqtt => mqtt::opening(channel),
        }
    }

    /// The frame that publishes `data`, a JSON text, to `channel`; `number` is different for each of a connection.
    pub(crate) fn publish(self, number: u64, channel: &str, data: &str) -> Vec<u8> {
        match self {
            Self::Native => native::publish(number, channel, data),
            Self::Plain => client_text(data.as_bytes()),
            Self::SocketIo => socket_io::publish(channel, data),
            Self::Nats => nats::publish(channel, data),
            Self::Mqtt => mqtt::publish(channel, data),
        }
    }

    /// The frame that answers a ping of the protocol's own.
    pub(crate) fn pong(self) -> Vec<u8> {
        match self {
            Self::Native => client_text(b"{}"),
            Self::SocketIo => client_text(b"3"),
            Self::Nats => client_binary(b"PONG\r\n"),
            // They have none: WebSocket's pings, or the client's.
            Self::Plain | Self::Mqtt => Vec::new(),
        }
    }

    /// Counts what a data frame brought; `first` is the frame's first byte, and `rest` what a message lacks that goes on in
    /// the next frame.
    pub(crate) fn read(
        self,
        first: u8,
        payload: &[u8],
        rest: &mut Vec<u8>,
        numbers: &mut Numbers,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        const TEXT: u8 = 0x81;
        const BINARY: u8 = 0x82;
        match (self, first) {
            (Self::Native, TEXT) => native::read(payload, numbers, tally),
            (Self::Plain, TEXT | BINARY) => plain::read(payload, numbers, tally),
            (Self::SocketIo, TEXT) => socket_io::read(payload, numbers, tally),
            // Streams of bytes: the borders of frames mean nothing.
            (Self::Nats, BINARY | 0x00 | 0x02 | 0x80) => {
                stream(rest, payload, |bytes| nats::read(bytes, numbers, tally))
            }
            (Self::Mqtt, BINARY | 0x00 | 0x02 | 0x80) => {
                stream(rest, payload, |bytes| mqtt::read(bytes, numbers, tally))
            }
            (_, other) => Err(Fault::Unexpected(format!("a frame of type {other:#x}"))),
        }
    }
}

/// Lets `read` take the complete messages of `rest` followed by `bytes`; what it does not take becomes the new `rest`.
fn stream(rest: &mut Vec<u8>, bytes: &[u8], mut read: impl FnMut(&[u8]) -> Result<usize, Fault>) -> Result<(), Fault> {
    if rest.is_empty() {
        let used = read(bytes)?;
        rest.extend_from_slice(&bytes[used..]);
    } else {
        rest.extend_from_slice(bytes);
        let used = read(rest)?;
        rest.drain(..used);
    }
    Ok(())
}

/// Helpers of the dialects' tests.
#[cfg(test)]
mod testing {
    use super::Dialect;
    use crate::frames::{Carry, Fault, Scanner, Tally};

    /// What the parts of a stream hold, read one after the other; nothing may be left.
    pub(crate) fn scan(dialect: Dialect, parts: &[&[u8]]) -> Result<Tally, Fault> {
        let mut scanner = Scanner::new(dialect);
        let mut carry = Carry::default();
        let mut total = Tally::default();
        for part in parts {
            scanner.read(&mut carry, part, &mut total)?;
        }
        assert_eq!(carry, Carry::default(), "bytes are left");
        Ok(total)
    }

    /// Reads a stream split everywhere, and once byte by byte.
    pub(crate) fn scan_split(dialect: Dialect, stream: &[u8], expected: &Tally) {
        for at in 0..stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(scan(dialect, &[left, right]).as_ref(), Ok(expected), "split at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(scan(dialect, &bytes).as_ref(), Ok(expected));
    }
}
