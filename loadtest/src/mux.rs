//! Many sockets on one thread: edge-triggered readiness, one read per edge, one shared buffer.

use std::net::TcpStream;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use crate::clock::{self, Deadline, timespec};
use crate::dialect::Dialect;
use crate::error::{Context as _, Error};
use crate::frames::{Carry, Scanner, Tally, client_pong};

/// The sockets, in the order in which they were added.
pub(crate) struct Mux {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    dialect: Dialect,
    scanner: Scanner,
    scratch: Vec<u8>,
    ready: Vec<epoll::Event>,
    idle: Idle,
    counters: Counters,
}

/// What a set does while nothing is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Sleeps. Whoever sends next pays for waking it.
    Sleep,
    /// Asks again after a moment, awake. The sender never pays for a wake-up, nor for sharing the cache lines of the
    /// ready list with somebody who asks all the time: a server and the raw loop are compared by their own work.
    Spin,
}

/// The moment of [`Idle::Spin`] for each socket, a small part of what writing to it costs; a single one is hardly left
/// alone, or the moment would be its latency.
const MOMENT: Duration = Duration::from_nanos(200);

/// The moment for a thousand sockets and more.
const LONGEST_MOMENT: Duration = Duration::from_micros(200);

/// With so many sockets ready, there is no moment to wait.
const MANY: usize = 64;

/// What has passed through all sockets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Reads that brought something.
    pub(crate) reads: u64,
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Writes, even partial ones.
    pub(crate) writes: u64,
    /// Pings answered.
    pub(crate) pings: u64,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    carry: Carry,
    /// What the socket had no room for. Only replies to pings and the publisher's window go out, so
    /// the window bounds it.
    unsent: Vec<u8>,
}

impl Mux {
    /// A set without sockets, which will all speak `dialect`.
    pub(crate) fn new(dialect: Dialect, idle: Idle) -> Result<Self, Error> {
        Ok(Self {
            dialect,
            idle,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?,
            connections: Vec::new(),
            scanner: Scanner::new(dialect),
            scratch: vec![0; 256 * 1024],
            ready: Vec::with_capacity(1024),
            counters: Counters::default(),
        })
    }

    /// Adds a socket of which `carry` was read already; its index.
    pub(crate) fn add(&mut self, stream: TcpStream, carry: Carry) -> Result<usize, Error> {
        let index = self.connections.len();
        stream.set_nonblocking(true).context("set nonblocking")?;
        acknowledge_reads(&stream)?;
        epoll::add(
            &self.epoll,
            &stream,
            epoll::EventData::new_u64(index as u64),
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET,
        )
        .context("epoll_ctl")?;
        self.connections.push(Connection { stream, carry, unsent: Vec::new() });
        Ok(index)
    }

    /// What the sockets speak.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Everything counted so far.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Waits for readiness; how many sockets [`Mux::read`] is to be called for.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<usize, Error> {
        let deadline = Deadline::after(timeout);
        let mut few = self.ready.len() < MANY;
        self.ready.clear();
        let moment = (MOMENT * self.connections.len() as u32).min(LONGEST_MOMENT);
        if self.idle == Idle::Sleep && !timeout.is_zero() {
            // epoll itself would count in milliseconds, and a publication on a schedule would be late by up to one.
            match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timespec(timeout))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("poll"),
            }
        }
        loop {
            if self.idle == Idle::Spin && few {
                clock::spin(moment);
            }
            few = true;
            match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timespec(Duration::ZERO))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll_wait"),
            }
            if !self.ready.is_empty() || self.idle == Idle::Sleep || deadline.passed() {
                return Ok(self.ready.len());
            }
        }
    }

    /// Reads from the `slot`th ready socket, to the end of what is there: the socket's index. What came is in `tally`, and
    /// nothing else. Pings are answered here.
    ///
    /// # Errors
    /// The connection ended, or brought something unexpected.
    pub(crate) fn read(&mut self, slot: usize, tally: &mut Tally) -> Result<usize, Error> {
        let epoll::Event { flags, data } = self.ready[slot];
        let index = data.u64() as usize;
        tally.clear();
        if flags.contains(epoll::EventFlags::OUT) && !self.connections[index].unsent.is_empty() {
            self.send(index, &[])?;
        }
        let hung_up = flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        let failed = |what: String| Error::Failed(format!("connection {index}: {what}"));
        loop {
            let connection = &mut self.connections[index];
            let count = match recv(&connection.stream, self.scratch.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(failed("ended without a close frame".to_owned())),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(error.to_string())),
            };
            self.counters.reads += 1;
            self.counters.bytes += count as u64;
            self.scanner
                .read(&mut connection.carry, &self.scratch[..count], tally)
                .map_err(|fault| failed(fault.to_string()))?;
            // A short read took all there was: whatever comes later is a new edge.
            if count < self.scratch.len() && !hung_up {
                break;
            }
        }
        self.answer_pings(index, tally)?;
        Ok(index)
    }

    /// Sends bytes, or keeps for later what the socket has no room for.
    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) -> Result<(), Error> {
        let connection = &mut self.connections[index];
        connection.unsent.extend_from_slice(bytes);
        while !connection.unsent.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&connection.stream, &connection.unsent, flags) {
                Ok(count) => {
                    self.counters.writes += 1;
                    connection.unsent.drain(..count);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(Error::Failed(format!("connection {index}: {error}")));
                }
            }
        }
        Ok(())
    }

    fn answer_pings(&mut self, index: usize, tally: &Tally) -> Result<(), Error> {
        for payload in &tally.frame_pings {
            self.send(index, &client_pong(payload))?;
        }
        for _ in 0..tally.pings {
            self.counters.pings += 1;
            self.send(index, &self.dialect.pong())?;
        }
        if tally.pings > 0 {
            acknowledge_reads(&self.connections[index].stream)?;
        }
        Ok(())
    }
}

/// Lets the kernel acknowledge what comes when it is read, as for anybody who only listens. A connection that has just
/// answered acknowledges every second segment on its arrival instead, and that is the sender's cost over loopback: another one for each
/// socket, as its last words happened to fall.
fn acknowledge_reads(stream: &TcpStream) -> Result<(), Error> {
    sockopt::set_tcp_quickack(stream, true).context("set TCP_QUICKACK")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::dialect::numbers::payload;
    use crate::frames::{client_text, server_text};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Reads until `done` says that the sum is complete.
    fn collect(mux: &mut Mux, done: impl Fn(&[u64], u64) -> bool) -> Vec<u64> {
        let (mut counts, mut tally) = (vec![0; mux.connections.len()], Tally::default());
        while !done(&counts, mux.counters().pings) {
            let ready = mux.wait(PATIENCE).unwrap();
            assert!(ready > 0, "nothing came: {counts:?}");
            for slot in 0..ready {
                let index = mux.read(slot, &mut tally).unwrap();
                counts[index] += tally.publications();
            }
        }
        counts
    }

    #[test]
    fn counts_by_connection_and_answers_pings() {
        let mut mux = Mux::new(Dialect::Native, Idle::Sleep).unwrap();
        let (left, mut left_server) = pair();
        let (right, mut right_server) = pair();
        mux.add(left, Carry::default()).unwrap();
        mux.add(right, Carry::default()).unwrap();
        let frame = |n| {
            let data = payload(n, 64);
            server_text(format!(r#"{{"push":{{"channel":"c","pub":{{"data":{data}}}}}}}"#).as_bytes())
        };
        left_server.write_all(&[frame(1), frame(2)].concat()).unwrap();
        right_server.write_all(&frame(1)).unwrap();
        right_server.write_all(&server_text(b"{}")).unwrap();
        let counts = collect(&mut mux, |counts, pings| counts.iter().sum::<u64>() == 3 && pings == 1);
        assert_eq!(counts, [2, 1]);
        let mut pong = [0; 8];
        right_server.set_read_timeout(Some(PATIENCE)).unwrap();
        right_server.read_exact(&mut pong).unwrap();
        assert_eq!(pong[..], client_text(b"{}"));
    }

    #[test]
    fn the_end_of_a_connection_is_an_error_even_behind_data() {
        let mut mux = Mux::new(Dialect::Native, Idle::Sleep).unwrap();
        let (client, mut server) = pair();
        mux.add(client, Carry::default()).unwrap();
        server.write_all(&server_text(b"{}")).unwrap();
        drop(server);
        let failed = (0..10).any(|_| {
            let ready = mux.wait(PATIENCE).unwrap();
            (0..ready).any(|slot| mux.read(slot, &mut Tally::default()).is_err())
        });
        assert!(failed);
    }
}
