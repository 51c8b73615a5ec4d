//! Counts publications in what a read brought, and does as little else as possible.
//!
//! The client must never be what limits a measurement, so nothing is decoded: frame headers are
//! walked here, messages are told apart by their first bytes ([`dialect`](crate::dialect)), and of a publication only the
//! number is read, at the place where the last one stood.

use crate::dialect::Dialect;
use crate::dialect::numbers::Numbers;

/// A client's text frame.
///
/// The mask is zero, which is legal, so that the text can be copied as it is; the server unmasks it
/// like any other.
pub(crate) fn client_text(text: &[u8]) -> Vec<u8> {
    client_frame(0x81, text)
}

/// A client's binary frame, masked in the same way.
pub(crate) fn client_binary(bytes: &[u8]) -> Vec<u8> {
    client_frame(0x82, bytes)
}

/// A client's pong.
pub(crate) fn client_pong(payload: &[u8]) -> Vec<u8> {
    client_frame(0x8a, payload)
}

/// A server's text frame.
pub(crate) fn server_text(text: &[u8]) -> Vec<u8> {
    server_frame(0x81, text)
}

/// A server's binary frame.
#[cfg(test)]
pub(crate) fn server_binary(bytes: &[u8]) -> Vec<u8> {
    server_frame(0x82, bytes)
}

/// What the bytes of one read held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Publications' numbers, in the order in which they came.
    pub(crate) runs: Vec<NumberRun>,
    /// Replies to commands.
    pub(crate) replies: u64,
    /// Those of them that said that all that was missed came with them.
    pub(crate) recovered: u64,
    /// Pings of the client protocol, to be answered by as many of [`Dialect::pong`].
    pub(crate) pings: u64,
    /// Payloads of WebSocket pings, to be answered by pongs.
    pub(crate) frame_pings: Vec<Vec<u8>>,
}

/// Numbers of which each is the one before plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberRun {
    /// The first of them.
    pub(crate) first: u64,
    /// How many there are.
    pub(crate) count: u64,
}

impl Tally {
    /// Counts a publication.
    pub(crate) fn publication(&mut self, number: u64) {
        match self.runs.last_mut() {
            Some(run) if run.first + run.count == number => run.count += 1,
            _ => self.runs.push(NumberRun { first: number, count: 1 }),
        }
    }

    /// Publications.
    pub(crate) fn publications(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Forgets everything but the room for it.
    pub(crate) fn clear(&mut self) {
        let Self { runs, replies, recovered, pings, frame_pings } = self;
        runs.clear();
        frame_pings.clear();
        (*replies, *recovered, *pings) = (0, 0, 0);
    }
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

/// What a connection keeps between two reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carry {
    /// An incomplete frame.
    frame: Vec<u8>,
    /// An incomplete message of complete frames.
    message: Vec<u8>,
}

impl Carry {
    /// What a connection keeps of which `bytes` came, none of them read yet.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self { frame: bytes, message: Vec::new() }
    }
}

/// Reads frames. One serves all connections of a set.
#[derive(Debug)]
pub(crate) struct Scanner {
    dialect: Dialect,
    numbers: Numbers,
}

impl Scanner {
    /// A scanner that has seen nothing yet.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, numbers: Numbers::default() }
    }

    /// Reads all complete frames of `carry` followed by `bytes`; the rest becomes the new `carry`.
    ///
    /// # Errors
    /// A close frame, an error reply or anything unexpected; the connection is then to be given up.
    pub(crate) fn read(&mut self, carry: &mut Carry, bytes: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        let Carry { frame, message } = carry;
        if frame.is_empty() {
            let used = self.frames(bytes, message, tally)?;
            frame.extend_from_slice(&bytes[used..]);
        } else {
            frame.extend_from_slice(bytes);
            let used = self.frames(frame, message, tally)?;
            frame.drain(..used);
        }
        Ok(())
    }

    fn frames(&mut self, bytes: &[u8], message: &mut Vec<u8>, tally: &mut Tally) -> Result<usize, Fault> {
        let mut used = 0;
        while let Some((first, head, length)) = frame_header(&bytes[used..])? {
            let Some(payload) = bytes[used + head..].get(..length) else {
                break;
            };
            match first {
                0x88 => return Err(closed(payload)),
                0x89 => tally.frame_pings.push(payload.to_vec()),
                0x8a => {}
                first => self.dialect.read(first, payload, message, &mut self.numbers, tally)?,
            }
            used += head + length;
        }
        Ok(used)
    }
}

/// Far above any batch; a longer frame or message means that the stream is out of step.
pub(crate) const MAX_LENGTH: usize = 64 << 20;

/// First byte, header length and payload length; `None` if the header is not complete.
pub(crate) fn frame_header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Fault> {
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
    if length > MAX_LENGTH as u64 {
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

fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len());
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

/// The beginning of what a server said, for a message.
pub(crate) fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(300)];
    String::from_utf8_lossy(shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_frames_are_masked_with_zero() {
        assert_eq!(client_text(b"{}"), [0x81, 0x82, 0, 0, 0, 0, b'{', b'}']);
        assert_eq!(client_text(&[b'x'; 200])[..8], [0x81, 0xfe, 0, 200, 0, 0, 0, 0]);
    }
}
