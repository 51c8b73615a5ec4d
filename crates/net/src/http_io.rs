//! A connection while hyper has it.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::socket::Duplex;

/// A connection of a worker while hyper has it.
pub(crate) struct HttpIo<S> {
    pub(crate) socket: S,
    /// What was read and did not fit: less than one read.
    pub(crate) rest: Vec<u8>,
}

/// What is read at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_OF_THREAD: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

impl<S: Duplex> HttpIo<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, rest: Vec::new() }
    }
}

impl<S: Duplex + Unpin> Read for HttpIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            let len = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest[..len]);
            self.rest.drain(..len);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_readable(cx))?;
            let read = SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
                let len = self.socket.try_read(scratch)?;
                let (now, later) = scratch[..len].split_at(len.min(buf.remaining()));
                buf.put_slice(now);
                self.rest = later.to_vec();
                Ok(())
            });
            if !is_blocked(&read) {
                return Poll::Ready(read);
            }
        }
    }
}

impl<S: Duplex + Unpin> Write for HttpIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let written = self.socket.try_write(buf);
            if !is_blocked(&written) {
                return Poll::Ready(written);
            }
            ready!(self.socket.poll_writable(cx))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.socket.try_flush();
            if !is_blocked(&flushed) {
                return Poll::Ready(flushed);
            }
            ready!(self.socket.poll_writable(cx))?;
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

fn is_blocked<T>(outcome: &io::Result<T>) -> bool {
    matches!(outcome, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted))
}
