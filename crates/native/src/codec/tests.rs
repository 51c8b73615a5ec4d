use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use fanwire_wire::{Channel, ClientInfo, Disconnect, Payload, Position, Publication, Stamp};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::{Encoding, Malformed};
use crate::convert;
use crate::proto::{self, Command, Reply};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

proptest! {
    #[test]
    fn commands_mean_the_same_in_both_encodings(commands in vec(command(), 1..4)) {
        for encoding in ENCODINGS {
            prop_assert_eq!(read_all(encoding, message(encoding, &commands)), Ok(commands.clone()));
        }
    }

    #[test]
    fn replies_mean_the_same_in_both_encodings(reply in reply()) {
        for encoding in ENCODINGS {
            prop_assert_eq!(written(encoding, &reply), reply.clone());
        }
    }

    #[test]
    fn answers_share_what_was_missed(reply in reply(), others in (any::<u32>(), any::<bool>()), missed in vec(missed(), 0..4)) {
        let Reply { subscribe: Some(result), .. } = reply else { return Ok(()) };
        for encoding in ENCODINGS {
            let shared = encoding.missed(&missed).unwrap();
            let publications: Vec<_> =
                missed.iter().map(|missed| convert::publication(encoding, missed).unwrap()).collect();
            // Two answers, and the same where each has a list of its own.
            for (id, recoverable) in [(1, true), others] {
                let result = proto::SubscribeResult { recoverable, publications: Vec::new(), ..result.clone() };
                let alone = proto::SubscribeResult { publications: publications.clone(), ..result.clone() };
                let [result, alone] =
                    [result, alone].map(|result| Reply { id, subscribe: Some(result), ..Reply::default() });
                let mut frame = BytesMut::from("before");
                encoding.append_with(&result, &shared, &mut frame).unwrap();
                prop_assert_eq!(&frame[..6], b"before");
                prop_assert_eq!(read_back(encoding, frame.split_off(6).freeze()), written(encoding, &alone));
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        for encoding in ENCODINGS {
            for command in encoding.commands(bytes.clone().into()) {
                prop_assert!(command.is_ok() || command == Err(Malformed));
            }
        }
    }

    #[test]
    fn no_broken_message_panics(
        commands in vec(command(), 1..4),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        for encoding in ENCODINGS {
            let mut message = Vec::from(message(encoding, &commands));
            let place = place.index(message.len());
            if cut { message.truncate(place) } else { message[place] = byte }
            // Whether a changed byte still makes a command is a matter of luck.
            let _ = read_all(encoding, message.into());
        }
    }
}

#[test]
fn json_messages() {
    let read = |text: &'static str| read_all(Encoding::Json, text.into());
    let history = |id| Command { id, history: Some(proto::HistoryRequest::default()), ..Command::default() };
    assert_eq!(read("{}"), Ok(vec![Command::default()]));
    assert_eq!(read("{}\n{\"id\":1,\"history\":{}}\n"), Ok(vec![Command::default(), history(1)]));
    assert_eq!(
        read(" {\"id\": 2, \"history\": {\"since\": null, \"limit\": null}, \"rpc\": null}\r\n"),
        Ok(vec![history(2)])
    );
    assert_eq!(read("{\"id\":1,\"history\":{\"zzz\":[{}]},\"zzz\":1}"), Ok(vec![history(1)]));
    for bad in [
        "",
        "\n",
        "{}\n\n",
        "\n{}",
        "{}\n\n{}",
        "[]",
        "1",
        "{",
        "{}{}",
        "{\"id\":-1}",
        "{\"id\":\"1\"}",
        "{\"history\":1}",
    ] {
        assert_eq!(read(bad).map_err(|(_, error)| error), Err(Malformed), "{bad:?}");
    }
}

#[test]
fn what_stands_before_a_broken_command_is_read() {
    let read = read_all(Encoding::Json, "{\"id\":1}\n{\"id\":2}\n{".into());
    assert_eq!(read.map_err(|(before, _)| before.len()), Err(2));
    let read = read_all(Encoding::Protobuf, Bytes::from_static(&[2, 8, 1, 2, 8, 2, 9]));
    assert_eq!(read.map_err(|(before, _)| before.len()), Err(2));
}

#[test]
fn json_data_is_kept_as_written() {
    let data = |value: &str| {
        let text = format!("{{\"id\":1,\"publish\":{{\"channel\":\"a\",\"data\": {value} }}}}");
        let commands = read_all(Encoding::Json, text.into()).unwrap();
        String::from_utf8(commands[0].publish.clone().unwrap().data.into()).unwrap()
    };
    for value in ["{\"a\": [1.00, \"\\u00e4\"]}", "1e400", "\"ä\"", "null", "false"] {
        assert_eq!(data(value), value);
    }
}

#[test]
fn json_nests_only_so_deep() {
    let nested = |depth: usize| {
        let data = "[".repeat(depth) + "\"]]]\\\"]\"" + &"]".repeat(depth);
        read_all(Encoding::Json, format!("{{\"id\":1,\"publish\":{{\"data\":{data}}}}}").into())
    };
    assert!(nested(30).is_ok());
    assert!(nested(31).is_err());
    assert!(nested(100_000).is_err());
}

#[test]
fn json_replies_stand_on_one_line() {
    let publication = proto::Publication { data: "{\n\"a\":\r\n1}".into(), ..Default::default() };
    let history = proto::HistoryResult { publications: vec![publication], ..Default::default() };
    let mut frame = BytesMut::new();
    let reply = Reply { id: 1, history: Some(history), ..Reply::default() };
    Encoding::Json.append(&reply, &mut frame).unwrap();
    assert_eq!(
        &frame[2..],
        b"{\"id\":1,\"history\":{\"publications\":[{\"data\":{ \"a\":\r 1}}],\"epoch\":\"\",\"offset\":0}}"
    );
}

#[test]
fn json_has_no_place_for_bytes() {
    let result = proto::SubscribeResult { data: Bytes::from_static(&[1]), ..Default::default() };
    let reply = Reply { subscribe: Some(result), ..Reply::default() };
    let mut frame = BytesMut::from("before");
    assert_eq!(Encoding::Json.append(&reply, &mut frame), Err(Disconnect::InappropriateProtocol));
    assert_eq!(frame, "before");
}

#[test]
fn json_has_no_place_for_bytes_that_were_missed() {
    let mut missed = missed_bytes();
    assert_eq!(Encoding::Json.missed(&[Arc::clone(&missed)]), Err(Disconnect::InappropriateProtocol));
    assert!(Encoding::Protobuf.missed(&[Arc::clone(&missed)]).is_ok());
    Arc::make_mut(&mut missed).payload = Payload::text("\n".into());
    let shared = Encoding::Json.missed(&[missed]).unwrap();
    let result = proto::SubscribeResult { data: "[\n1]".into(), ..Default::default() };
    let mut frame = BytesMut::new();
    let reply = Reply { subscribe: Some(result), ..Reply::default() };
    Encoding::Json.append_with(&reply, &shared, &mut frame).unwrap();
    assert_eq!(&frame[2..], br#"{"subscribe":{"publications":[{"data":"\n"}],"data":[ 1]}}"#);
}

#[test]
fn protobuf_messages() {
    let read = |bytes: &'static [u8]| read_all(Encoding::Protobuf, Bytes::from_static(bytes));
    let ping = Command { id: 7, ping: Some(proto::PingRequest {}), ..Command::default() };
    assert_eq!(read(&[0]), Ok(vec![Command::default()]));
    assert_eq!(read(&[0, 4, 8, 7, 90, 0]), Ok(vec![Command::default(), ping.clone()]));
    // Field 1000, unknown, beside it.
    assert_eq!(read(&[7, 8, 7, 90, 0, 0xc0, 0x3e, 1]), Ok(vec![ping]));
    for bad in [&[][..], &[1], &[2, 8], &[0xff; 12], &[3, 90, 5, 0], &[2, 8, 0x80]] {
        assert_eq!(read(bad).map_err(|(_, error)| error), Err(Malformed), "{bad:?}");
    }
}

#[test]
fn protobuf_data_is_not_copied_unless_that_wastes_memory() {
    let publish = |len: usize| Command {
        id: 1,
        publish: Some(proto::PublishRequest { channel: "a".into(), data: vec![1; len].into(), r#type: 0 }),
        ..Command::default()
    };
    let message = message(Encoding::Protobuf, &[publish(5), publish(5000)]);
    let commands = read_all(Encoding::Protobuf, message.clone()).unwrap();
    let shares = |index: usize| {
        let data = commands[index].publish.as_ref().unwrap().data.as_ptr();
        message.as_ptr_range().contains(&data)
    };
    assert_eq!((shares(0), shares(1)), (false, true));
}

fn read_all(encoding: Encoding, message: Bytes) -> Result<Vec<Command>, (Vec<Command>, Malformed)> {
    let mut commands = Vec::new();
    for command in encoding.commands(message) {
        match command {
            Ok(command) => commands.push(command),
            Err(error) => return Err((commands, error)),
        }
    }
    Ok(commands)
}

/// What a client sends.
fn message(encoding: Encoding, commands: &[Command]) -> Bytes {
    match encoding {
        Encoding::Json => {
            let lines: Vec<_> = commands.iter().map(|command| serde_json::to_string(command).unwrap()).collect();
            lines.join("\n").into()
        }
        Encoding::Protobuf => commands.iter().flat_map(Command::encode_length_delimited_to_vec).collect(),
    }
}

/// Writes a reply and reads it as a client would.
fn written(encoding: Encoding, reply: &Reply) -> Reply {
    let mut frame = BytesMut::new();
    encoding.append(reply, &mut frame).unwrap();
    read_back(encoding, frame.freeze())
}

fn read_back(encoding: Encoding, frame: Bytes) -> Reply {
    let mut payload = payload(frame);
    match encoding {
        Encoding::Json => {
            assert!(!payload.contains(&b'\n'));
            serde_json::from_slice(&payload).unwrap()
        }
        Encoding::Protobuf => {
            let reply = Reply::decode_length_delimited(&mut payload).unwrap();
            assert!(payload.is_empty());
            reply
        }
    }
}

/// Takes the header off a frame.
pub(crate) fn payload(mut frame: Bytes) -> Bytes {
    match frame[1] {
        126 => frame.advance(4),
        127 => frame.advance(10),
        _ => frame.advance(2),
    }
    frame
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z0-9:#$]{1,8}", any::<String>()]
}

fn json() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        btree_map(any::<String>(), vec(any::<u8>(), 0..3), 0..3).prop_map(|map| serde_json::to_string(&map).unwrap()),
    ]
    .prop_map(Bytes::from)
}

fn missed_bytes() -> Arc<Publication> {
    Arc::new(Publication {
        channel: Channel::new("chat").unwrap(),
        payload: Payload::binary(Bytes::from_static(&[0xff])),
        event: None,
        tags: [].into(),
        info: None,
        exclude: None,
        stamp: None,
        time_ms: 1,
    })
}

fn subscribe_request() -> impl Strategy<Value = proto::SubscribeRequest> {
    (
        text(),
        text(),
        any::<[bool; 2]>(),
        text(),
        any::<u64>(),
        option::of(Just(proto::FilterNode {})),
        any::<i64>(),
        any::<i32>(),
        option::of(json()),
    )
        .prop_map(|(channel, token, [recover, join_leave], epoch, offset, tf, flag, r#type, data)| {
            proto::SubscribeRequest {
                channel,
                delta: token.clone(),
                token,
                recover,
                epoch,
                offset,
                data: data.unwrap_or_default(),
                join_leave,
                tf,
                flag,
                r#type,
            }
        })
}

fn command() -> impl Strategy<Value = Command> {
    let request = prop_oneof![
        Just(Command::default()),
        (text(), btree_map(text(), subscribe_request(), 0..3), option::of(json()), btree_map(text(), text(), 0..3))
            .prop_map(|(token, subs, data, headers)| Command {
                connect: Some(proto::ConnectRequest {
                    name: token.clone(),
                    version: token.clone(),
                    token,
                    data: data.unwrap_or_default(),
                    subs,
                    headers,
                }),
                ..Command::default()
            }),
        subscribe_request().prop_map(|request| Command { subscribe: Some(request), ..Command::default() }),
        (text(), json(), any::<i32>()).prop_map(|(channel, data, r#type)| Command {
            publish: Some(proto::PublishRequest { channel, data, r#type }),
            ..Command::default()
        }),
        (text(), any::<i32>(), option::of((any::<u64>(), text())), any::<bool>()).prop_map(
            |(channel, limit, since, reverse)| {
                let since = since.map(|(offset, epoch)| proto::StreamPosition { offset, epoch });
                Command {
                    history: Some(proto::HistoryRequest { channel, limit, since, reverse }),
                    ..Command::default()
                }
            }
        ),
        (text(), json()).prop_map(|(channel, data)| Command {
            presence: Some(proto::PresenceRequest { channel: channel.clone() }),
            sub_refresh: Some(proto::SubRefreshRequest { token: channel.clone(), channel: channel.clone() }),
            rpc: Some(proto::RpcRequest { data, method: channel }),
            ..Command::default()
        }),
    ];
    (any::<u32>(), request).prop_map(|(id, command)| Command { id, ..command })
}

fn publication() -> impl Strategy<Value = proto::Publication> {
    let info =
        (text(), text(), option::of(json()), option::of(json())).prop_map(|(user, client, conn_info, chan_info)| {
            proto::ClientInfo {
                user,
                client,
                conn_info: conn_info.unwrap_or_default(),
                chan_info: chan_info.unwrap_or_default(),
            }
        });
    (json(), option::of(info), any::<u64>(), btree_map(text(), text(), 0..3))
        .prop_map(|(data, info, offset, tags)| proto::Publication { data, info, offset, tags })
}

/// What a client may have missed: of every kind that JSON can carry.
fn missed() -> impl Strategy<Value = Arc<Publication>> {
    let payload = prop_oneof![
        json().prop_map(Payload::json),
        Just(Payload::json("{\n\"a\" : 1\r\n}".into())),
        text().prop_map(|text| Payload::text(text.into())),
        json().prop_map(Payload::binary),
    ];
    let info =
        (text(), text(), option::of(json()), option::of(json())).prop_map(|(user, client, conn_info, chan_info)| {
            ClientInfo { user: user.into(), client: client.into(), conn_info, chan_info }
        });
    let labels = (option::of(text()), btree_map(text(), text(), 0..3));
    (payload, option::of(info), option::of(any::<u64>()), labels).prop_map(|(payload, info, offset, (event, tags))| {
        Arc::new(Publication {
            payload,
            event: event.map(Arc::from),
            tags: tags.into_iter().collect(),
            info,
            stamp: offset.map(|offset| Stamp { position: Position { epoch: "e".into(), offset }, prev: 0 }),
            ..Publication::clone(&missed_bytes())
        })
    })
}

fn reply() -> impl Strategy<Value = Reply> {
    let result = (vec(publication(), 0..3), text(), any::<u64>(), any::<[bool; 5]>(), any::<u32>(), option::of(json()))
        .prop_map(|(publications, epoch, offset, flags, ttl, data)| proto::SubscribeResult {
            expires: flags[0],
            ttl,
            recoverable: flags[1],
            epoch,
            publications,
            recovered: flags[2],
            offset,
            positioned: flags[3],
            data: data.unwrap_or_default(),
            was_recovering: flags[4],
        });
    // One thing in each, as in all that is sent.
    (any::<u32>(), text(), result, option::of(publication()), 0..6).prop_map(
        |(id, text, result, publication, which)| {
            let all = replies(id, text, result, publication);
            match which {
                0 => Reply { id, error: all.error, ..Reply::default() },
                1 => Reply { id, push: all.push, ..Reply::default() },
                2 => Reply { id, connect: all.connect, ..Reply::default() },
                3 => Reply { id, rpc: all.rpc, ..Reply::default() },
                4 => Reply { id, history: all.history, ..Reply::default() },
                _ => Reply { id, subscribe: all.subscribe, ..Reply::default() },
            }
        },
    )
}

fn replies(id: u32, text: String, result: proto::SubscribeResult, publication: Option<proto::Publication>) -> Reply {
    Reply {
        id,
        error: Some(proto::Error { code: id, message: text.clone(), temporary: result.expires }),
        push: publication.map(|publication| proto::Push {
            channel: text.clone(),
            join: Some(proto::Join { info: publication.info.clone() }),
            r#pub: Some(publication),
            ..Default::default()
        }),
        connect: Some(proto::ConnectResult {
            client: text.clone(),
            subs: Vec::from([proto::SubscribeResultEntry { key: text, value: Some(result.clone()) }]),
            ttl: result.ttl,
            data: result.data.clone(),
            ..Default::default()
        }),
        rpc: Some(proto::RpcResult { data: result.data.clone() }),
        history: Some(proto::HistoryResult {
            publications: result.publications.clone(),
            epoch: result.epoch.clone(),
            offset: result.offset,
        }),
        subscribe: Some(result),
        ..Reply::default()
    }
}
