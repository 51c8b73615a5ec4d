//! Finished socket bytes: WebSocket frames of a server (RFC 6455 §5.2).
//!
//! Server frames carry no mask, so the same bytes serve every subscriber.

use bytes::{BufMut, BytesMut};

use crate::Disconnect;

/// What a frame carries (RFC 6455 §5.2, opcode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// UTF-8.
    Text = 0x1,
    /// Any bytes.
    Binary = 0x2,
    /// The last frame of a connection.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// Appends a frame whose payload `fill` writes.
///
/// # Errors
///
/// Passes on the error of `fill`; `out` is as before then.
pub fn append<E>(
    out: &mut BytesMut,
    opcode: Opcode,
    fill: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), E> {
    // Room for the commonest header. A payload of another size class moves once.
    let start = out.len();
    out.put_bytes(0, MEDIUM_HEADER);
    if let Err(error) = fill(out) {
        out.truncate(start);
        return Err(error);
    }
    let payload_len = out.len() - start - MEDIUM_HEADER;
    let (header, header_len) = header(opcode, payload_len);
    if header_len < MEDIUM_HEADER {
        out.copy_within(start + MEDIUM_HEADER.., start + header_len);
        out.truncate(start + header_len + payload_len);
    } else if header_len > MEDIUM_HEADER {
        out.put_bytes(0, header_len - MEDIUM_HEADER);
        out.copy_within(start + MEDIUM_HEADER..start + MEDIUM_HEADER + payload_len, start + header_len);
    }
    out[start..start + header_len].copy_from_slice(&header[..header_len]);
    Ok(())
}

/// Appends a frame with a ready payload.
pub fn append_bytes(out: &mut BytesMut, opcode: Opcode, payload: &[u8]) {
    let (header, header_len) = header(opcode, payload.len());
    out.reserve(header_len + payload.len());
    out.put_slice(&header[..header_len]);
    out.put_slice(payload);
}

/// Appends a close frame. A reason over 123 bytes is cut at a character (RFC 6455 §5.5.1).
pub fn append_close(out: &mut BytesMut, code: u16, reason: &str) {
    let mut end = reason.len().min(MAX_CONTROL_PAYLOAD - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = [0; MAX_CONTROL_PAYLOAD];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + end].copy_from_slice(&reason.as_bytes()[..end]);
    append_bytes(out, Opcode::Close, &payload[..2 + end]);
}

/// Appends the close frame that says why a connection ends, in the codes of the native protocol.
pub fn append_disconnect(out: &mut BytesMut, disconnect: &Disconnect) {
    append_close(out, disconnect.code(), disconnect.reason());
}

const MEDIUM_HEADER: usize = 4;
const LARGEST_HEADER: usize = 10;

fn header(opcode: Opcode, payload_len: usize) -> ([u8; LARGEST_HEADER], usize) {
    let mut header = [0; LARGEST_HEADER];
    header[0] = 0x80 | opcode as u8;
    if payload_len < 126 {
        header[1] = payload_len as u8;
        (header, 2)
    } else if let Ok(len) = u16::try_from(payload_len) {
        header[1] = 126;
        header[2..4].copy_from_slice(&len.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
        (header, 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    proptest! {
        #[test]
        fn both_ways_to_append_agree(
            before in 0_usize..20,
            len in prop_oneof![0_usize..200, 65_500_usize..65_600, 70_000_usize..70_010],
        ) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut filled = BytesMut::from(&vec![7; before][..]);
            let mut ready = filled.clone();
            append(&mut filled, Opcode::Binary, |out| {
                out.put_slice(&payload);
                Ok::<_, Infallible>(())
            }).unwrap();
            append_bytes(&mut ready, Opcode::Binary, &payload);
            prop_assert_eq!(&filled, &ready);
            prop_assert_eq!(&filled[filled.len() - len..], &payload[..]);
        }
    }

    #[test]
    fn headers_are_minimal() {
        assert_eq!(header(Opcode::Text, 125).1, 2);
        assert_eq!(header(Opcode::Text, 126).1, 4);
        assert_eq!(header(Opcode::Text, 65_535).1, 4);
        assert_eq!(header(Opcode::Text, 65_536).1, 10);
        assert_eq!(&header(Opcode::Text, 126).0[..4], &[0x81, 126, 0, 126]);
    }

    #[test]
    fn failed_fill_leaves_nothing() {
        let mut out = BytesMut::from("abc");
        assert_eq!(
            append(&mut out, Opcode::Text, |out| {
                out.put_slice(b"x");
                Err(1)
            }),
            Err(1)
        );
        assert_eq!(out, "abc");
    }

    #[test]
    fn close_reasons_are_cut_at_a_character() {
        let mut out = BytesMut::new();
        append_close(&mut out, 3000, &"ä".repeat(100));
        assert_eq!(out[1], 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
