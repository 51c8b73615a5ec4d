//! The client protocol of NATS: lines, and payloads of announced length, in binary frames whose borders mean nothing.

use memchr::memchr;

use super::Step;
use super::numbers::Numbers;
use crate::frames::{Fault, MAX_LENGTH, Tally, client_binary, text};

pub(super) fn opening(channel: Option<&str>) -> Vec<Step> {
    let mut commands =
        r#"CONNECT {"verbose":false,"pedantic":false,"echo":true,"lang":"loadtest","version":"1"}"#.to_owned();
    commands.push_str("\r\n");
    if let Some(channel) = channel {
        commands.push_str(&format!("SUB {channel} 1\r\n"));
    }
    // Nothing answers a subscription; what stands before a ping is done when its pong comes.
    commands.push_str("PING\r\n");
    // The server's INFO comes first.
    vec![Step { send: Vec::new(), replies: 1 }, Step { send: client_binary(commands.as_bytes()), replies: 1 }]
}

pub(super) fn publish(channel: &str, data: &str) -> Vec<u8> {
    client_binary(format!("PUB {channel} {}\r\n{data}\r\n", data.len()).as_bytes())
}

/// Reads complete messages; how many bytes they were.
pub(super) fn read(bytes: &[u8], numbers: &mut Numbers, tally: &mut Tally) -> Result<usize, Fault> {
    let mut used = 0;
    while let Some(end) = memchr(b'\n', &bytes[used..]) {
        let line = bytes[used..used + end].trim_ascii_end();
        let behind = used + end + 1;
        if line.starts_with(b"MSG ") {
            let length = payload_length(line)?;
            let Some(message) = bytes.get(behind..behind + length + 2) else {
                break;
            };
            tally.publication(numbers.read(&message[..length])?);
            used = behind + length + 2;
            continue;
        }
        match line {
            b"PING" => tally.pings += 1,
            b"PONG" => tally.replies += 1,
            b"+OK" => {}
            line if line.starts_with(b"INFO ") => tally.replies += 1,
            line if line.starts_with(b"-ERR") => return Err(Fault::Refused(text(line))),
            line => return Err(Fault::Unexpected(text(line))),
        }
        used = behind;
    }
    Ok(used)
}

/// `MSG subject subscription [reply-to] length`
fn payload_length(line: &[u8]) -> Result<usize, Fault> {
    let digits = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse::<usize>().ok())
        .filter(|length| *length <= MAX_LENGTH)
        .ok_or_else(|| Fault::Unexpected(text(line)))
}

#[cfg(test)]
mod tests {
    use super::super::Dialect::Nats;
    use super::super::numbers::payload;
    use super::super::testing::{scan, scan_split};
    use crate::frames::{Fault, NumberRun, Tally, server_binary};

    fn message(number: u64) -> String {
        format!("MSG bench 1 60\r\n{}\r\n", payload(number, 60))
    }

    #[test]
    fn messages_go_over_the_borders_of_frames() {
        let text = format!("INFO {{\"a\":1}}\r\nPONG\r\n{}{}PING\r\n+OK\r\n{}", message(5), message(6), message(7));
        let expected = Tally { runs: vec![NumberRun { first: 5, count: 3 }], replies: 2, pings: 1, ..Tally::default() };
        scan_split(Nats, &server_binary(text.as_bytes()), &expected);
        for at in 0..text.len() {
            let (left, right) = text.as_bytes().split_at(at);
            let frames = [server_binary(left), server_binary(right)].concat();
            assert_eq!(scan(Nats, &[&frames]).as_ref(), Ok(&expected), "a frame's border at {at}");
        }
    }

    #[test]
    fn errors_are_faults() {
        let refused = server_binary(b"-ERR 'Authorization Violation'\r\n");
        assert!(matches!(scan(Nats, &[&refused]), Err(Fault::Refused(_))));
        for foreign in ["HMSG a 1 1 1\r\n", "MSG bench 1 x\r\n", "MSG bench 1 99999999999\r\n", "MSG b 1 2\r\nab\r\n"] {
            let frame = server_binary(foreign.as_bytes());
            assert!(matches!(scan(Nats, &[&frame]), Err(Fault::Unexpected(_))), "{foreign}");
        }
    }
}
