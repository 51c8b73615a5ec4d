//! The two encodings of the protocol: bytes to commands, replies to bytes.

pub(crate) mod json;
mod protobuf;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanwire_node::Encoder;
use fanwire_node::hooks::Dialect;
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Disconnect, Payload, Publication};

use crate::encode;
use crate::proto::{Command, Reply};

/// How a connection's messages are written; the kind of WebSocket message they come in does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    /// Reads the commands of one message, one after the other.
    pub(crate) fn commands(self, message: Bytes) -> Commands {
        let rest = Some(match self {
            Self::Json => json::trim(message),
            Self::Protobuf => message,
        });
        Commands { encoding: self, rest }
    }

    /// Appends the frame of one reply.
    ///
    /// # Errors
    ///
    /// [`Disconnect::InappropriateProtocol`] if JSON cannot carry it; `out` is as before then.
    pub(crate) fn append(self, reply: &Reply, out: &mut BytesMut) -> Result<(), Disconnect> {
        self.append_with(reply, &[], out)
    }

    /// The same for an answer to `subscribe` whose publications were [finished](Self::missed) before.
    pub(crate) fn append_with(self, reply: &Reply, missed: &[u8], out: &mut BytesMut) -> Result<(), Disconnect> {
        frame::append(out, self.opcode(), |out| match self {
            Self::Json => json::write(reply, missed, out),
            Self::Protobuf => protobuf::write(reply, missed, out),
        })
    }

    /// Writes the publications of an answer to `subscribe`: nothing in it depends on who gets it.
    ///
    /// # Errors
    ///
    /// [`Disconnect::InappropriateProtocol`] if JSON cannot carry them.
    pub(crate) fn missed(self, publications: &[Arc<Publication>]) -> Result<Bytes, Disconnect> {
        if publications.is_empty() {
            return Ok(Bytes::new());
        }
        let mut out = BytesMut::new();
        match self {
            Self::Json => json::write_missed(publications, &mut out)?,
            Self::Protobuf => protobuf::write_missed(publications, &mut out)?,
        }
        Ok(out.freeze())
    }

    /// Appends the frame of the reply that is empty.
    pub(crate) fn append_ping(self, out: &mut BytesMut) {
        let empty: &[u8] = match self {
            Self::Json => b"{}",
            Self::Protobuf => &[0],
        };
        frame::append_bytes(out, self.opcode(), empty);
    }

    /// What a client of this encoding published.
    pub(crate) fn payload(self, data: Bytes) -> Payload {
        match self {
            Self::Json => Payload::json(data),
            Self::Protobuf => Payload::detect(data),
        }
    }

    /// What it is to backends.
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Json => Dialect { protocol: "json", encoding: "json" },
            Self::Protobuf => Dialect { protocol: "protobuf", encoding: "binary" },
        }
    }

    /// The encoder of publications.
    pub(crate) fn encoder(self) -> &'static dyn Encoder {
        match self {
            Self::Json => &encode::Json,
            Self::Protobuf => &encode::Protobuf,
        }
    }

    fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::Protobuf => Opcode::Binary,
        }
    }
}

/// The commands of one message. Ends behind the first one that is not valid.
pub(crate) struct Commands {
    encoding: Encoding,
    /// What is left; `None` at the end. Empty is not the end: there is no message without a command.
    rest: Option<Bytes>,
}

impl Iterator for Commands {
    type Item = Result<Command, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let read = match self.encoding {
            Encoding::Json => json::read(rest),
            Encoding::Protobuf => protobuf::read(rest),
        };
        Some(read.map(|(command, rest)| {
            self.rest = rest;
            command
        }))
    }
}

/// Bytes that are no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

#[cfg(test)]
pub(crate) mod tests;
