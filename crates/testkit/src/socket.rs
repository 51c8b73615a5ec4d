//! A socket that remembers what was written to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use fanwire_node::Socket;

/// A socket without a network, together with the peer at its other end. Clones are the same socket.
///
/// The peer reads everything at once, unless it is told to stop ([`FakeSocket::fill`]), and hangs up
/// when the node ends its write side, unless it is told to stay ([`FakeSocket::ignore_close`]).
#[derive(Clone, Default)]
pub struct FakeSocket(Rc<RefCell<State>>);

/// One WebSocket frame as the peer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The last frame.
    Close(u16, String),
}

#[derive(Default)]
struct State {
    /// Bytes of a frame that is not complete.
    partial: Vec<u8>,
    frames: VecDeque<Frame>,
    /// System calls that would have been made.
    writes: usize,
    bytes: usize,
    /// The bytes the socket still takes before it is full; `None` for no bound.
    room: Option<usize>,
    broken: bool,
    stubborn: bool,
    write_ended: bool,
    read_ended: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

impl FakeSocket {
    /// Makes an empty socket whose peer reads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer reads no more: the socket takes `room` more bytes and is full then.
    pub fn fill(&self, room: usize) {
        self.0.borrow_mut().room = Some(room);
    }

    /// The peer reads again.
    pub fn drain(&self) {
        let mut state = self.0.borrow_mut();
        state.room = None;
        wake(&mut state.writer);
    }

    /// Every write fails from now on.
    pub fn break_down(&self) {
        let mut state = self.0.borrow_mut();
        state.broken = true;
        wake(&mut state.writer);
    }

    /// The peer does not hang up when the node ends its write side.
    pub fn ignore_close(&self) {
        self.0.borrow_mut().stubborn = true;
    }

    /// Takes the frames that arrived since the last call.
    ///
    /// # Panics
    ///
    /// If something arrived that is no frame of a server.
    #[must_use]
    pub fn take(&self) -> Vec<Frame> {
        self.0.borrow_mut().frames.drain(..).collect()
    }

    /// How often something was written.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.0.borrow().writes
    }

    /// How many bytes were written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }

    /// Whether the node has ended its write side.
    #[must_use]
    pub fn is_write_ended(&self) -> bool {
        self.0.borrow().write_ended
    }

    /// Whether the reader has been told that the stream is over.
    #[must_use]
    pub fn is_read_ended(&self) -> bool {
        self.0.borrow().read_ended
    }

    /// Waits for the end of the stream of incoming bytes.
    pub(crate) async fn read_ended(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if state.read_ended {
                return Poll::Ready(());
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn write<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        if state.broken || state.write_ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut written = 0;
        for part in parts {
            let taken = state.room.map_or(part.len(), |room| room.min(part.len()));
            state.room = state.room.map(|room| room - taken);
            state.partial.extend_from_slice(&part[..taken]);
            written += taken;
            if taken < part.len() {
                break;
            }
        }
        if written == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.writes += 1;
        state.bytes += written;
        while let Some((frame, len)) = parse(&state.partial) {
            state.partial.drain(..len);
            state.frames.push_back(frame);
        }
        Ok(written)
    }
}

impl Socket for FakeSocket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write([bytes].into_iter())
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(parts.iter().map(|part| &**part))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if state.broken || state.write_ended || state.room.is_none_or(|room| room > 0) {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn shutdown(&self, how: Shutdown) {
        let mut state = self.0.borrow_mut();
        if how != Shutdown::Read {
            state.write_ended = true;
        }
        if how != Shutdown::Write || !state.stubborn {
            state.read_ended = true;
        }
        wake(&mut state.writer);
        wake(&mut state.reader);
    }
}

impl fmt::Debug for FakeSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeSocket").field("writes", &self.writes()).field("bytes", &self.bytes()).finish()
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Reads one frame of a server (RFC 6455 §5.2) and its length; `None` if it is not complete.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    assert_eq!(first & 0xF0, 0x80, "a server's frames are whole, and have no reserved bits");
    assert_eq!(second & 0x80, 0, "a server's frames are not masked");
    let (len, header) = match second {
        126 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(rest.get(..8)?.try_into().ok()?) as usize, 10),
        len => (usize::from(*len), 2),
    };
    let payload = bytes.get(header..header + len)?.to_vec();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text frames are UTF-8");
    let frame = match first & 0x0F {
        0x1 => Frame::Text(text(payload)),
        0x2 => Frame::Binary(payload),
        0x8 => {
            assert_ne!(payload.len(), 1, "a close frame has no code, or a whole one");
            let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
            Frame::Close(code, text(payload.get(2..).unwrap_or_default().to_vec()))
        }
        0x9 => Frame::Ping(payload),
        0xA => Frame::Pong(payload),
        opcode => panic!("opcode {opcode:#x} is reserved"),
    };
    Some((frame, header + len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use fanwire_wire::frame::{self, Opcode};

    #[test]
    fn frames_are_read_whatever_pieces_they_come_in() {
        let mut bytes = BytesMut::new();
        frame::append_bytes(&mut bytes, Opcode::Text, "ä".repeat(100).as_bytes());
        frame::append_bytes(&mut bytes, Opcode::Binary, &[7; 70_000]);
        frame::append_close(&mut bytes, 3001, "shutdown");
        let socket = FakeSocket::new();
        for piece in bytes.chunks(999) {
            assert_eq!(socket.try_write(piece).unwrap(), piece.len());
        }
        let expected =
            [Frame::Text("ä".repeat(100)), Frame::Binary(vec![7; 70_000]), Frame::Close(3001, "shutdown".into())];
        assert_eq!(socket.take(), expected);
    }

    #[test]
    fn a_full_socket_takes_no_more() {
        let socket = FakeSocket::new();
        socket.fill(3);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(socket.poll_writable(&mut cx).is_ready());
        assert_eq!(socket.try_write(&[0x81, 2, b'a', b'b']).unwrap(), 3);
        assert_eq!(socket.try_write(b"b").unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(socket.poll_writable(&mut cx).is_pending());
        socket.drain();
        assert!(socket.poll_writable(&mut cx).is_ready());
        assert_eq!(socket.try_write(b"b").unwrap(), 1);
        assert_eq!((socket.take(), socket.writes()), (vec![Frame::Text("ab".into())], 2));
        socket.shutdown(Shutdown::Write);
        assert_eq!(socket.try_write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
