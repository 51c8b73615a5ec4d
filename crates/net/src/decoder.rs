//! The one WebSocket decoder of a thread.
//!
//! It is given whole frames that the inspector let pass, so it never waits, and between two frames it holds nothing:
//! any number of connections take turns on it.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use fanwire_wire::Disconnect;
use fastwebsockets::{Payload, Role, WebSocket, WebSocketError};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Takes the mask off frames, and checks that texts in one frame are UTF-8.
#[derive(Default)]
pub(crate) struct Decoder(Option<Box<Codec>>);

struct Codec {
    socket: WebSocket<Feed>,
    feed: Feed,
}

/// A frame above this size leaves a large buffer behind.
const LARGE: usize = 128 * 1024;

impl Decoder {
    /// Decodes one whole frame; returns its payload.
    pub(crate) fn decode(&mut self, frame: &[u8]) -> Result<Payload<'static>, Disconnect> {
        // Put back only if it is as it was: nothing of one connection may be left for the next.
        let mut codec = self.0.take().unwrap_or_else(Codec::new);
        codec.feed.0.borrow_mut().extend_from_slice(frame);
        match codec.socket.read_frame().now_or_never() {
            Some(Ok(decoded)) => {
                self.0 = Some(codec).filter(|_| frame.len() <= LARGE);
                Ok(decoded.payload)
            }
            Some(Err(WebSocketError::InvalidUTF8)) => Err(Disconnect::InvalidPayload),
            Some(Err(_)) | None => Err(Disconnect::ProtocolError),
        }
    }
}

impl Codec {
    fn new() -> Box<Self> {
        let feed = Feed::default();
        let mut socket = WebSocket::after_handshake(feed.clone(), Role::Server);
        // All writing is the outlet's; all limits are the inspector's.
        socket.set_auto_pong(false);
        socket.set_auto_close(false);
        socket.set_max_message_size(usize::MAX);
        Box::new(Self { socket, feed })
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// The decoder's end of a socket that exists only in memory.
#[derive(Clone, Default)]
struct Feed(Rc<RefCell<BytesMut>>);

impl AsyncRead for Feed {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.0.borrow_mut();
        if waiting.is_empty() {
            return Poll::Pending;
        }
        let len = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..len]);
        waiting.advance(len);
        Poll::Ready(Ok(()))
    }
}

/// The decoder never writes, but its type asks for it.
impl AsyncWrite for Feed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(ErrorKind::Unsupported.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
