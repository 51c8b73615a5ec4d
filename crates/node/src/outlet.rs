//! Where a client's frames leave: its socket, and the bounded backlog used only while the socket is full.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use fanwire_wire::Disconnect;

/// The socket side of an outlet: bytes in order, full or not.
pub trait Socket {
    /// Writes what the socket takes at once; [`ErrorKind::WouldBlock`] if that is nothing.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// The same for several pieces.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Where bytes go as they are, by nothing but a send(2) with [`SEND`](crate::SEND): many such writes can be made in a row.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether a write may take bytes that do not leave at once. It is always the same.
    fn may_hold(&self) -> bool {
        false
    }

    /// Bytes that a write took and that have not left yet: the rest of what was encrypted for it. They leave first.
    fn held(&self) -> usize {
        0
    }

    /// Lets what is held leave, as far as the socket takes it at once; [`ErrorKind::WouldBlock`] if that is not all.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    fn try_flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Waits until a write may succeed again. One task at a time may wait.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends one or both directions; the reader sees the end of the stream.
    fn shutdown(&self, how: Shutdown);
}

/// A client's way out. One allocation holds the state and the socket, so a sweep touches one object per client.
pub(crate) struct Outlet<S: ?Sized = dyn Socket> {
    /// The client's key in its worker.
    pub(crate) key: Cell<u32>,
    /// The client's id.
    pub(crate) client: [u8; 16],
    phase: Cell<Phase>,
    /// The socket refused bytes.
    broken: Cell<bool>,
    /// The worker's second in which bytes were last written.
    pub(crate) last_write: Cell<u32>,
    bound: u32,
    /// [`Socket::may_hold`]; kept here, for it is asked after every write.
    may_hold: bool,
    /// The socket has a descriptor; kept here for the same reason.
    may_bypass: bool,
    backlog: RefCell<Option<Box<Backlog>>>,
    queues: Rc<Queues>,
    socket: S,
}

/// How far an outlet is on its way from open to closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last frame is in the backlog; the write side ends when it is written.
    Closing,
    Closed,
}

/// What waits: frames put aside for the end of the turn, or all that follows once the socket is full.
#[derive(Default)]
struct Backlog {
    parts: VecDeque<Bytes>,
    /// In `parts`, and held by the socket.
    bytes: usize,
    held: usize,
    /// The socket is full, and a task waits for it.
    blocked: bool,
}

/// What waits in all outlets of a worker. It has a bound, for all that each has one of its own: many slow clients together
/// take more memory than there is, and faster than anybody who looks now and then could notice.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    bytes: Cell<usize>,
    /// The outlets whose socket is full.
    blocked: Cell<usize>,
    bound: Arc<AtomicUsize>,
}

impl Queues {
    /// Empty ones. `bound`: the most bytes that may wait.
    pub(crate) fn new(bound: Arc<AtomicUsize>) -> Self {
        Self { bytes: Cell::new(0), blocked: Cell::new(0), bound }
    }

    /// The bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Whether as much waits as may.
    pub(crate) fn are_full(&self) -> bool {
        self.bytes.get() >= self.bound.load(Ordering::Relaxed)
    }

    /// An equal part of what may wait, for each full socket.
    fn fair_part(&self) -> usize {
        self.bound.load(Ordering::Relaxed) / self.blocked.get().max(1)
    }

    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
    }
}

/// What may be put aside before it is written without waiting for the end of the turn.
const FLUSH_BYTES: usize = 64 * 1024;

/// The most pieces given to one vectored write.
const MAX_PARTS: usize = 64;

impl<S: Socket + 'static> Outlet<S> {
    /// Wraps a socket. `bound` is the most bytes that may wait; `queues` are those of the worker.
    pub(crate) fn new(socket: S, client: [u8; 16], bound: usize, queues: Rc<Queues>) -> Rc<Outlet> {
        Rc::new(Self {
            key: Cell::new(u32::MAX),
            client,
            phase: Cell::new(Phase::Open),
            broken: Cell::new(false),
            last_write: Cell::new(0),
            bound: u32::try_from(bound).unwrap_or(u32::MAX),
            may_hold: socket.may_hold(),
            may_bypass: socket.descriptor().is_some(),
            backlog: RefCell::new(None),
            queues,
            socket,
        })
    }
}

impl Outlet {
    /// The most bytes that may wait.
    pub(crate) fn bound(&self) -> usize {
        self.bound as usize
    }

    /// Puts a frame aside until [`Outlet::flush`], or until a sweep passes: frames leave in the order they came.
    /// Much at once is written early, so that what waits stays within the bound.
    ///
    /// # Errors
    ///
    /// How the connection ends.
    pub(crate) fn push(self: &Rc<Self>, frame: Bytes) -> Result<(), Disconnect> {
        self.append(frame)?;
        if self.backlog.borrow().as_ref().is_some_and(|backlog| backlog.bytes > FLUSH_BYTES) {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes `frames` behind whatever waits, all in one system call if the socket takes them.
    ///
    /// # Errors
    ///
    /// How the connection ends: the socket refused, or more would wait than may.
    pub(crate) fn write(self: &Rc<Self>, frames: &[Bytes]) -> Result<(), Disconnect> {
        if self.phase.get() != Phase::Open {
            return Ok(());
        }
        if self.is_waiting() {
            return self.put_behind(frames, 0);
        }
        let (written, all) = match frames {
            [frame] => (self.socket.try_write(frame), frame.len()),
            _ => {
                let parts: smallvec::SmallVec<[IoSlice<'_>; 16]> =
                    frames.iter().take(MAX_PARTS).map(|frame| IoSlice::new(frame)).collect();
                (self.socket.try_write_vectored(&parts), frames.iter().map(Bytes::len).sum())
            }
        };
        let written = settle(written)?;
        if written == all && (!self.may_hold || self.socket.held() == 0) {
            return Ok(());
        }
        self.put_behind(frames, written)
    }

    /// The descriptor, if the next bytes can go there past this outlet: nothing waits before them.
    pub(crate) fn open_descriptor(&self) -> Option<BorrowedFd<'_>> {
        if self.may_bypass && self.phase.get() == Phase::Open && !self.is_waiting() {
            self.socket.descriptor()
        } else {
            None
        }
    }

    /// Puts the rest of `frames`, of which so many bytes are written, behind whatever waits, and goes on with that.
    ///
    /// # Errors
    ///
    /// As [`Outlet::write`].
    pub(crate) fn put_behind(self: &Rc<Self>, frames: &[Bytes], mut written: usize) -> Result<(), Disconnect> {
        self.backlog.borrow_mut().get_or_insert_default();
        for frame in frames {
            let skipped = written.min(frame.len());
            written -= skipped;
            self.append(frame.slice(skipped..))?;
        }
        self.flush()
    }

    /// Writes what waits, as far as the socket takes it; a task takes over the rest.
    ///
    /// # Errors
    ///
    /// How the connection ends.
    pub(crate) fn flush(self: &Rc<Self>) -> Result<(), Disconnect> {
        let blocked = self.backlog.borrow().as_ref().is_none_or(|backlog| backlog.blocked);
        if blocked || self.write_backlog()? {
            return Ok(());
        }
        {
            let mut backlog = self.backlog.borrow_mut();
            let Some(backlog) = backlog.as_mut() else { return Ok(()) };
            if backlog.bytes > self.bound as usize {
                return Err(Disconnect::Slow);
            }
            backlog.blocked = true;
            self.queues.blocked.set(self.queues.blocked.get() + 1);
        }
        tokio::task::spawn_local(Rc::clone(self).drain());
        Ok(())
    }

    /// Ends the connection's write side once everything waiting is written. Nothing can be pushed from here on.
    pub(crate) fn finish(self: &Rc<Self>) {
        if self.phase.get() != Phase::Open {
            return;
        }
        self.phase.set(Phase::Closing);
        if self.flush().is_err() {
            self.abort();
        } else if self.backlog.borrow().is_none() {
            self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Drops all that waits but the piece that is half written: a last frame may follow it.
    pub(crate) fn shed(&self) {
        if let Some(backlog) = self.backlog.borrow_mut().as_mut() {
            backlog.parts.truncate(1);
            let kept = backlog.parts.front().map_or(0, Bytes::len) + backlog.held;
            self.queues.remove(backlog.bytes - kept);
            backlog.bytes = kept;
        }
    }

    /// Drops what waits and ends both directions.
    pub(crate) fn abort(&self) {
        if self.phase.replace(Phase::Closed) != Phase::Closed {
            self.forget_backlog();
            self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether the socket refused bytes while nobody was there to be told.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// The bytes that wait for the full socket.
    pub(crate) fn blocked_bytes(&self) -> usize {
        self.backlog.borrow().as_ref().filter(|backlog| backlog.blocked).map_or(0, |backlog| backlog.bytes)
    }

    /// Whether anything waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.backlog.borrow().is_some()
    }

    fn append(&self, frame: Bytes) -> Result<(), Disconnect> {
        if self.phase.get() != Phase::Open || frame.is_empty() {
            return Ok(());
        }
        let mut backlog = self.backlog.borrow_mut();
        let backlog = backlog.get_or_insert_default();
        let waiting = backlog.bytes + frame.len();
        if backlog.blocked && waiting > self.bound as usize {
            return Err(Disconnect::Slow);
        }
        // When there is no room left, those go who take more of it than the others.
        if backlog.blocked && self.queues.are_full() && waiting > self.queues.fair_part() {
            return Err(Disconnect::Slow);
        }
        backlog.bytes = waiting;
        self.queues.add(frame.len());
        backlog.parts.push_back(frame);
        Ok(())
    }

    /// Writes the backlog until it is empty (then it is freed: true) or the socket is full (false).
    fn write_backlog(&self) -> Result<bool, Disconnect> {
        let mut slot = self.backlog.borrow_mut();
        let Some(backlog) = slot.as_mut() else { return Ok(true) };
        let outcome = self.write_parts(backlog);
        let held = self.socket.held();
        backlog.bytes = backlog.bytes - backlog.held + held;
        self.queues.remove(backlog.held);
        self.queues.add(held);
        backlog.held = held;
        if outcome == Ok(true) {
            drop(slot);
            self.forget_backlog();
        }
        outcome
    }

    fn write_parts(&self, backlog: &mut Backlog) -> Result<bool, Disconnect> {
        while !backlog.parts.is_empty() {
            let written = if backlog.parts.len() == 1 {
                self.socket.try_write(&backlog.parts[0])
            } else {
                let parts: smallvec::SmallVec<[IoSlice<'_>; 16]> =
                    backlog.parts.iter().take(MAX_PARTS).map(|part| IoSlice::new(part)).collect();
                self.socket.try_write_vectored(&parts)
            };
            let mut written = settle(written)?;
            if written == 0 {
                return Ok(false);
            }
            backlog.bytes -= written;
            self.queues.remove(written);
            while let Some(part) = backlog.parts.front_mut() {
                if written < part.len() {
                    part.advance(written);
                    break;
                }
                written -= part.len();
                backlog.parts.pop_front();
            }
        }
        match self.socket.try_flush() {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => Ok(false),
            Err(_) => Err(Disconnect::WriteError),
        }
    }

    /// Waits for the full socket and writes the rest, until nothing waits or the connection is gone.
    async fn drain(self: Rc<Self>) {
        loop {
            let writable = poll_fn(|cx| self.socket.poll_writable(cx)).await;
            if self.phase.get() == Phase::Closed {
                return;
            }
            match writable.map_err(|_| Disconnect::WriteError).and_then(|()| self.write_backlog()) {
                Ok(true) => break,
                Ok(false) => {}
                Err(_) => {
                    self.broken.set(true);
                    return self.abort();
                }
            }
        }
        if self.phase.get() == Phase::Closing {
            self.socket.shutdown(Shutdown::Write);
        }
    }
}

/// Takes "would block" as "nothing written".
fn settle(written: io::Result<usize>) -> Result<usize, Disconnect> {
    match written {
        Ok(written) => Ok(written),
        Err(error) if is_full(&error) => Ok(0),
        Err(_) => Err(Disconnect::WriteError),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl<S: ?Sized> Outlet<S> {
    fn forget_backlog(&self) {
        if let Some(backlog) = self.backlog.take() {
            self.queues.remove(backlog.bytes);
            self.queues.blocked.set(self.queues.blocked.get() - usize::from(backlog.blocked));
        }
    }
}

impl<S: ?Sized> Drop for Outlet<S> {
    fn drop(&mut self) {
        self.forget_backlog();
    }
}

impl<S: ?Sized> fmt::Debug for Outlet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("key", &self.key).field("phase", &self.phase).finish_non_exhaustive()
    }
}
