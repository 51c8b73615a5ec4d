//! Socket.IO 4: Engine.IO 4 over WebSocket alone, one namespace, text packets.
//!
//! Rooms are the application's business, so the events are ours: `subscribe` with an acknowledgement joins a room,
//! `publish` emits to it, and what a room gets is called `message`.

use super::Step;
use super::numbers::Numbers;
use crate::frames::{Fault, Tally, client_text, text};

pub(super) fn opening(channel: Option<&str>) -> Vec<Step> {
    let step = |send| Step { send, replies: 1 };
    // The server's open packet, the namespace, the room.
    let mut steps = vec![step(Vec::new()), step(client_text(b"40"))];
    if let Some(channel) = channel {
        steps.push(step(client_text(format!(r#"420["subscribe","{channel}"]"#).as_bytes())));
    }
    steps
}

pub(super) fn publish(channel: &str, data: &str) -> Vec<u8> {
    client_text(format!(r#"42["publish","{channel}",{data}]"#).as_bytes())
}

pub(super) fn read(payload: &[u8], numbers: &mut Numbers, tally: &mut Tally) -> Result<(), Fault> {
    match payload {
        [b'4', b'2', event @ ..] => tally.publication(numbers.read(event)?),
        b"2" => tally.pings += 1,
        // Open, namespace connected, event acknowledged.
        [b'0', ..] | [b'4', b'0' | b'3', ..] => tally.replies += 1,
        [b'4', b'4', reason @ ..] => return Err(Fault::Refused(text(reason))),
        _ => return Err(Fault::Unexpected(text(payload))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Dialect::SocketIo;
    use super::super::numbers::payload;
    use super::super::testing::{scan, scan_split};
    use crate::frames::{Fault, NumberRun, Tally, server_text};

    #[test]
    fn packets_are_told_apart() {
        let mut stream = Vec::new();
        for packet in [r#"0{"sid":"a","pingInterval":25000}"#, r#"40{"sid":"b"}"#, "430[]", "2"] {
            stream.extend(server_text(packet.as_bytes()));
        }
        for number in 1..4 {
            stream.extend(server_text(format!(r#"42["message",{}]"#, payload(number, 60)).as_bytes()));
        }
        let expected = Tally { runs: vec![NumberRun { first: 1, count: 3 }], replies: 3, pings: 1, ..Tally::default() };
        scan_split(SocketIo, &stream, &expected);
    }

    #[test]
    fn a_refusal_and_a_foreign_packet_are_faults() {
        let refused = server_text(br#"44{"message":"not authorized"}"#);
        assert!(matches!(scan(SocketIo, &[&refused]), Err(Fault::Refused(text)) if text.contains("authorized")));
        for foreign in ["41", "1", r#"42["message","else"]"#] {
            let frame = server_text(foreign.as_bytes());
            assert!(matches!(scan(SocketIo, &[&frame]), Err(Fault::Unexpected(_))), "{foreign}");
        }
    }
}
