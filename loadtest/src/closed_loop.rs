//! The closed loop: one publisher, W messages in flight, every delivery checked.

use std::time::Duration;

use crate::clock::{self, Deadline};
use crate::dialect::numbers::payload;
use crate::error::Error;
use crate::mux::Mux;
use crate::sample::{Own, Sample};
use crate::stats::Histogram;

/// The channel that all subscribers are subscribed to.
pub(crate) const CHANNEL: &str = "bench";

/// Keeps W messages in flight; a next one is published when one has reached all subscribers.
///
/// Messages are numbered from 1. A subscriber gets them in order, so message `n` is complete before
/// `n + 1`, and the messages in flight are `completed + 1 ..= published`, at most a window.
pub(crate) struct ClosedLoop {
    mux: Mux,
    publisher: usize,
    payload: u32,
    /// By subscriber, the number that must come next.
    expected: Vec<u64>,
    flights: Vec<Flight>,
    published: u64,
    completed: u64,
    deliveries: u64,
    own: Own,
    latency: Histogram,
}

/// How long nothing may arrive while messages are in flight.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a repeated delivery is waited for after the last message.
const AFTERMATH: Duration = Duration::from_millis(50);

/// A message in flight, kept at its number modulo the window.
#[derive(Clone, Copy, Debug, Default)]
struct Flight {
    published_at: u64,
    /// Subscribers that have not read it.
    missing: u32,
}

impl ClosedLoop {
    /// A loop over the sockets of `mux`: first those of the subscribers, last the publisher's.
    pub(crate) fn new(mux: Mux, subscribers: u32, payload: u32, window: u32) -> Self {
        Self {
            mux,
            publisher: subscribers as usize,
            payload,
            expected: vec![1; subscribers as usize],
            flights: vec![Flight::default(); window as usize],
            published: 0,
            completed: 0,
            deliveries: 0,
            own: Own::default(),
            latency: Histogram::new(),
        }
    }

    /// A reading of everything counted so far; `sender` is the process whose CPU time counts.
    pub(crate) fn sample(&self, sender: Option<u32>) -> Result<Sample, Error> {
        Sample::take(&self.mux, sender, self.deliveries, self.own)
    }

    /// Nanoseconds from publish to parsed that this share of the deliveries did not exceed.
    pub(crate) fn latency(&self, share: f64) -> u64 {
        self.latency.quantile(share)
    }

    /// Begins a new distribution of latencies.
    pub(crate) fn forget_latencies(&mut self) {
        self.latency.clear();
    }

    /// Publishes a window's worth of messages.
    pub(crate) fn fill(&mut self) -> Result<(), Error> {
        self.publish(self.flights.len() as u64)
    }

    /// Keeps the window full for `span`.
    pub(crate) fn run_for(&mut self, span: Duration) -> Result<(), Error> {
        let end = Deadline::after(span);
        while !end.passed() {
            self.turn(PATIENCE, Next::Publish)?;
        }
        Ok(())
    }

    /// Lets the messages in flight arrive, and looks whether anything comes behind them.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        while self.completed < self.published {
            self.turn(PATIENCE, Next::Rest)?;
        }
        let end = Deadline::after(AFTERMATH);
        while !end.passed() {
            for slot in 0..self.mux.wait(AFTERMATH)? {
                self.take(slot)?;
            }
        }
        Ok(())
    }

    /// Handles what is ready. What one read completes is published again at once, in one write.
    fn turn(&mut self, patience: Duration, next: Next) -> Result<(), Error> {
        let ready = self.mux.wait(patience)?;
        if ready == 0 {
            return Err(self.stalled());
        }
        for slot in 0..ready {
            let completed = self.take(slot)?;
            if completed > 0 && next == Next::Publish {
                self.publish(completed)?;
            }
        }
        Ok(())
    }

    /// Reads from a ready socket; how many messages that completed.
    fn take(&mut self, slot: usize) -> Result<u64, Error> {
        let before = self.mux.counters();
        let (index, tally) = self.mux.read(slot)?;
        let (first, count, out_of_order) = (tally.first, tally.publications, tally.out_of_order);
        if index == self.publisher {
            let after = self.mux.counters();
            self.own.reads += after.reads - before.reads;
            self.own.bytes += after.bytes - before.bytes;
            return Ok(0);
        }
        if count == 0 {
            return Ok(0);
        }
        let expected = self.expected[index];
        if first != expected || out_of_order > 0 {
            return Err(Error::Failed(format!(
                "subscriber {index} expected message {expected} and got {first}, the first of {count}, \
                 {out_of_order} of them out of order: lost, repeated or reordered"
            )));
        }
        if first + count > self.published + 1 {
            return Err(Error::Failed(format!(
                "subscriber {index} got message {}, {} were published",
                first + count - 1,
                self.published
            )));
        }
        self.expected[index] = first + count;
        self.deliveries += count;
        let now = clock::now();
        let mut completed = 0;
        let window = self.flights.len() as u64;
        for number in first..first + count {
            let flight = &mut self.flights[(number % window) as usize];
            self.latency.record(now.saturating_sub(flight.published_at));
            flight.missing -= 1;
            completed += u64::from(flight.missing == 0);
        }
        self.completed += completed;
        Ok(completed)
    }

    fn publish(&mut self, count: u64) -> Result<(), Error> {
        let window = self.flights.len() as u64;
        let subscribers = self.expected.len() as u32;
        let mut bytes = Vec::new();
        let numbers = self.published + 1..=self.published + count;
        for number in numbers.clone() {
            let data = payload(number, self.payload);
            bytes.extend(self.mux.dialect().publish(number, CHANNEL, &data));
        }
        let published_at = clock::now();
        for number in numbers {
            self.flights[(number % window) as usize] = Flight { published_at, missing: subscribers };
        }
        self.published += count;
        self.mux.send(self.publisher, &bytes)
    }

    fn stalled(&self) -> Error {
        let behind = self.expected.iter().filter(|expected| **expected <= self.published).count();
        Error::Failed(format!(
            "nothing arrived for {PATIENCE:?}; message {} of {} is missing at {behind} of {} subscribers",
            self.completed + 1,
            self.published,
            self.expected.len()
        ))
    }
}

/// What follows a completed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next one is published.
    Publish,
    /// Nothing.
    Rest,
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::dialect::Dialect;
    use crate::frames::{Carry, server_text};

    /// A loop over two subscribers with a window of 3, and the server's ends of its sockets.
    fn two_subscribers() -> (ClosedLoop, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut mux = Mux::new(Dialect::Native, crate::mux::Idle::Sleep).unwrap();
        let mut servers = Vec::new();
        for _ in 0..3 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            servers.push(listener.accept().unwrap().0);
            mux.add(client, Carry::default()).unwrap();
        }
        (ClosedLoop::new(mux, 2, 64, 3), servers)
    }

    fn deliver(server: &mut TcpStream, numbers: &[u64]) {
        for number in numbers {
            let data = payload(*number, 64);
            let push = format!(r#"{{"push":{{"channel":"bench","pub":{{"data":{data}}}}}}}"#);
            server.write_all(&server_text(push.as_bytes())).unwrap();
        }
    }

    fn turn_until(circle: &mut ClosedLoop, deliveries: u64) -> Result<(), Error> {
        while circle.deliveries < deliveries {
            circle.turn(PATIENCE, Next::Publish)?;
        }
        Ok(())
    }

    #[test]
    fn the_next_message_follows_the_slowest_subscriber() {
        let (mut circle, mut servers) = two_subscribers();
        circle.fill().unwrap();
        deliver(&mut servers[0], &[1, 2, 3]);
        turn_until(&mut circle, 3).unwrap();
        assert_eq!((circle.completed, circle.published), (0, 3));
        deliver(&mut servers[1], &[1, 2]);
        turn_until(&mut circle, 5).unwrap();
        assert_eq!((circle.completed, circle.published), (2, 5));
        deliver(&mut servers[1], &[3, 4, 5]);
        deliver(&mut servers[0], &[4, 5]);
        turn_until(&mut circle, 10).unwrap();
        assert_eq!(circle.completed, 5);
        assert!(circle.latency(1.0) > 0);
    }

    #[test]
    fn lost_repeated_reordered_and_unheard_of_messages_fail_the_run() {
        for numbers in [&[1, 3][..], &[2], &[1, 1], &[2, 1], &[1, 2, 3, 4]] {
            let (mut circle, mut servers) = two_subscribers();
            circle.fill().unwrap();
            deliver(&mut servers[1], numbers);
            let outcome = turn_until(&mut circle, numbers.len() as u64);
            assert!(matches!(outcome, Err(Error::Failed(_))), "{numbers:?}: {outcome:?}");
        }
    }
}
