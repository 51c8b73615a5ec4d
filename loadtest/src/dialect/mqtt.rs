//! MQTT 3.1.1, QoS 0, in binary frames whose borders mean nothing. Without keep-alive: a broker sends no pings.

use super::Step;
use super::numbers::Numbers;
use crate::frames::{Fault, Tally, client_binary, text};

pub(super) fn opening(channel: Option<&str>) -> Vec<Step> {
    // Protocol level 4, clean session, no keep-alive, and a client id of the broker's choice.
    let mut packets = packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", b"\0\0"]);
    if let Some(channel) = channel {
        packets.extend(packet(0x82, &[&[0, 1], &string(channel), &[0]]));
    }
    vec![Step { send: client_binary(&packets), replies: 1 + u64::from(channel.is_some()) }]
}

pub(super) fn publish(channel: &str, data: &str) -> Vec<u8> {
    client_binary(&packet(0x30, &[&string(channel), data.as_bytes()]))
}

/// Reads complete packets; how many bytes they were.
pub(super) fn read(bytes: &[u8], numbers: &mut Numbers, tally: &mut Tally) -> Result<usize, Fault> {
    let mut used = 0;
    while let Some((first, head, length)) = header(&bytes[used..])? {
        let Some(body) = bytes.get(used + head..used + head + length) else {
            break;
        };
        match (first, body) {
            (0x30, [a, b, rest @ ..]) => {
                let topic = usize::from(u16::from_be_bytes([*a, *b]));
                let data = rest.get(topic..).ok_or_else(|| Fault::Unexpected(text(body)))?;
                tally.publication(numbers.read(data)?);
            }
            // Connected; subscribed with QoS 0.
            (0x20, [_, 0]) | (0x90, [_, _, 0]) => tally.replies += 1,
            (0x20 | 0x90, _) => return Err(Fault::Refused(format!("packet {first:#x} {body:?}"))),
            _ => return Err(Fault::Unexpected(format!("packet {first:#x}"))),
        }
        used += head + length;
    }
    Ok(used)
}

/// First byte, header length and body length; `None` if the header is not complete.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Fault> {
    let [first, digits @ ..] = bytes else {
        return Ok(None);
    };
    let mut length = 0;
    for (place, digit) in digits.iter().take(4).enumerate() {
        length |= usize::from(digit & 0x7f) << (7 * place);
        if digit & 0x80 == 0 {
            return Ok(Some((*first, place + 2, length)));
        }
    }
    if digits.len() >= 4 {
        return Err(Fault::Unexpected("a length of more than four bytes".to_owned()));
    }
    Ok(None)
}

fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut packet = vec![first];
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        packet.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend(parts.concat());
    packet
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::Dialect::Mqtt;
    use super::super::numbers::payload;
    use super::super::testing::{scan, scan_split};
    use super::*;
    use crate::frames::{NumberRun, server_binary};

    fn message(number: u64, size: u32) -> Vec<u8> {
        packet(0x30, &[&string("bench"), payload(number, size).as_bytes()])
    }

    #[test]
    fn packets_go_over_the_borders_of_frames() {
        let packets =
            [packet(0x20, &[&[0, 0]]), packet(0x90, &[&[0, 1, 0]]), message(1, 60), message(2, 200), message(3, 60)]
                .concat();
        let expected = Tally { runs: vec![NumberRun { first: 1, count: 3 }], replies: 2, ..Tally::default() };
        scan_split(Mqtt, &server_binary(&packets), &expected);
        for at in 0..packets.len() {
            let (left, right) = packets.split_at(at);
            let frames = [server_binary(left), server_binary(right)].concat();
            assert_eq!(scan(Mqtt, &[&frames]).as_ref(), Ok(&expected), "a frame's border at {at}");
        }
    }

    #[test]
    fn long_packets_have_long_lengths() {
        for size in [127 - 7, 128 - 7, 16_383 - 7, 16_384 - 7, 60_000] {
            let tally = scan(Mqtt, &[&server_binary(&message(9, size))]).unwrap();
            assert_eq!(tally.runs, [NumberRun { first: 9, count: 1 }], "{size}");
        }
    }

    #[test]
    fn refusals_and_foreign_packets_are_faults() {
        for refused in [packet(0x20, &[&[0, 5]]), packet(0x90, &[&[0, 1, 0x80]])] {
            assert!(matches!(scan(Mqtt, &[&server_binary(&refused)]), Err(Fault::Refused(_))));
        }
        for foreign in [vec![0xd0, 0], vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f], packet(0x30, &[&[0, 9, b'x']])] {
            assert!(matches!(scan(Mqtt, &[&server_binary(&foreign)]), Err(Fault::Unexpected(_))), "{foreign:?}");
        }
    }
}
