//! The protobuf encoding: messages with their length before them.

use bytes::{Bytes, BytesMut};
use fanwire_wire::Disconnect;
use prost::Message as _;

use super::Malformed;
use crate::proto::{Command, Reply};

/// How many bytes of a message one byte of published data may keep alive.
const MAX_WASTE: usize = 8;

/// Reads one command; returns what lies behind it, if there is more.
pub(super) fn read(mut message: Bytes) -> Result<(Command, Option<Bytes>), Malformed> {
    let len = message.len();
    let mut command = Command::decode_length_delimited(&mut message).map_err(|_| Malformed)?;
    // The data is a slice of the message, and a channel's history may keep it for long.
    if let Some(publish) = &mut command.publish
        && publish.data.len() < len / MAX_WASTE
    {
        publish.data = Bytes::copy_from_slice(&publish.data);
    }
    Ok((command, (!message.is_empty()).then_some(message)))
}

/// Appends one reply with its length before it.
pub(super) fn write(reply: &Reply, out: &mut BytesMut) -> Result<(), Disconnect> {
    // Fails only for want of room, and the buffer grows.
    reply.encode_length_delimited(out).map_err(|_| Disconnect::ServerError)
}
