//! Counts publications in what a read brought, and does as little else as possible.
//!
//! The client must never be what limits a measurement, so nothing is decoded: frame headers are
//! walked, lines are told apart by their first bytes, and of a publication only the sequence number
//! is read, at the place where the last one stood.

use memchr::{memchr, memmem};

/// The shortest data that [`payload`] can make.
pub(crate) const MIN_PAYLOAD: u32 = 35;

const SEQUENCE_MARK: &[u8] = br#"{"seq":""#;
const SEQUENCE_DIGITS: usize = 16;

/// Publication data of exactly `size` bytes that carries `sequence`.
pub(crate) fn payload(sequence: u64, size: u32) -> String {
    let padding = "x".repeat(size.saturating_sub(MIN_PAYLOAD) as usize);
    format!(r#"{{"seq":"{sequence:016}","pad":"{padding}"}}"#)
}

/// A client's text frame.
///
/// The mask is zero, which is legal, so that the text can be copied as it is; the server unmasks it
/// like any other.
pub(crate) fn client_text(text: &[u8]) -> Vec<u8> {
    client_frame(0x81, text)
}

/// A client's pong.
pub(crate) fn client_pong(payload: &[u8]) -> Vec<u8> {
    client_frame(0x8a, payload)
}

/// A server's text frame.
pub(crate) fn server_text(text: &[u8]) -> Vec<u8> {
    let mut frame = header(0x81, 0, text.len());
    frame.extend_from_slice(text);
    frame
}

/// What the bytes of one read held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Publications.
    pub(crate) publications: u64,
    /// The first publication's sequence number.
    pub(crate) first: u64,
    /// Publications whose number was not the one before plus one.
    pub(crate) out_of_order: u64,
    /// Replies to commands.
    pub(crate) replies: u64,
    /// Pings of the client protocol, to be answered by as many `{}`.
    pub(crate) pings: u64,
    /// Payloads of WebSocket pings, to be answered by pongs.
    pub(crate) frame_pings: Vec<Vec<u8>>,
}

/// Why a connection is of no more use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The server sent a close frame.
    #[error("closed by the server: {code} {reason:?}")]
    Closed {
        /// The close code, 1005 if there was none.
        code: u16,
        /// The close reason.
        reason: String,
    },
    /// The server answered a command with an error.
    #[error("refused by the server: {0}")]
    Refused(String),
    /// The server sent something that this client does not expect.
    #[error("unexpected from the server: {0}")]
    Unexpected(String),
}

/// Reads frames. One serves all connections; what a connection keeps is its incomplete frame.
#[derive(Debug)]
pub(crate) struct Scanner {
    sequence_mark: memmem::Finder<'static>,
    publication_mark: memmem::Finder<'static>,
    /// Where in its line the last publication's sequence number began.
    sequence_at: usize,
}

impl Scanner {
    /// A scanner that has seen nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            sequence_mark: memmem::Finder::new(SEQUENCE_MARK),
            publication_mark: memmem::Finder::new(br#""pub":"#),
            sequence_at: 0,
        }
    }

    /// Reads all complete frames of `carry` followed by `bytes`; the rest becomes the new `carry`.
    ///
    /// # Errors
    /// A close frame, an error reply or anything unexpected; the connection is then to be given up.
    pub(crate) fn read(&mut self, carry: &mut Vec<u8>, bytes: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if carry.is_empty() {
            let used = self.frames(bytes, tally)?;
            carry.extend_from_slice(&bytes[used..]);
        } else {
            carry.extend_from_slice(bytes);
            let used = self.frames(carry, tally)?;
            carry.drain(..used);
        }
        Ok(())
    }

    fn frames(&mut self, bytes: &[u8], tally: &mut Tally) -> Result<usize, Fault> {
        let mut used = 0;
        while let Some((opcode, head, length)) = frame_header(&bytes[used..])? {
            let Some(payload) = bytes[used + head..].get(..length) else {
                break;
            };
            match opcode {
                0x81 => self.lines(payload, tally)?,
                0x88 => return Err(closed(payload)),
                0x89 => tally.frame_pings.push(payload.to_vec()),
                0x8a => {}
                other => return Err(Fault::Unexpected(format!("a frame of type {other:#x}"))),
            }
            used += head + length;
        }
        Ok(used)
    }

    fn lines(&mut self, mut text: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        while !text.is_empty() {
            let end = memchr(b'\n', text).unwrap_or(text.len());
            self.line(&text[..end], tally)?;
            text = text.get(end + 1..).unwrap_or_default();
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if line.starts_with(br#"{"push":"#) {
            if let Some(sequence) = self.sequence(line)? {
                if tally.publications == 0 {
                    tally.first = sequence;
                } else if sequence != tally.first + tally.publications {
                    tally.out_of_order += 1;
                }
                tally.publications += 1;
            }
        } else if line == b"{}" {
            tally.pings += 1;
        } else if memmem::find(line, br#""error":"#).is_some() {
            return Err(Fault::Refused(text(line)));
        } else {
            tally.replies += 1;
        }
        Ok(())
    }

    /// The publication's sequence number; `None` if the push is no publication.
    fn sequence(&mut self, line: &[u8]) -> Result<Option<u64>, Fault> {
        let rest = line.get(self.sequence_at..).unwrap_or_default();
        if !rest.starts_with(SEQUENCE_MARK) {
            if self.publication_mark.find(line).is_none() {
                return Ok(None);
            }
            self.sequence_at = self.sequence_mark.find(line).ok_or_else(|| Fault::Unexpected(text(line)))?;
        }
        let digits = line[self.sequence_at + SEQUENCE_MARK.len()..]
            .get(..SEQUENCE_DIGITS)
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .ok_or_else(|| Fault::Unexpected(text(line)))?;
        let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        Ok(Some(number))
    }
}

/// First byte, header length and payload length; `None` if the header is not complete.
fn frame_header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Fault> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (head, length) = match (*second, rest) {
        (length @ 0..=125, _) => (2, u64::from(length)),
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        (126 | 127, _) => return Ok(None),
        _ => return Err(Fault::Unexpected("a masked frame".to_owned())),
    };
    // Far above any batch; a longer one means that the stream is out of step.
    if length > 64 << 20 {
        return Err(Fault::Unexpected(format!("a frame of {length} bytes")));
    }
    Ok(Some((*first, head, length as usize)))
}

fn closed(payload: &[u8]) -> Fault {
    let (code, reason) = match payload {
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
        _ => (1005, &payload[..0]),
    };
    Fault::Closed { code, reason: text(reason) }
}

fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0x80, payload.len());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn header(first: u8, mask: u8, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length + 14);
    frame.push(first);
    if length < 126 {
        frame.push(mask | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        frame.push(mask | 126);
        frame.extend_from_slice(&length.to_be_bytes());
    } else {
        frame.push(mask | 127);
        frame.extend_from_slice(&(length as u64).to_be_bytes());
    }
    frame
}

fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(300)];
    String::from_utf8_lossy(shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(sequence: u64, size: u32) -> String {
        format!(r#"{{"push":{{"channel":"bench","pub":{{"data":{}}}}}}}"#, payload(sequence, size))
    }

    fn scan(parts: &[&[u8]]) -> Result<Tally, Fault> {
        let mut scanner = Scanner::new();
        let mut carry = Vec::new();
        let mut total = Tally::default();
        for part in parts {
            scanner.read(&mut carry, part, &mut total)?;
        }
        assert!(carry.is_empty(), "{} bytes left", carry.len());
        Ok(total)
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
        Tally { publications: 8, first: 7, out_of_order: 0, replies: 1, pings: 1, frame_pings: vec![b"hi".to_vec()] }
    }

    #[test]
    fn every_split_gives_the_same_tally() {
        let stream = stream();
        assert_eq!(scan(&[&stream]), Ok(expected()));
        // Inside the long publication's padding one split is like the next.
        for at in (0..2_000).chain(stream.len() - 10..stream.len()) {
            let (left, right) = stream.split_at(at);
            assert_eq!(scan(&[left, right]), Ok(expected()), "split at {at}");
        }
    }

    #[test]
    fn byte_by_byte_gives_the_same_tally() {
        let stream = stream();
        let bytes: Vec<&[u8]> = stream[..2_000].chunks(1).collect();
        let mut parts = bytes;
        parts.push(&stream[2_000..]);
        assert_eq!(scan(&parts), Ok(expected()));
    }

    #[test]
    fn a_hole_a_repetition_and_a_swap_are_seen() {
        for order in [[1, 3, 4], [1, 1, 2], [2, 1, 3]] {
            let frames: Vec<u8> = order.iter().flat_map(|n| server_text(publication(*n, 128).as_bytes())).collect();
            let tally = scan(&[&frames]).unwrap();
            assert_eq!(tally.publications, 3);
            assert!(tally.out_of_order > 0, "{order:?}");
        }
    }

    #[test]
    fn the_number_is_found_wherever_it_stands() {
        let moved = format!(r#"{{"push":{{"channel":"bench","pub":{{"offset":3,"data":{}}}}}}}"#, payload(2, 128));
        let mut frames = server_text(publication(1, 128).as_bytes());
        frames.extend(server_text(moved.as_bytes()));
        frames.extend(server_text(publication(3, 128).as_bytes()));
        let tally = scan(&[&frames]).unwrap();
        assert_eq!((tally.publications, tally.first, tally.out_of_order), (3, 1, 0));
    }

    #[test]
    fn faults_say_what_happened() {
        let error = server_text(br#"{"id":1,"error":{"code":103,"message":"permission denied"}}"#);
        assert!(matches!(scan(&[&error]), Err(Fault::Refused(text)) if text.contains("103")));
        let close = [&[0x88, 7, 0x0b, 0xb9][..], b"bye!!"].concat();
        assert_eq!(scan(&[&close]), Err(Fault::Closed { code: 3001, reason: "bye!!".to_owned() }));
        assert!(matches!(scan(&[&[0x81, 0x80, 0, 0, 0, 0]]), Err(Fault::Unexpected(_))));
        let foreign = server_text(br#"{"push":{"channel":"x","pub":{"data":1}}}"#);
        assert!(matches!(scan(&[&foreign]), Err(Fault::Unexpected(_))));
    }

    #[test]
    fn payloads_have_their_size() {
        for size in [MIN_PAYLOAD, 36, 128, 60_000] {
            assert_eq!(payload(12, size).len(), size as usize);
        }
    }

    #[test]
    fn client_frames_are_masked_with_zero() {
        assert_eq!(client_text(b"{}"), [0x81, 0x82, 0, 0, 0, 0, b'{', b'}']);
        assert_eq!(client_text(&[b'x'; 200])[..8], [0x81, 0xfe, 0, 200, 0, 0, 0, 0]);
    }
}
