use proptest::option;
use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::{ClientInfo, Disconnect, Grant, Overrides, Selection};

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
    let rest = (option::of(".{0,8}"), tags, option::of(info()), any::<Option<[u8; 16]>>(), stamp, any::<i64>());
    (name(), payload, rest).prop_map(|(channel, payload, (event, tags, info, exclude, stamp, time_ms))| {
        let stamp = stamp
            .map(|(epoch, offset, prev)| Stamp { position: Position { epoch: Epoch::from(&*epoch), offset }, prev });
        let event = event.map(Into::into);
        Broadcast::Publication(Arc::new(Publication {
            channel,
            payload,
            event,
            tags: tags.into(),
            info,
            exclude,
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
        (".{0,8}", control()).prop_map(|(from, body)| Envelope::Control(Box::new(Control { from, body }))),
    ]
}

fn control() -> impl Strategy<Value = ControlBody> {
    prop_oneof![
        (node(), any::<bool>()).prop_map(|(node, greeting)| ControlBody::Announcement { node, greeting }),
        Just(ControlBody::Farewell),
        (any::<u64>(), question()).prop_map(|(number, question)| ControlBody::Request { number, question }),
        (any::<u64>(), answer()).prop_map(|(number, answer)| ControlBody::Reply { number, answer }),
    ]
}

fn node() -> impl Strategy<Value = NodeInfo> {
    let state = prop_oneof![Just(NodeState::Active), Just(NodeState::Draining), Just(NodeState::Unknown)];
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    let rest = (state, traffic());
    (".{0,8}", ".{0,8}", any::<u32>(), numbers, rest).prop_map(|(name, version, uptime, numbers, (state, traffic))| {
        let (clients, users, subscriptions, channels, workers) = numbers;
        let uptime = Duration::from_millis(uptime.into());
        NodeInfo { name, version, uptime, clients, users, subscriptions, channels, workers, state, traffic }
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let times = any::<[u32; 2]>().prop_map(|micros| micros.map(|micros| Duration::from_micros(micros.into())));
    (any::<[u64; 4]>(), times).prop_map(
        |([publications, deliveries, delivered_bytes, waiting_bytes], [median, p99])| Traffic {
            publications,
            deliveries,
            delivered_bytes,
            waiting_bytes,
            median,
            p99,
        },
    )
}

fn question() -> impl Strategy<Value = Question> {
    // Boxed where it is large: a test's thread has a small stack.
    prop_oneof![
        command().prop_map(Question::Command).boxed(),
        Just(Question::Info),
        (".{0,8}", any::<u32>(), option::of(name()))
            .prop_map(|(pattern, limit, after)| Question::Channels { pattern, limit, after })
            .boxed(),
        any::<u32>().prop_map(|limit| Question::Report { limit }),
        (option::of(".{0,8}"), option::of(name()), ".{0,8}", any::<u32>())
            .prop_map(|(user, channel, after, limit)| {
                Question::Connections(ConnectionQuery { user, channel, after, limit })
            })
            .boxed(),
        ".{0,8}".prop_map(|node| Question::Drain { node }),
        (any::<u64>(), 0.001..1e6_f64).prop_map(|(keep, per_second)| Question::Rebalance { keep, per_second }),
        Just(Question::Unknown),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let selection = || {
        (".{0,8}", option::of(".{0,8}"), proptest::collection::vec(".{0,8}", 0..3))
            .prop_map(|(user, client, except)| Selection { user, client, except })
    };
    let since = option::of(("[a-z0-9]{0,64}", any::<u64>()))
        .prop_map(|since| since.map(|(epoch, offset)| Position { epoch: Epoch::from(&*epoch), offset }));
    let disconnect = prop_oneof![
        proptest::sample::select(Disconnect::ALL),
        (4000..5000_u16, ".{0,8}").prop_map(|(code, reason)| Disconnect::Application { code, reason: reason.into() }),
    ];
    prop_oneof![
        (selection(), name(), grant(), since).prop_map(|(selection, channel, grant, since)| Command::Subscribe {
            selection,
            channel,
            grant,
            since
        }),
        (selection(), name()).prop_map(|(selection, channel)| Command::Unsubscribe { selection, channel }),
        (selection(), disconnect).prop_map(|(selection, disconnect)| Command::Disconnect { selection, disconnect }),
        (selection(), any::<Option<u64>>())
            .prop_map(|(selection, expire_at)| Command::Refresh { selection, expire_at }),
        (".{0,8}", any::<u64>()).prop_map(|(user, before)| Command::Revoke { user, before }),
    ]
}

fn grant() -> impl Strategy<Value = Grant> {
    let json = || option::of(some_bytes());
    (any::<Option<u64>>(), json(), json(), any::<[Option<bool>; 5]>()).prop_map(|(expire_at, info, data, flags)| {
        let [presence, join_leave, force_join_leave, recovery, positioning] = flags;
        let overrides = Overrides { presence, join_leave, force_join_leave, recovery, positioning };
        Grant { expire_at, info, data, overrides }
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    let channels = (proptest::collection::vec((name(), any::<u64>()), 0..4), any::<bool>());
    prop_oneof![
        Just(Answer::Done),
        Just(Answer::Unsupported),
        node().prop_map(Answer::Info),
        channels.prop_map(|(channels, more)| Answer::Channels(ChannelList { channels, more })),
        report().prop_map(Answer::Report).boxed(),
        connections().prop_map(Answer::Connections).boxed(),
    ]
}

fn connections() -> impl Strategy<Value = ConnectionList> {
    let connection = (".{0,8}", ".{0,8}", ".{0,8}", any::<u64>())
        .prop_map(|(client, user, protocol, subscriptions)| Connection { client, user, protocol, subscriptions });
    (proptest::collection::vec(connection, 0..3), any::<bool>())
        .prop_map(|(connections, more)| ConnectionList { connections, more })
}

fn report() -> impl Strategy<Value = Report> {
    let rate = || 0.0..1e9_f64;
    let hot = (name(), any::<u64>(), rate(), rate()).prop_map(|(channel, subscribers, publications, deliveries)| {
        HotChannel { channel, subscribers, publications_per_second: publications, deliveries_per_second: deliveries }
    });
    let slow = (".{0,8}", ".{0,8}", ".{0,8}", any::<u64>())
        .prop_map(|(client, user, protocol, waiting_bytes)| SlowClient { client, user, protocol, waiting_bytes });
    (proptest::collection::vec(hot, 0..3), proptest::collection::vec(slow, 0..3))
        .prop_map(|(channels, clients)| Report { channels, clients })
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
    // The same one level down: a node says something that only later versions say.
    assert_eq!(Envelope::decode(control_of(&[0x0a, 0x01, b'n', 0x4a, 0x00])), Err(InvalidEnvelope));
}

#[test]
fn what_a_later_version_asks_is_answered() {
    let read = |control: &[u8]| match Envelope::decode(control_of(control)) {
        Ok(Envelope::Control(control)) => control.body,
        other => panic!("{other:?}"),
    };
    // From "n" a request with the number 7 and a question in field 100; then a reply like that.
    let request = [0x0a, 0x01, b'n', 0x22, 0x05, 0x08, 0x07, 0xa2, 0x06, 0x00];
    assert_eq!(read(&request), ControlBody::Request { number: 7, question: Question::Unknown });
    let reply = [0x0a, 0x01, b'n', 0x2a, 0x05, 0x08, 0x07, 0xa2, 0x06, 0x00];
    assert_eq!(read(&reply), ControlBody::Reply { number: 7, answer: Answer::Unsupported });
}

#[test]
fn a_command_that_cannot_be_read_is_answered() {
    for unsubscribe in [
        proto::Unsubscribe { selection: Some(proto::Selection::default()), channel: "no channel".into() },
        proto::Unsubscribe { selection: None, channel: "news".into() },
    ] {
        let question = Some(proto::request::Question::Unsubscribe(unsubscribe));
        let body = Some(proto::control::Body::Request(proto::Request { number: 1, question }));
        let control = Control::try_from(proto::Control { from: "n".into(), body });
        let body = ControlBody::Request { number: 1, question: Question::Unknown };
        assert_eq!(control, Ok(Control { from: "n".into(), body }));
    }
}

/// An envelope around the bytes of a `Control`.
fn control_of(control: &[u8]) -> Bytes {
    let mut bytes = vec![0x2a, control.len() as u8];
    bytes.extend(control);
    bytes.into()
}

#[test]
fn every_kind_has_its_name_in_the_list() {
    proptest!(|(body in control())| {
        prop_assert!(ControlBody::KINDS.contains(&body.kind()));
    });
}

#[test]
fn reports_are_added_up() {
    let hot = |name: &str, subscribers, publications_per_second, deliveries_per_second| HotChannel {
        channel: Channel::new(name).unwrap(),
        subscribers,
        publications_per_second,
        deliveries_per_second,
    };
    let slow =
        |client: &str, waiting_bytes| SlowClient { client: client.into(), waiting_bytes, ..SlowClient::default() };
    let one = Report { channels: vec![hot("a", 2, 1.0, 2.0), hot("b", 1, 1.0, 1.0)], clients: vec![slow("x", 5)] };
    let two = Report { channels: vec![hot("b", 3, 0.5, 1.5), hot("c", 9, 0.1, 0.9)], clients: vec![slow("y", 7)] };
    let all = Report {
        channels: vec![hot("b", 4, 1.0, 2.5), hot("a", 2, 1.0, 2.0)],
        clients: vec![slow("y", 7), slow("x", 5)],
    };
    assert_eq!(Report::sum([one, two], 2), all);
}
