//! A protocol that hides nothing: for tests of the core itself.

use std::rc::Rc;

use bytes::BytesMut;
use fanwire_node::protocol::{Accepted, Event, Opening, Rejection};
use fanwire_node::{Client, Encoder, Protocol, Session};
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Broadcast, Channel, ClientInfo, Disconnect, Message, Payload, PayloadKind};
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

/// A protocol without commands: the test calls the methods of [`Client`] itself. What a channel carries and what the core
/// has to tell comes as text frames with one JSON object each:
///
/// ```text
/// {"pub": data, "channel": c, "epoch"?, "offset"?, "prev"?, "event"?, "tags"?, "by"?: client}
/// {"join": client, "channel": c}      {"leave": client, "channel": c}
/// {"subscribed": c, "epoch"?, "offset"?}      {"unsubscribed": c, "code": n}      {"refreshed": seconds or null}      {"ping": true}
/// ```
///
/// Data that is not JSON is a string; `{"bytes": [..]}` if it is binary.
/// With the query `binary` the same objects come in binary frames, so from another encoder.
/// With the query `picky` binary data ends the connection (3506).
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe;

struct ProbeSession(&'static ProbeEncoder);

#[derive(Debug, PartialEq, Eq)]
struct ProbeEncoder {
    name: &'static str,
    opcode: Opcode,
}

static TEXT: ProbeEncoder = ProbeEncoder { name: "probe-text", opcode: Opcode::Text };
static BINARY: ProbeEncoder = ProbeEncoder { name: "probe-binary", opcode: Opcode::Binary };
static PICKY: ProbeEncoder = ProbeEncoder { name: "probe-picky", opcode: Opcode::Text };

impl Protocol for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn accept(&self, opening: &Opening) -> Result<Accepted, Rejection> {
        let encoder = match &*opening.query {
            "" => &TEXT,
            "binary" => &BINARY,
            "picky" => &PICKY,
            other => return Err(Rejection { status: 400, message: format!("no such query: {other}") }),
        };
        Ok(Accepted { session: Box::new(ProbeSession(encoder)), subprotocol: None })
    }
}

impl Session for ProbeSession {
    fn encoder(&self) -> &'static dyn Encoder {
        self.0
    }

    fn on_message<'a>(
        &'a self,
        client: &'a Rc<Client>,
        message: Message,
    ) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        let answer = if message == Message::Pong { client.pong() } else { Err(Disconnect::UnsupportedData) };
        Box::pin(std::future::ready(answer))
    }

    fn encode_event(&self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Disconnect> {
        let value = match event {
            Event::Ping => json!({"ping": true}),
            Event::Subscribed { channel, position, .. } => {
                let mut value = json!({"subscribed": channel.as_str()});
                if let Some(position) = position {
                    value["epoch"] = json!(position.epoch.as_str());
                    value["offset"] = json!(position.offset);
                }
                value
            }
            Event::Unsubscribed { channel, reason } => {
                json!({"unsubscribed": channel.as_str(), "code": reason.code()})
            }
            Event::Refreshed { ttl } => json!({"refreshed": ttl}),
        };
        self.0.append(&value, out);
        Ok(())
    }
}

impl ProbeEncoder {
    fn append(&self, value: &Value, out: &mut BytesMut) {
        frame::append_bytes(out, self.opcode, value.to_string().as_bytes());
    }
}

impl Encoder for ProbeEncoder {
    fn name(&self) -> &'static str {
        self.name
    }

    fn encode(&self, broadcast: &Broadcast, out: &mut BytesMut) -> Result<(), Disconnect> {
        if let Broadcast::Publication(publication) = broadcast
            && publication.payload.kind() == PayloadKind::Binary
            && *self == PICKY
        {
            return Err(Disconnect::InappropriateProtocol);
        }
        self.append(&describe(broadcast), out);
        Ok(())
    }
}

/// A broadcast as the probe shows it.
fn describe(broadcast: &Broadcast) -> Value {
    let presence =
        |what: &str, channel: &Channel, info: &ClientInfo| json!({what: *info.client, "channel": channel.as_str()});
    let publication = match broadcast {
        Broadcast::Publication(publication) => publication,
        Broadcast::Join(channel, info) => return presence("join", channel, info),
        Broadcast::Leave(channel, info) => return presence("leave", channel, info),
    };
    let mut value = json!({"pub": data(&publication.payload), "channel": publication.channel.as_str()});
    if let Some(stamp) = &publication.stamp {
        value["epoch"] = json!(stamp.position.epoch.as_str());
        value["offset"] = json!(stamp.position.offset);
        value["prev"] = json!(stamp.prev);
    }
    if let Some(event) = &publication.event {
        value["event"] = json!(**event);
    }
    if !publication.tags.is_empty() {
        value["tags"] = json!(*publication.tags);
    }
    if let Some(info) = &publication.info {
        value["by"] = json!(*info.client);
    }
    value
}

fn data(payload: &Payload) -> Value {
    if payload.kind() == PayloadKind::Binary {
        return json!({"bytes": payload.bytes().to_vec()});
    }
    let mut json = Vec::new();
    // Only binary data has no JSON form.
    let _ = payload.write_json(&mut json);
    serde_json::from_slice(&json).unwrap_or(Value::Null)
}
