//! A TCP connection, as the node sees it for writing and the connection task for reading.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use fanwire_node::{SEND, Socket};
use rustix::net::SendAncillaryBuffer;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a connection task reads from, and the node writes to.
pub(crate) trait Duplex: Socket + Clone + 'static {
    /// Waits until a read gives something. One task at a time may wait.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is there, at most what fits; 0 at the end of the stream. `buf` has 64 KiB.
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize>;
}

/// A TCP connection. Belongs to one thread: its readiness is cleared between a call that would block and the next
/// look at the driver, so no event gets lost.
#[derive(Clone, Debug)]
pub(crate) struct TcpSocket(Rc<TcpStream>);

impl TcpSocket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Rc::new(stream))
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

impl Duplex for TcpSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.try_read(buf);
        // A short read has emptied the socket: the next event says when there is more, and no call is spent on asking.
        if read.as_ref().is_ok_and(|len| (1..buf.len()).contains(len)) {
            self.not_ready(Interest::READABLE);
        }
        read
    }
}

impl Socket for TcpSocket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Straight to the kernel: a sweep does not touch the readiness of each socket, which lies elsewhere in memory.
        self.written(rustix::net::send(&*self.0, bytes, SEND))
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.written(rustix::net::sendmsg(&*self.0, parts, &mut SendAncillaryBuffer::default(), SEND))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_full_socket_is_writable_when_its_peer_has_read() {
        let (socket, mut peer) = pair().await;
        let mut written = 0;
        for _ in 0..3 {
            let full = loop {
                match socket.try_write_vectored(&[IoSlice::new(&[1; 5_000]), IoSlice::new(&[2; 5_000])]) {
                    Ok(len) => written += len,
                    Err(error) => break error,
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock);
            // Even when the driver has had its turn: the readiness from before does not count.
            tokio::task::yield_now().await;
            assert!(poll_fn(|cx| socket.poll_writable(cx)).now_or_never().is_none());

            peer.read_exact(&mut vec![0; written]).await.unwrap();
            poll_fn(|cx| socket.poll_writable(cx)).await.unwrap();
            written = socket.try_write(&[3; 100]).unwrap();
        }
    }

    #[tokio::test]
    async fn what_comes_after_a_short_read_is_read() {
        use tokio::io::AsyncWriteExt;
        let (socket, mut peer) = pair().await;
        let mut buf = [0; 100];
        for text in ["a", "bc", "d"] {
            peer.write_all(text.as_bytes()).await.unwrap();
            poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
            let len = socket.try_read(&mut buf).unwrap();
            assert_eq!(&buf[..len], text.as_bytes());
        }
        peer.write_all(b"end").await.unwrap();
        drop(peer);
        for len in [3, 0] {
            poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
            assert_eq!(socket.try_read(&mut buf).unwrap(), len);
        }
    }

    async fn pair() -> (TcpSocket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (TcpSocket::new(listener.accept().await.unwrap().0), peer)
    }
}
