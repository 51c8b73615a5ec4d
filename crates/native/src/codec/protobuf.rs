//! The protobuf encoding: messages with their length before them.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fanwire_wire::{Disconnect, Publication};
use prost::Message as _;
use prost::encoding::{self, WireType, encoded_len_varint, key_len};

use super::{Encoding, Malformed};
use crate::convert;
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
pub(super) fn write(reply: &Reply, missed: &[u8], out: &mut BytesMut) -> Result<(), Disconnect> {
    if let Reply { id, subscribe: Some(result), .. } = reply
        && !missed.is_empty()
    {
        // There is nothing else in it. Fields come in any order.
        let id = Reply { id: *id, ..Reply::default() };
        let len = result.encoded_len() + missed.len();
        let header = key_len(SUBSCRIBE) + encoded_len_varint(len as u64);
        encoding::encode_varint((id.encoded_len() + header + len) as u64, out);
        id.encode_raw(out);
        encoding::encode_key(SUBSCRIBE, WireType::LengthDelimited, out);
        encoding::encode_varint(len as u64, out);
        result.encode_raw(out);
        out.put_slice(missed);
        return Ok(());
    }
    // Fails only for want of room, and the buffer grows.
    reply.encode_length_delimited(out).map_err(|_| Disconnect::ServerError)
}

/// Appends publications as they stand in the answer to `subscribe`.
pub(super) fn write_missed(publications: &[Arc<Publication>], out: &mut BytesMut) -> Result<(), Disconnect> {
    for publication in publications {
        encoding::message::encode(PUBLICATIONS, &convert::publication(Encoding::Protobuf, publication)?, out);
    }
    Ok(())
}

/// `Reply.subscribe` and `SubscribeResult.publications`.
const SUBSCRIBE: u32 = 6;
const PUBLICATIONS: u32 = 7;
