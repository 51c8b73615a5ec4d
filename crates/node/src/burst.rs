//! The writes of a slice, in a row.
//!
//! What a processor does against speculation makes the kernel's returns expensive, and how expensive depends on the process: on
//! AMD's with the defence against SRSO (CVE-2023-20569) a send(2) takes a fifth less time when the process itself returns from
//! no function between one and the next (docs/adr/0015-sends-in-a-row.md). So they follow one another in a loop that calls
//! nothing, and what came of them is looked at behind it.

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use bytes::Bytes;
use rustix::net::{SendFlags, send};

use crate::outlet::Outlet;

/// How bytes are sent: what does not fit at once is not waited for, and a peer that is gone is an error, not a signal.
#[cfg(not(target_vendor = "apple"))]
pub const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// How bytes are sent: what does not fit at once is not waited for. The signal is off by an option there, which each socket has
/// from the standard library.
#[cfg(target_vendor = "apple")]
pub const SEND: SendFlags = SendFlags::DONTWAIT;

/// One frame for one outlet before which nothing waits.
pub(crate) struct Shot<'a> {
    pub(crate) outlet: &'a Rc<Outlet>,
    pub(crate) frame: &'a Bytes,
    descriptor: BorrowedFd<'a>,
    /// How many bytes were sent. An error is nothing sent: whoever writes the rest meets it again.
    pub(crate) sent: usize,
}

impl<'a> Shot<'a> {
    /// One to be fired, if the outlet can be gone past.
    pub(crate) fn new(outlet: &'a Rc<Outlet>, frame: &'a Bytes) -> Option<Self> {
        Some(Self { outlet, frame, descriptor: outlet.open_descriptor()?, sent: 0 })
    }
}

/// Sends each. Everything in this loop is to be inlined.
pub(crate) fn fire(shots: &mut [Shot<'_>]) {
    for shot in shots {
        shot.sent = send(shot.descriptor, shot.frame, SEND).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{self, ErrorKind, IoSlice, Read, Write};
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use fanwire_wire::Disconnect;
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::Socket;
    use crate::outlet::Queues;

    /// A socket of the kernel that is writable again when the test says so.
    struct Real {
        stream: UnixStream,
        waiting: Rc<RefCell<Option<Waker>>>,
    }

    impl Socket for Real {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            (&self.stream).write(bytes)
        }

        fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            (&self.stream).write_vectored(parts)
        }

        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            Some(self.stream.as_fd())
        }

        fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.waiting.replace(Some(cx.waker().clone())) {
                None => Poll::Pending,
                Some(_) => Poll::Ready(Ok(())),
            }
        }

        fn shutdown(&self, how: Shutdown) {
            let _ = self.stream.shutdown(how);
        }
    }

    fn outlet() -> (Rc<Outlet>, UnixStream, Rc<RefCell<Option<Waker>>>) {
        let (stream, peer) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let waiting = Rc::default();
        let queues = Rc::new(Queues::new(Arc::new(usize::MAX.into())));
        (Outlet::new(Real { stream, waiting: Rc::clone(&waiting) }, [0; 16], 1 << 20, queues), peer, waiting)
    }

    /// What came of one frame for each of these.
    fn send_to(outlets: &[&Rc<Outlet>], frame: &Bytes) -> Vec<Result<(), Disconnect>> {
        let mut shots: Vec<_> = outlets.iter().map(|outlet| Shot::new(outlet, frame).unwrap()).collect();
        fire(&mut shots);
        let rest = |shot: &Shot<'_>| {
            if shot.sent < frame.len() {
                shot.outlet.put_behind(std::slice::from_ref(frame), shot.sent)
            } else {
                Ok(())
            }
        };
        shots.iter().map(rest).collect()
    }

    /// Everything that can be read now.
    fn read(mut peer: &UnixStream) -> Vec<u8> {
        let mut all = Vec::new();
        assert_eq!(peer.read_to_end(&mut all).unwrap_err().kind(), ErrorKind::WouldBlock);
        all
    }

    #[tokio::test]
    async fn what_a_full_socket_does_not_take_follows_in_order() {
        let local = LocalSet::new();
        local
            .run_until(async {
                let (full, its_peer, waiting) = outlet();
                let (free, free_peer, _) = outlet();
                let mut before = 0;
                while let Ok(Some(len)) = full.open_descriptor().map(|to| send(to, &[b'-'; 100], SEND)).transpose() {
                    before += len;
                }
                let frame = Bytes::from(vec![b'a'; 10_000]);
                assert_eq!(send_to(&[&full, &free], &frame), [Ok(()), Ok(())]);
                assert_eq!(read(&free_peer), frame);
                assert!(!free.is_waiting());
                assert!(full.is_waiting());
                assert!(Shot::new(&full, &frame).is_none(), "something waits before it");
                full.write(&[Bytes::from_static(b"b")]).unwrap();

                let mut came = read(&its_peer);
                while full.is_waiting() {
                    yield_now().await;
                    if let Some(waker) = waiting.borrow().as_ref() {
                        waker.wake_by_ref();
                    }
                    came.extend(read(&its_peer));
                }
                came.extend(read(&its_peer));
                assert_eq!(came.split_off(before), [frame.as_ref(), b"b"].concat());
            })
            .await;
    }

    #[test]
    fn a_peer_that_is_gone_ends_its_connection_alone() {
        let (gone, its_peer, _) = outlet();
        let (other, other_peer, _) = outlet();
        drop(its_peer);
        let frame = Bytes::from_static(b"frame");
        assert_eq!(send_to(&[&gone, &other], &frame), [Err(Disconnect::WriteError), Ok(())]);
        assert_eq!(read(&other_peer), b"frame");
    }
}
