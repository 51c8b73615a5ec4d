//! The JSON encoding: objects joined by line breaks.
//!
//! `proto/` gives each field its name; build.rs gives it [`zero`] or [`raw`].

use std::slice::Iter;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fanwire_wire::{Disconnect, Publication};

use super::Malformed;
use crate::encode::{self, Object};
use crate::proto::{Command, Reply};

/// How deep the arrays and objects of one command may nest.
const MAX_DEPTH: usize = 32;

/// Takes off the one line break that may end a message.
pub(super) fn trim(mut message: Bytes) -> Bytes {
    if message.ends_with(b"\n") {
        message.truncate(message.len() - 1);
    }
    message
}

/// Reads one command; returns what lies behind it, if there is more.
pub(super) fn read(mut message: Bytes) -> Result<(Command, Option<Bytes>), Malformed> {
    let rest = memchr::memchr(b'\n', &message).map(|end| {
        let rest = message.slice(end + 1..);
        message.truncate(end);
        rest
    });
    // `serde` would read an array as the fields of a command in their order.
    if !message.trim_ascii_start().starts_with(b"{") || !is_shallow(&message) {
        return Err(Malformed);
    }
    let command = serde_json::from_slice(&message).map_err(|_| Malformed)?;
    Ok((command, rest))
}

/// Appends one reply on one line.
pub(super) fn write(reply: &Reply, missed: &[u8], out: &mut BytesMut) -> Result<(), Disconnect> {
    let start = out.len();
    // Nothing but a `bytes` field that is not JSON can fail.
    match reply {
        Reply { subscribe: Some(result), .. } => {
            answer(reply, "subscribe", out, |out| encode::subscribed(out, result, missed))
        }
        Reply { history: Some(result), .. } => answer(reply, "history", out, |out| {
            encode::history(out, result);
            Ok(())
        }),
        _ => serde_json::to_writer(out.writer(), reply),
    }
    .map_err(|_| Disconnect::InappropriateProtocol)?;
    one_line(&mut out[start..]);
    Ok(())
}

/// Appends publications as they stand in a reply.
pub(super) fn write_missed(publications: &[Arc<Publication>], out: &mut BytesMut) -> Result<(), Disconnect> {
    let start = out.len();
    encode::publications(out, publications)?;
    one_line(&mut out[start..]);
    Ok(())
}

/// An answer that is written by hand: there is nothing else in it.
fn answer(
    reply: &Reply,
    name: &'static str,
    out: &mut BytesMut,
    result: impl FnOnce(&mut BytesMut) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    let mut object = Object::open(out);
    object.number("id", reply.id.into());
    result(object.key(name))?;
    object.close();
    Ok(())
}

/// Clients split messages at line breaks. In valid JSON those stand only between tokens, so a space does as well.
pub(crate) fn one_line(mut json: &mut [u8]) {
    while let Some(at) = memchr::memchr(b'\n', json) {
        json[at] = b' ';
        json = &mut json[at + 1..];
    }
}

/// Whether a text, should it be JSON, nests no deeper than [`MAX_DEPTH`].
fn is_shallow(text: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => skip_string(&mut rest),
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Goes behind the quotation mark that ends a string, or to the end of the text.
fn skip_string(rest: &mut Iter<'_, u8>) {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest.as_slice()) {
        let found = rest.nth(at);
        if found == Some(&b'"') {
            return;
        }
        // Whatever is escaped.
        rest.next();
    }
    *rest = [].iter();
}

/// Whether a field is left out.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A field whose `null` means zero.
pub(crate) mod zero {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: Deserialize<'de> + Default,
        D: Deserializer<'de>,
    {
        Ok(Option::deserialize(deserializer)?.unwrap_or_default())
    }
}

/// A map spelled out as its entries.
pub(crate) mod entries {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::proto::{SubscribeResult, SubscribeResultEntry};

    pub(crate) fn serialize<S: Serializer>(entries: &[SubscribeResultEntry], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(entries.iter().map(|entry| (&entry.key, &entry.value)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<SubscribeResultEntry>, D::Error> {
        let entries: BTreeMap<String, SubscribeResult> = BTreeMap::deserialize(deserializer)?;
        Ok(entries.into_iter().map(|(key, value)| SubscribeResultEntry { key, value: Some(value) }).collect())
    }
}

/// A field of type `bytes`: one JSON value, kept as it is written.
pub(crate) mod raw {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
    use serde_json::value::RawValue;

    pub(crate) fn serialize<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_slice(value).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(String::from(Box::<str>::from(raw)).into())
    }
}
