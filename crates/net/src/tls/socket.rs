//! A TLS connection, as the node sees it for writing and the connection task for reading.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll};

use fanwire_node::Socket;

use super::session::{MAX_PLAIN, RECORDS, Session};
use crate::socket::{Duplex, TcpSocket};

/// A TLS connection. It encrypts what the node writes on the worker's thread, all of a turn in one write to the kernel,
/// and holds at most what of that one write the kernel did not take.
#[derive(Clone, Debug)]
pub(crate) struct TlsSocket(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    tcp: TcpSocket,
    session: RefCell<Session>,
}

/// What the TLS connections of a thread share, never across an await.
struct Tools {
    records: Box<[u8]>,
    /// Pieces put together, so that they share a record.
    plain: Vec<u8>,
}

thread_local! {
    static TOOLS: RefCell<Tools> = RefCell::new(Tools { records: vec![0; RECORDS].into(), plain: Vec::new() });
}

impl TlsSocket {
    pub(crate) fn new(tcp: TcpSocket, session: Box<Session>) -> Self {
        Self(Rc::new(Inner { tcp, session: RefCell::new(*session) }))
    }
}

impl Inner {
    /// Lets go what is held, before anything else may leave.
    fn flush(&self, session: &mut Session) -> io::Result<()> {
        while !session.held().is_empty() {
            let sent = self.tcp.try_write(session.held())?;
            session.sent(sent);
        }
        Ok(())
    }

    fn write(&self, plain: &[u8], records: &mut [u8]) -> io::Result<usize> {
        let mut session = self.session.borrow_mut();
        self.flush(&mut session)?;
        let plain = &plain[..plain.len().min(MAX_PLAIN)];
        let len = session.write(plain, records)?;
        let records = &records[..len];
        // Of rustls' own, and made before these records.
        let outcome = self.flush(&mut session).and_then(|()| self.tcp.try_write(records));
        let sent = match outcome {
            Ok(sent) => sent,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        session.hold(&records[sent..]);
        Ok(plain.len())
    }
}

impl Socket for TlsSocket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        TOOLS.with_borrow_mut(|Tools { records, .. }| self.0.write(bytes, records))
    }

    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        TOOLS.with_borrow_mut(|Tools { records, plain }| {
            plain.clear();
            for part in parts {
                let room = MAX_PLAIN - plain.len();
                plain.extend_from_slice(&part[..part.len().min(room)]);
            }
            self.0.write(plain, records)
        })
    }

    fn may_hold(&self) -> bool {
        true
    }

    fn held(&self) -> usize {
        self.0.session.borrow().held().len()
    }

    fn try_flush(&self) -> io::Result<()> {
        self.0.flush(&mut self.0.session.borrow_mut())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.tcp.poll_writable(cx)
    }

    fn shutdown(&self, how: Shutdown) {
        if how == Shutdown::Write {
            let mut session = self.0.session.borrow_mut();
            // A peer that cannot be told sees the end of the stream alone.
            let _ = session.close().and_then(|()| self.0.flush(&mut session));
        }
        self.0.tcp.shutdown(how);
    }
}

impl Duplex for TlsSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.session.borrow().is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.0.tcp.poll_readable(cx)
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let session = &mut *self.0.session.borrow_mut();
        let early = session.take_early(buf);
        if early > 0 || session.has_ended() {
            return Ok(early);
        }
        TOOLS.with_borrow_mut(|Tools { records, .. }| {
            // All of it fits, for decrypted it is less.
            let room = records.len().min(buf.len());
            let unread = session.put_unread(&mut records[..room]).ok_or(ErrorKind::InvalidData)?;
            let read = self.0.tcp.try_read(&mut records[unread..room])?;
            if read == 0 {
                return Ok(0);
            }
            let decrypted = session.read(&mut records[..unread + read], buf);
            // Answers and alerts: what does not leave now leaves before the next write.
            let _ = self.0.flush(session);
            match decrypted {
                Ok(0) if !session.has_ended() => Err(ErrorKind::WouldBlock.into()),
                Ok(len) => Ok(len),
                Err(error) => Err(io::Error::new(ErrorKind::InvalidData, error)),
            }
        })
    }
}
