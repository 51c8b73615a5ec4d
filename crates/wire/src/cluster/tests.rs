use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::ClientInfo;

fn some_bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn info() -> impl Strategy<Value = ClientInfo> {
    (".{0,8}", ".{0,8}", option::of(some_bytes()), option::of(some_bytes())).prop_map(
        |(user, client, conn_info, chan_info)| ClientInfo {
            user: user.into(),
            client: client.into(),
            conn_info,
            chan_info,
        },
    )
}

fn name() -> impl Strategy<Value = Channel> {
    "[a-z:$#]{1,20}".prop_map(|name| Channel::new(&name).unwrap())
}

fn publication() -> impl Strategy<Value = Broadcast> {
    let payload = prop_oneof![
        some_bytes().prop_map(Payload::binary),
        ".{0,20}".prop_map(|text| Payload::text(text.into())),
        any::<i64>().prop_map(|number| Payload::json(number.to_string().into())),
    ];
    let tags = proptest::collection::vec((".{0,5}", ".{0,5}"), 0..4);
    let stamp = option::of(("[a-z0-9]{0,64}", any::<u64>(), any::<u64>()));
    let rest = (option::of(".{0,8}"), tags, option::of(info()), stamp, any::<i64>());
    (name(), payload, rest).prop_map(|(channel, payload, (event, tags, info, stamp, time_ms))| {
        let stamp = stamp
            .map(|(epoch, offset, prev)| Stamp { position: Position { epoch: Epoch::from(&*epoch), offset }, prev });
        let event = event.map(Into::into);
        Broadcast::Publication(Arc::new(Publication {
            channel,
            payload,
            event,
            tags: tags.into(),
            info,
            stamp,
            time_ms,
        }))
    })
}

fn envelope() -> impl Strategy<Value = Envelope> {
    prop_oneof![
        publication().prop_map(Envelope::Broadcast),
        (name(), info()).prop_map(|(name, info)| Envelope::Broadcast(Broadcast::Join(name, Arc::new(info)))),
        (name(), info()).prop_map(|(name, info)| Envelope::Broadcast(Broadcast::Leave(name, Arc::new(info)))),
        name().prop_map(Envelope::HistoryRemoved),
        (".{0,8}", any::<u64>()).prop_map(|(node, number)| Envelope::Heartbeat(Heartbeat { node, number })),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(envelope in envelope()) {
        prop_assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
    }

    #[test]
    fn members_are_read_as_written(node in ".{0,8}", info in info()) {
        let member = Member { node, info };
        prop_assert_eq!(Member::decode(member.encode()), Ok(member));
    }

    #[test]
    fn fields_of_a_later_version_are_ignored(envelope in envelope(), data in some_bytes()) {
        let mut bytes = envelope.encode().to_vec();
        bytes.extend([0xa2, 0x06, data.len() as u8]); // field 100, of any bytes
        bytes.extend(&data);
        prop_assert_eq!(Envelope::decode(bytes.into()), Ok(envelope));
    }

    #[test]
    fn hostile_bytes_are_refused_or_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
        let _ = Envelope::decode(bytes.clone().into());
        let _ = Member::decode(bytes.clone().into());
        // Nearly right is worse than wrong.
        let mut near = Envelope::Heartbeat(Heartbeat { node: "n".into(), number: 7 }).encode().to_vec();
        near.truncate(cut);
        near.append(&mut bytes);
        let _ = Envelope::decode(near.into());
    }
}

#[test]
fn text_is_text_only_if_it_is() {
    let publication = proto::Publication {
        channel: "a".into(),
        data: Bytes::from_static(b"\xff"),
        kind: proto::Kind::Text.into(),
        ..proto::Publication::default()
    };
    let envelope = proto::Envelope { body: Some(Body::Publication(publication)), stamp: None };
    let Ok(Envelope::Broadcast(Broadcast::Publication(read))) = Envelope::decode(envelope.encode_to_vec().into())
    else {
        panic!("a publication");
    };
    assert_eq!(read.payload.kind(), PayloadKind::Binary);
}

#[test]
fn a_message_of_a_later_version_is_not_understood() {
    // Field 9, an empty message.
    assert_eq!(Envelope::decode(Bytes::from_static(&[0x4a, 0x00])), Err(InvalidEnvelope));
    assert_eq!(Envelope::decode(Bytes::new()), Err(InvalidEnvelope));
}
