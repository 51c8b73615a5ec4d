//! A TCP connection, as the node sees it for writing and the connection task for reading.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll};

use fanwire_node::Socket;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A TCP connection. Belongs to one thread: its readiness is cleared between a call that would block and the next
/// look at the driver, so no event gets lost.
#[derive(Clone, Debug)]
pub(crate) struct TcpSocket(Rc<TcpStream>);

impl TcpSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Rc::new(stream))
    }

    /// Waits until a read gives something. One task at a time may wait.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    /// Reads what is there, at most what fits; 0 at the end of the stream.
    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.try_read(buf);
        // A short read has emptied the socket: the next event says when there is more, and no call is spent on asking.
        if read.as_ref().is_ok_and(|len| (1..buf.len()).contains(len)) {
            self.not_ready(Interest::READABLE);
        }
        read
    }

    /// Tells tokio that the socket is not ready, so that it waits for the next event.
    fn not_ready(&self, interest: Interest) {
        let blocked = || Err::<(), _>(ErrorKind::WouldBlock.into());
        // The answer is always the error given.
        let _ = self.0.try_io(interest, blocked);
    }

    /// Takes the outcome of a write that went past tokio.
    fn written(&self, outcome: rustix::io::Result<usize>) -> io::Result<usize> {
        outcome.map_err(|errno| {
            if errno == rustix::io::Errno::AGAIN {
                self.not_ready(Interest::WRITABLE);
            }
            errno.into()
        })
    }
}

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

impl Socket for TcpSocket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Straight to the kernel: a sweep does not touch the readiness of each socket, which lies elsewhere in memory.
        self.written(rustix::net::send(&*self.0, bytes, FLAGS))
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.written(rustix::net::sendmsg(&*self.0, parts, &mut SendAncillaryBuffer::default(), FLAGS))
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    fn shutdown(&self, how: Shutdown) {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        // Fails only if the peer was faster.
        let _ = rustix::net::shutdown(&*self.0, how);
    }
}
