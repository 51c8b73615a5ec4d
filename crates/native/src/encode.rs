//! Finished frames of what a channel carries, made once for all subscribers of an encoding, and lists of publications.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use fanwire_node::Encoder;
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Broadcast, ClientInfo, Disconnect, Publication};
use serde_json::value::RawValue;

use crate::codec::{Encoding, json};
use crate::{convert, proto};

/// Pushes as JSON, written by hand: this is the hottest path of the gateway.
pub(crate) struct Json;

/// Pushes as protobuf.
pub(crate) struct Protobuf;

impl Encoder for Json {
    fn name(&self) -> &'static str {
        "native-json"
    }

    fn encode(&self, broadcast: &Broadcast, out: &mut BytesMut) -> Result<(), Disconnect> {
        frame::append(out, Opcode::Text, |out| {
            let start = out.len();
            let mut reply = Object::open(out);
            let mut push = Object::open(reply.key("push"));
            string(push.key("channel"), broadcast.channel().as_str());
            match broadcast {
                Broadcast::Publication(published) => publication(push.key("pub"), published)?,
                Broadcast::Join(_, who) => member(push.key("join"), who),
                Broadcast::Leave(_, who) => member(push.key("leave"), who),
            }
            push.close();
            reply.close();
            json::one_line(&mut out[start..]);
            Ok(())
        })
    }
}

impl Encoder for Protobuf {
    fn name(&self) -> &'static str {
        "native-protobuf"
    }

    fn encode(&self, broadcast: &Broadcast, out: &mut BytesMut) -> Result<(), Disconnect> {
        Encoding::Protobuf.append(&convert::broadcast(Encoding::Protobuf, broadcast)?, out)
    }
}

fn publication(out: &mut BytesMut, publication: &Publication) -> Result<(), Disconnect> {
    let mut object = Object::open(out);
    let written = publication.payload.write_json(object.key("data"));
    written.map_err(|_| Disconnect::InappropriateProtocol)?;
    if let Some(who) = &publication.info {
        info(object.key("info"), who);
    }
    object.number("offset", publication.stamp.as_ref().map_or(0, |stamp| stamp.position.offset));
    object.tags(convert::tags(publication));
    object.close();
    Ok(())
}

/// Publications as they stand in the answer to `subscribe`.
pub(crate) fn publications(out: &mut BytesMut, publications: &[Arc<Publication>]) -> Result<(), Disconnect> {
    out.reserve(publications.iter().map(|publication| publication.payload.bytes().len() + 64).sum::<usize>());
    array(out, publications, |out, found| publication(out, found))
}

/// The answer to `subscribe`. A client that comes back gets all it missed in it: what is JSON already is not read again for
/// each of them. `missed` are its publications if they were [written](publications) before.
pub(crate) fn subscribed(out: &mut BytesMut, result: &proto::SubscribeResult, missed: &[u8]) -> serde_json::Result<()> {
    let mut object = Object::open(out);
    object.flag("expires", result.expires);
    object.number("ttl", result.ttl.into());
    object.flag("recoverable", result.recoverable);
    if !result.epoch.is_empty() {
        string(object.key("epoch"), &result.epoch);
    }
    if !missed.is_empty() {
        object.key("publications").put_slice(missed);
    } else if !result.publications.is_empty() {
        list(object.key("publications"), &result.publications);
    }
    object.flag("recovered", result.recovered);
    object.number("offset", result.offset);
    object.flag("positioned", result.positioned);
    if !result.data.is_empty() {
        // Whoever gave it may have given anything.
        let raw: &RawValue = serde_json::from_slice(&result.data)?;
        object.key("data").put_slice(raw.get().as_bytes());
    }
    object.flag("was_recovering", result.was_recovering);
    object.close();
    Ok(())
}

/// The answer to `history`.
pub(crate) fn history(out: &mut BytesMut, result: &proto::HistoryResult) {
    let mut object = Object::open(out);
    list(object.key("publications"), &result.publications);
    string(object.key("epoch"), &result.epoch);
    // Clients read it without asking whether it is there.
    let _ = write!(object.key("offset"), "{}", result.offset);
    object.close();
}

fn list(out: &mut BytesMut, publications: &[proto::Publication]) {
    out.reserve(publications.iter().map(|publication| publication.data.len() + 64).sum::<usize>());
    let written = array(out, publications, |out, publication| {
        let mut object = Object::open(out);
        object.raw("data", &publication.data);
        if let Some(who) = &publication.info {
            person(object.key("info"), [&who.user, &who.client], [&who.conn_info, &who.chan_info]);
        }
        object.number("offset", publication.offset);
        object.tags(publication.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        object.close();
        Ok(())
    });
    match written {
        Ok::<_, Infallible>(()) => {}
    }
}

/// A JSON array of what `write` makes of each item.
fn array<T, E>(
    out: &mut BytesMut,
    items: &[T],
    mut write: impl FnMut(&mut BytesMut, &T) -> Result<(), E>,
) -> Result<(), E> {
    out.put_u8(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        write(out, item)?;
    }
    out.put_u8(b']');
    Ok(())
}

/// A join or leave.
fn member(out: &mut BytesMut, who: &ClientInfo) {
    let mut object = Object::open(out);
    info(object.key("info"), who);
    object.close();
}

fn info(out: &mut BytesMut, info: &ClientInfo) {
    let attached = [&info.conn_info, &info.chan_info].map(|json| json.as_deref().unwrap_or_default());
    person(out, [&info.user, &info.client], attached);
}

fn person(out: &mut BytesMut, [user, client]: [&str; 2], [conn_info, chan_info]: [&[u8]; 2]) {
    let mut object = Object::open(out);
    // Clients read these without asking whether they are there.
    string(object.key("user"), user);
    string(object.key("client"), client);
    object.raw("conn_info", conn_info);
    object.raw("chan_info", chan_info);
    object.close();
}

fn string(out: &mut BytesMut, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        // Strings have no way to fail.
        let _ = serde_json::to_writer(out.writer(), text);
    } else {
        out.reserve(text.len() + 2);
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    }
}

/// A JSON object that is being written.
pub(crate) struct Object<'a> {
    out: &'a mut BytesMut,
    /// What comes before the next key.
    separator: u8,
}

impl<'a> Object<'a> {
    pub(crate) fn open(out: &'a mut BytesMut) -> Self {
        Self { out, separator: b'{' }
    }

    /// Writes a key of the protocol, which is a plain word; the caller writes its value.
    pub(crate) fn key(&mut self, name: &'static str) -> &mut BytesMut {
        self.out.reserve(name.len() + 4);
        self.out.put_slice(&[self.separator, b'"']);
        self.separator = b',';
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b"\":");
        self.out
    }

    /// The same for a key of the application's.
    fn any_key(&mut self, name: &str) -> &mut BytesMut {
        self.out.put_u8(self.separator);
        self.separator = b',';
        string(self.out, name);
        self.out.put_u8(b':');
        self.out
    }

    /// What is JSON already; nothing is left out.
    fn raw(&mut self, name: &'static str, json: &[u8]) {
        if !json.is_empty() {
            self.key(name).put_slice(json);
        }
    }

    /// A number; 0 is left out.
    pub(crate) fn number(&mut self, name: &'static str, number: u64) {
        if number != 0 {
            // Writing into a growing buffer does not fail.
            let _ = write!(self.key(name), "{number}");
        }
    }

    /// Left out unless it is true.
    fn flag(&mut self, name: &'static str, set: bool) {
        if set {
            self.key(name).put_slice(b"true");
        }
    }

    /// The labels of a publication; left out if there are none.
    fn tags<'t>(&mut self, tags: impl Iterator<Item = (&'t str, &'t str)>) {
        let mut tags = tags.peekable();
        if tags.peek().is_some() {
            let mut object = Object::open(self.key("tags"));
            for (name, value) in tags {
                string(object.any_key(name), value);
            }
            object.close();
        }
    }

    pub(crate) fn close(self) {
        if self.separator == b'{' {
            self.out.put_u8(b'{');
        }
        self.out.put_u8(b'}');
    }
}

#[cfg(test)]
mod tests;
