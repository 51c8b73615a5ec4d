//! Finished frames of what a channel carries, made once for all subscribers of an encoding.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use fanwire_node::Encoder;
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Broadcast, ClientInfo, Disconnect, Publication};

use crate::codec::{Encoding, json};
use crate::convert;

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
    if let Some(stamp) = &publication.stamp {
        // Writing into a growing buffer does not fail.
        let _ = write!(object.key("offset"), "{}", stamp.position.offset);
    }
    let mut labels = convert::tags(publication).peekable();
    if labels.peek().is_some() {
        let mut tags = Object::open(object.key("tags"));
        for (name, value) in labels {
            string(tags.any_key(name), value);
        }
        tags.close();
    }
    object.close();
    Ok(())
}

/// A join or leave.
fn member(out: &mut BytesMut, who: &ClientInfo) {
    let mut object = Object::open(out);
    info(object.key("info"), who);
    object.close();
}

fn info(out: &mut BytesMut, info: &ClientInfo) {
    let mut object = Object::open(out);
    // Clients read these without asking whether they are there.
    string(object.key("user"), &info.user);
    string(object.key("client"), &info.client);
    for (name, json) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
        if let Some(json) = json {
            object.key(name).put_slice(json);
        }
    }
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
struct Object<'a> {
    out: &'a mut BytesMut,
    /// What comes before the next key.
    separator: u8,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut BytesMut) -> Self {
        Self { out, separator: b'{' }
    }

    /// Writes a key of the protocol, which is a plain word; the caller writes its value.
    fn key(&mut self, name: &'static str) -> &mut BytesMut {
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

    fn close(self) {
        if self.separator == b'{' {
            self.out.put_u8(b'{');
        }
        self.out.put_u8(b'}');
    }
}

#[cfg(test)]
mod tests;
