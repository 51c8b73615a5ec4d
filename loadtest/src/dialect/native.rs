//! Fanwire's native protocol, JSON in text frames: a line is a command, a reply or a push.

use memchr::{memchr, memmem};

use super::Step;
use super::numbers::Numbers;
use crate::frames::{Fault, Tally, client_text, text};

pub(super) fn opening(channel: Option<&str>, token: Option<&str>) -> Vec<Step> {
    let token = token.map(|token| format!(r#""token":"{token}""#)).unwrap_or_default();
    let connect = format!(r#"{{"id":1,"connect":{{{token}}}}}"#);
    let commands = match channel {
        Some(channel) => format!("{connect}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}"),
        None => connect,
    };
    vec![Step { send: client_text(commands.as_bytes()), replies: 1 + u64::from(channel.is_some()) }]
}

/// The frame that subscribes.
pub(crate) fn subscribe(id: u64, channel: &str) -> Vec<u8> {
    client_text(format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#).as_bytes())
}

/// The frame that subscribes and asks for what came after a position.
pub(crate) fn recover(id: u64, channel: &str, epoch: &str, offset: u64) -> Vec<u8> {
    let position = format!(r#""recover":true,"epoch":"{epoch}","offset":{offset}"#);
    client_text(format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}",{position}}}}}"#).as_bytes())
}

/// The frame that gives a subscription up.
pub(crate) fn unsubscribe(id: u64, channel: &str) -> Vec<u8> {
    client_text(format!(r#"{{"id":{id},"unsubscribe":{{"channel":"{channel}"}}}}"#).as_bytes())
}

pub(super) fn publish(number: u64, channel: &str, data: &str) -> Vec<u8> {
    // A command without a number would not be answered: what is refused must be seen.
    let number = number + 1;
    client_text(format!(r#"{{"id":{number},"publish":{{"channel":"{channel}","data":{data}}}}}"#).as_bytes())
}

pub(super) fn read(mut payload: &[u8], numbers: &mut Numbers, tally: &mut Tally) -> Result<(), Fault> {
    while !payload.is_empty() {
        let end = memchr(b'\n', payload).unwrap_or(payload.len());
        read_line(&payload[..end], numbers, tally)?;
        payload = payload.get(end + 1..).unwrap_or_default();
    }
    Ok(())
}

fn read_line(line: &[u8], numbers: &mut Numbers, tally: &mut Tally) -> Result<(), Fault> {
    if line.starts_with(br#"{"push":"#) {
        if numbers.at_usual_place(line) || memmem::find(line, br#""pub":"#).is_some() {
            tally.publication(numbers.read(line)?);
        }
    } else if line == b"{}" {
        tally.pings += 1;
    } else if memmem::find(line, br#""error":"#).is_some() {
        return Err(Fault::Refused(text(line)));
    } else {
        tally.replies += 1;
        tally.recovered += u64::from(memmem::find(line, br#""recovered":true"#).is_some());
        if let Some(at) = memmem::find(line, br#""publications":["#) {
            numbers.read_all(&line[at..], tally)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Dialect::Native;
    use super::super::numbers::payload;
    use super::super::testing::scan;
    use crate::frames::{Fault, NumberRun, Tally, server_text};

    fn publication(sequence: u64, size: u32) -> String {
        format!(r#"{{"push":{{"channel":"bench","pub":{{"data":{}}}}}}}"#, payload(sequence, size))
    }

    /// Every header form, several lines in one frame, several frames in one write.
    fn stream() -> Vec<u8> {
        let reply = r#"{"id":2,"subscribe":{}}"#;
        let join = r#"{"push":{"channel":"bench","join":{"info":{"client":"c"}}}}"#;
        let mut bytes = server_text(format!("{reply}\n{}", publication(7, 40)).as_bytes());
        bytes.extend(server_text(publication(8, 60).as_bytes()));
        bytes.extend([0x89, 2, b'h', b'i']);
        bytes.extend(server_text(b"{}"));
        let lines: Vec<String> = (9..14).map(|n| publication(n, 128)).collect();
        bytes.extend(server_text(format!("{}\n", lines.join("\n")).as_bytes()));
        bytes.extend(server_text(join.as_bytes()));
        bytes.extend(server_text(publication(14, 70_000).as_bytes()));
        bytes
    }

    fn expected() -> Tally {
        Tally {
            runs: vec![NumberRun { first: 7, count: 8 }],
            replies: 1,
            pings: 1,
            frame_pings: vec![b"hi".to_vec()],
            ..Tally::default()
        }
    }

    #[test]
    fn every_split_gives_the_same_tally() {
        let stream = stream();
        assert_eq!(scan(Native, &[&stream]), Ok(expected()));
        // Inside the long publication's padding one split is like the next.
        for at in (0..2_000).chain(stream.len() - 10..stream.len()) {
            let (left, right) = stream.split_at(at);
            assert_eq!(scan(Native, &[left, right]), Ok(expected()), "split at {at}");
        }
    }

    #[test]
    fn byte_by_byte_gives_the_same_tally() {
        let stream = stream();
        let bytes: Vec<&[u8]> = stream[..2_000].chunks(1).collect();
        let mut parts = bytes;
        parts.push(&stream[2_000..]);
        assert_eq!(scan(Native, &parts), Ok(expected()));
    }

    #[test]
    fn a_hole_a_repetition_and_a_swap_are_seen() {
        for order in [[1, 3, 4], [1, 1, 2], [2, 1, 3]] {
            let frames: Vec<u8> = order.iter().flat_map(|n| server_text(publication(*n, 128).as_bytes())).collect();
            let tally = scan(Native, &[&frames]).unwrap();
            assert_eq!(tally.publications(), 3);
            assert!(tally.runs.len() > 1, "{order:?}");
        }
    }

    #[test]
    fn the_number_is_found_wherever_it_stands() {
        let moved = format!(r#"{{"push":{{"channel":"bench","pub":{{"offset":3,"data":{}}}}}}}"#, payload(2, 128));
        let mut frames = server_text(publication(1, 128).as_bytes());
        frames.extend(server_text(moved.as_bytes()));
        frames.extend(server_text(publication(3, 128).as_bytes()));
        let tally = scan(Native, &[&frames]).unwrap();
        assert_eq!(tally.runs, [NumberRun { first: 1, count: 3 }]);
    }

    #[test]
    fn what_was_missed_comes_with_a_reply() {
        let missed: Vec<String> = (5..8).map(|n| format!(r#"{{"offset":{n},"data":{}}}"#, payload(n, 50))).collect();
        let reply = format!(
            r#"{{"id":2,"subscribe":{{"recoverable":true,"publications":[{}],"recovered":true}}}}"#,
            missed.join(",")
        );
        let frames = [server_text(reply.as_bytes()), server_text(publication(8, 50).as_bytes())].concat();
        let expected =
            Tally { runs: vec![NumberRun { first: 5, count: 4 }], replies: 1, recovered: 1, ..Tally::default() };
        assert_eq!(scan(Native, &[&frames]), Ok(expected));
    }

    #[test]
    fn faults_say_what_happened() {
        let error = server_text(br#"{"id":1,"error":{"code":103,"message":"permission denied"}}"#);
        assert!(matches!(scan(Native, &[&error]), Err(Fault::Refused(text)) if text.contains("103")));
        let close = [&[0x88, 7, 0x0b, 0xb9][..], b"bye!!"].concat();
        assert_eq!(scan(Native, &[&close]), Err(Fault::Closed { code: 3001, reason: "bye!!".to_owned() }));
        assert!(matches!(scan(Native, &[&[0x81, 0x80, 0, 0, 0, 0]]), Err(Fault::Unexpected(_))));
        assert!(matches!(scan(Native, &[&[0x82, 2, b'{', b'}']]), Err(Fault::Unexpected(_))));
        let foreign = server_text(br#"{"push":{"channel":"x","pub":{"data":1}}}"#);
        assert!(matches!(scan(Native, &[&foreign]), Err(Fault::Unexpected(_))));
    }
}
