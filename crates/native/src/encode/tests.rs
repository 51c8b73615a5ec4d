use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanwire_wire::{Channel, Payload, Position, Stamp};
use prost::Message as _;

use super::*;
use crate::codec::tests::payload;
use crate::proto::Reply;

#[test]
fn both_encoders_say_the_same() {
    let channel = Channel::new("chat:1").unwrap();
    let who = Arc::new(client_info());
    for broadcast in [
        published(full_publication()),
        published(Publication { info: None, stamp: None, event: None, tags: [].into(), ..full_publication() }),
        published(Publication { info: Some(ClientInfo::default()), ..full_publication() }),
        Broadcast::Join(channel.clone(), Arc::clone(&who)),
        Broadcast::Leave(channel, who),
    ] {
        assert_eq!(by_json(&broadcast), by_protobuf(&broadcast));
        assert_eq!(by_json(&broadcast), convert::broadcast(Encoding::Json, &broadcast).unwrap());
    }
}

#[test]
fn a_publication_in_json() {
    let frame = encoded(&Json, &published(full_publication())).unwrap();
    assert_eq!(frame[0], 0x81);
    let text = r#"{"push":{"channel":"chat:1","pub":{"data":{ "a" :1},"info":{"user":"ann \"x\"","client":"c1","#
        .to_owned()
        + r#""conn_info":{"n":1}},"offset":7,"tags":{"event":"typing","k\n":"\"v\""}}}}"#;
    assert_eq!(payload(frame), text);
}

#[test]
fn protobuf_is_a_binary_frame() {
    let frame = encoded(&Protobuf, &published(full_publication())).unwrap();
    assert_eq!(frame[0], 0x82);
}

#[test]
fn line_breaks_in_data_split_no_message() {
    let broken = Publication { payload: Payload::json("{\n\"a\\n\":\n1\n}".into()), ..full_publication() };
    let frame = encoded(&Json, &published(broken)).unwrap();
    assert!(!frame.contains(&b'\n'));
    assert!(std::str::from_utf8(&payload(frame)).unwrap().contains(r#""data":{ "a\n": 1 },"#));
}

#[test]
fn json_carries_text_but_no_bytes() {
    let with = |payload| published(Publication { payload, ..full_publication() });
    let reply = by_json(&with(Payload::text("say \"hi\"\n".into())));
    assert_eq!(reply.push.unwrap().r#pub.unwrap().data, r#""say \"hi\"\n""#);
    let binary = with(Payload::binary(Bytes::from_static(&[0, 255])));
    assert_eq!(encoded(&Json, &binary), Err(Disconnect::InappropriateProtocol));
    assert_eq!(by_protobuf(&binary).push.unwrap().r#pub.unwrap().data, &[0, 255][..]);
}

#[test]
fn the_event_name_outranks_a_tag_of_that_name() {
    let tags: Arc<[_]> = [("event".to_owned(), "mine".to_owned())].into();
    let labelled = |event: Option<&str>| {
        let publication = Publication { event: event.map(Arc::from), tags: Arc::clone(&tags), ..full_publication() };
        by_json(&published(publication)).push.unwrap().r#pub.unwrap().tags["event"].clone()
    };
    assert_eq!(labelled(Some("theirs")), "theirs");
    assert_eq!(labelled(None), "mine");
}

fn by_json(broadcast: &Broadcast) -> Reply {
    serde_json::from_slice(&payload(encoded(&Json, broadcast).unwrap())).unwrap()
}

fn by_protobuf(broadcast: &Broadcast) -> Reply {
    Reply::decode_length_delimited(payload(encoded(&Protobuf, broadcast).unwrap())).unwrap()
}

/// The frame, which must not disturb what stands before it.
fn encoded(encoder: &dyn Encoder, broadcast: &Broadcast) -> Result<Bytes, Disconnect> {
    let mut out = BytesMut::from("a\nb");
    let outcome = encoder.encode(broadcast, &mut out);
    let frame = out.split_off(3).freeze();
    assert_eq!(out, "a\nb");
    match outcome {
        Ok(()) => Ok(frame),
        Err(disconnect) => {
            assert!(frame.is_empty());
            Err(disconnect)
        }
    }
}

fn published(publication: Publication) -> Broadcast {
    Broadcast::Publication(Arc::new(publication))
}

fn full_publication() -> Publication {
    Publication {
        channel: Channel::new("chat:1").unwrap(),
        payload: Payload::json("{ \"a\" :1}".into()),
        event: Some("typing".into()),
        tags: [("k\n".to_owned(), "\"v\"".to_owned())].into(),
        info: Some(client_info()),
        exclude: None,
        stamp: Some(Stamp { position: Position { epoch: "e".into(), offset: 7 }, prev: 6 }),
        time_ms: 1,
    }
}

fn client_info() -> ClientInfo {
    ClientInfo { user: "ann \"x\"".into(), client: "c1".into(), conn_info: Some("{\"n\":1}".into()), chan_info: None }
}
