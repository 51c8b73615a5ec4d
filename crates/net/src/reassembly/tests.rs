//! Against a reference that reads one byte at a time and shares no code with what it judges.

use proptest::prelude::*;
use tokio::runtime;

use super::*;

const LIMITS: Limits = Limits {
    max_message_size: 300,
    max_fragments: 4,
    message_timeout: std::time::Duration::from_secs(10),
    control_rate: 1,
    control_burst: 3,
    handshake_timeout: std::time::Duration::from_secs(5),
    max_handshakes: 1,
};

type Verdict = (Vec<Incoming>, Result<(), Disconnect>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_reference(bytes in streams(), cuts in prop::collection::vec(0_usize..2000, 0..12)) {
        let expected = reference(&bytes);
        prop_assert_eq!(&cut_by(&bytes, &[]), &expected);
        prop_assert_eq!(&cut_by(&bytes, &cuts), &expected);
        let everywhere: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(&cut_by(&bytes, &everywhere), &expected);
    }

    #[test]
    fn holds_nothing_between_messages(texts in prop::collection::vec("\\PC{0,40}", 1..4), cut in 0_usize..100) {
        let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
        let mut reassembly = Reassembly::default();
        for part in [&bytes[..cut.min(bytes.len())], &bytes[cut.min(bytes.len())..]] {
            let mut batch = Batch::new();
            reassembly.take(&mut &*part, &mut batch, &mut Decoder::default(), &LIMITS).unwrap();
        }
        prop_assert!(reassembly.partial.is_none());
    }
}

#[test]
fn a_batch_is_bounded() {
    let bytes = frame(0x82, b"").repeat(MAX_BATCH + 3);
    let (mut reassembly, mut unread) = (Reassembly::default(), &bytes[..]);
    let mut take = || {
        let mut batch = Batch::new();
        reassembly.take(&mut unread, &mut batch, &mut Decoder::default(), &LIMITS).unwrap();
        (batch.len(), unread.len() / 6)
    };
    assert_eq!(take(), (MAX_BATCH, 3));
    assert_eq!(take(), (3, 0));
}

#[test]
fn wrong_text_ends_before_its_frame_does() {
    let mut bytes = frame(0x81, "κόσμε\u{10FFFF}".as_bytes());
    bytes.truncate(bytes.len() - 4);
    // 0xF4 begins the last character there is; 0x90 cannot follow it. Eleven bytes come before, the mask is at 2.
    let (verdict_of, mask) = (|bytes: &[u8]| cut_by(bytes, &[]).1, bytes[2..6].to_vec());
    let at = bytes.len() - 6;
    bytes.push(0xF4 ^ mask[at % 4]);
    assert_eq!(verdict_of(&bytes), Ok(()));
    bytes.push(0x90 ^ mask[(at + 1) % 4]);
    assert_eq!(verdict_of(&bytes), Err(Disconnect::InvalidPayload));
}

#[test]
fn an_announced_length_is_not_reserved() {
    let limits = Limits { max_message_size: 1 << 30, ..LIMITS };
    let mut header = vec![0x82, 0xFF];
    header.extend((1_u64 << 30).to_be_bytes());
    header.extend([0; 4]);
    let mut reassembly = Reassembly::default();
    reassembly.take(&mut &header[..], &mut Batch::new(), &mut Decoder::default(), &limits).unwrap();
    assert!(reassembly.partial.unwrap().frame.capacity() < 100);
}

#[test]
fn control_frames_have_a_pace() {
    paused(async {
        let mut reassembly = Reassembly::default();
        let mut ping = || {
            let bytes = frame(0x89, b"");
            reassembly.take(&mut &bytes[..], &mut Batch::new(), &mut Decoder::default(), &LIMITS)
        };
        for _ in 0..LIMITS.control_burst {
            ping().unwrap();
        }
        assert_eq!(ping(), Err(Disconnect::PolicyViolation));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        ping().unwrap();
        assert_eq!(ping(), Err(Disconnect::PolicyViolation));
    });
}

/// What comes out if `bytes` are read in pieces.
fn cut_by(bytes: &[u8], cuts: &[usize]) -> Verdict {
    let mut cuts: Vec<_> = cuts.iter().copied().filter(|cut| *cut < bytes.len()).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    paused(async {
        let (mut reassembly, mut decoder) = (Reassembly::default(), Decoder::default());
        let (mut all, mut from) = (Vec::new(), 0);
        for to in cuts {
            let mut unread = &bytes[from..to];
            from = to;
            while !unread.is_empty() {
                let mut batch = Batch::new();
                let outcome = reassembly.take(&mut unread, &mut batch, &mut decoder, &LIMITS);
                all.extend(batch);
                if outcome.is_err() || matches!(all.last(), Some(Incoming::Close(_))) {
                    return (all, outcome);
                }
            }
        }
        (all, Ok(()))
    })
}

/// What RFC 6455 and the limits say of `bytes`, read one after the other.
fn reference(bytes: &[u8]) -> Verdict {
    let mut incoming = Vec::new();
    let outcome = read_frames(&mut bytes.iter().copied(), &mut incoming);
    (incoming, outcome.map_or_else(|stop| stop.map_or(Ok(()), Err), |()| Ok(())))
}

/// `Err(None)` where the bytes end.
fn read_frames(bytes: &mut impl Iterator<Item = u8>, incoming: &mut Vec<Incoming>) -> Result<(), Option<Disconnect>> {
    let wrong = Some(Disconnect::ProtocolError);
    let mut controls = 0;
    // Opcode, frames and payload of the message under way.
    let mut message: Option<(u8, usize, Vec<u8>)> = None;
    loop {
        let first = bytes.next().ok_or(None)?;
        let (fin, opcode) = (first >= 0x80, first % 16);
        if (first / 16) % 8 != 0 || ![0, 1, 2, 8, 9, 10].contains(&opcode) {
            return Err(wrong);
        }
        if opcode >= 8 {
            if !fin {
                return Err(wrong);
            }
        } else {
            match &message {
                None if opcode == 0 => return Err(wrong),
                Some(_) if opcode != 0 => return Err(wrong),
                Some((_, 4, _)) => return Err(Some(Disconnect::PolicyViolation)),
                _ => {}
            }
        }

        let second = bytes.next().ok_or(None)?;
        if second < 0x80 || opcode >= 8 && second - 0x80 > 125 {
            return Err(wrong);
        }
        let more = match second - 0x80 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut len = u64::from(second - 0x80);
        if more > 0 {
            len = 0;
            for _ in 0..more {
                len = len << 8 | u64::from(bytes.next().ok_or(None)?);
            }
            if more == 2 && len < 126 || more == 8 && (len < 65536 || len >> 63 == 1) {
                return Err(wrong);
            }
        }
        let before = message.as_ref().map_or(0, |(_, _, payload)| payload.len() as u64);
        if opcode < 8 && before + len > 300 {
            return Err(Some(Disconnect::MessageTooBig));
        }
        let mut mask = [0; 4];
        for byte in &mut mask {
            *byte = bytes.next().ok_or(None)?;
        }

        if opcode >= 8 {
            let mut payload = Vec::new();
            for i in 0..len as usize {
                payload.push(bytes.next().ok_or(None)? ^ mask[i % 4]);
            }
            if opcode == 8 {
                let code = match payload[..] {
                    [] => None,
                    [_] => return Err(wrong),
                    [high, low, ..] => Some(u16::from(high) * 256 + u16::from(low)),
                };
                let reserved = [1004, 1005, 1006];
                if code.is_some_and(|code| {
                    !(1000..5000).contains(&code) || (1015..3000).contains(&code) || reserved.contains(&code)
                }) {
                    return Err(wrong);
                }
                if payload.len() > 2 && String::from_utf8(payload[2..].to_vec()).is_err() {
                    return Err(Some(Disconnect::InvalidPayload));
                }
                incoming.push(Incoming::Close(code));
                return Ok(());
            }
            controls += 1;
            if controls > 3 {
                return Err(Some(Disconnect::PolicyViolation));
            }
            incoming.push(if opcode == 9 { Incoming::Ping(payload.into()) } else { Incoming::Message(Message::Pong) });
            continue;
        }

        let (kind, frames, payload) = message.get_or_insert_with(|| (opcode, 0, Vec::new()));
        *frames += 1;
        for i in 0..len as usize {
            payload.push(bytes.next().ok_or(None)? ^ mask[i % 4]);
            let wrong_for_good = |error: std::str::Utf8Error| error.error_len().is_some();
            if *kind == 1 && std::str::from_utf8(payload).is_err_and(wrong_for_good) {
                return Err(Some(Disconnect::InvalidPayload));
            }
        }
        if fin {
            let whole = Bytes::from(mem::take(payload));
            if *kind == 1 && std::str::from_utf8(&whole).is_err() {
                return Err(Some(Disconnect::InvalidPayload));
            }
            incoming.push(Incoming::Message(if *kind == 1 { Message::Text(whole) } else { Message::Binary(whole) }));
            message = None;
        }
    }
}

/// Mostly what a client may send, sometimes with a few bytes changed, sometimes cut off.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let frames = prop::collection::vec(messages(), 0..5).prop_map(|messages| messages.concat());
    let frames = (frames, prop::option::weighted(0.3, odd_headers())).prop_map(|(frames, odd)| match odd {
        Some(odd) => [frames, odd].concat(),
        None => frames,
    });
    let change = (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0x80), Just(0x00), Just(0xFE)]);
    let changes = prop_oneof![Just(Vec::new()), prop::collection::vec(change, 1..3)];
    (frames, changes, prop::option::weighted(0.2, any::<prop::sample::Index>())).prop_map(
        |(mut bytes, changes, end)| {
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len() + 1));
            }
            bytes
        },
    )
}

/// A frame whose length takes more bytes than most, or than it should.
fn odd_headers() -> impl Strategy<Value = Vec<u8>> {
    let near = |len: u64| len.saturating_sub(2)..=len + 2;
    let len = prop_oneof![near(0), near(126), near(300), near(1 << 16), near(1 << 63), any::<u64>()];
    let first = prop_oneof![Just(0x81), Just(0x82), Just(0x02), Just(0x89)];
    (first, any::<bool>(), len).prop_map(|(first, longest, len)| {
        let mut bytes = vec![first];
        if longest {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        } else {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        bytes.extend([0; 4]);
        bytes.resize(bytes.len() + len.min(400) as usize, b'x');
        bytes
    })
}

/// A message in one frame or several, perhaps with a control frame inside or behind it.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof!["\\PC{0,30}", "[äλ𝄞]{0,90}"].prop_map(|text| (0x1, text.into_bytes()));
    let binary = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 120..130),
        prop::collection::vec(any::<u8>(), 290..305),
    ];
    let binary = binary.prop_map(|bytes| (0x2, bytes));
    let cuts = prop_oneof![4 => Just(Vec::new()), 2 => prop::collection::vec(0_usize..300, 1..6)];
    let control = prop_oneof![
        "\\PC{0,30}".prop_map(|text| frame(0x89, text.as_bytes())),
        prop::collection::vec(any::<u8>(), 0..126).prop_map(|bytes| frame(0x8A, &bytes)),
        prop_oneof![Just(1000_u16), 998..1018_u16, 2998..3003_u16, 4998..5002_u16, any::<u16>()]
            .prop_map(|code| frame(0x88, &[&code.to_be_bytes()[..], "tschüß".as_bytes()].concat())),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| frame(0x88, &bytes)),
    ];
    let data = prop_oneof![text, binary];
    (data, cuts, prop::option::weighted(0.3, control)).prop_map(|((opcode, payload), mut cuts, control)| {
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(payload.len()));
        cuts.sort_unstable();
        cuts.push(payload.len());
        let (last, mut from, mut bytes) = (cuts.len() - 1, 0, Vec::new());
        for (i, to) in cuts.into_iter().enumerate() {
            let first_byte = if i == 0 { opcode } else { 0x0 } | if i == last { 0x80 } else { 0 };
            bytes.extend(frame(first_byte, &payload[from..to]));
            from = to;
            if i == 0 {
                bytes.extend(control.iter().flatten());
            }
        }
        bytes
    })
}

/// A masked frame of minimal length.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = vec![first_byte];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Runs something on a clock that stands still.
fn paused<T>(work: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}
