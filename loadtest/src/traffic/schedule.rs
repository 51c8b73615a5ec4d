//! Publishing on a schedule. Latencies count from the moment a publication was due, not from when it was sent: a client that is
//! late, because the server held it up, would otherwise hide the waiting (coordinated omission).

use std::ops::Range;
use std::time::Duration;

use super::{PATIENCE, Traffic};
use crate::clock;
use crate::error::Error;
use crate::stats::Histogram;

/// Channels that are published to at one rate, in turn.
#[derive(Debug)]
pub(crate) struct Class {
    /// What reports call it.
    pub(crate) name: String,
    /// Its channels.
    pub(crate) channels: Range<u32>,
    /// Publications per second.
    pub(crate) rate: f64,
    /// From due to parsed.
    pub(crate) latency: Histogram,
    /// The channel that is next.
    next: u32,
    /// Publications so far.
    count: u64,
    start: u64,
}

/// More publications in flight than this mean that the server does not keep up, and the client's memory is not for them.
const MOST_IN_FLIGHT: usize = 100_000;

/// Waiting in the kernel ends too late by about as much: the rest is waited for awake.
const AWAKE: Duration = Duration::from_micros(60);

impl Class {
    /// A class of channels.
    pub(crate) fn new(name: &str, channels: Range<u32>, rate: f64) -> Self {
        let next = channels.start;
        Self { name: name.to_owned(), channels, rate, latency: Histogram::new(), next, count: 0, start: 0 }
    }

    /// Forgets its latencies.
    pub(super) fn forget(&mut self) {
        self.latency.clear();
    }

    /// When its next publication is due.
    fn due(&self) -> u64 {
        self.start + (self.count as f64 / self.rate * 1e9) as u64
    }
}

impl Traffic {
    /// Sets the classes whose schedules begin now.
    pub(crate) fn schedule(&mut self, classes: Vec<Class>) {
        self.classes = classes;
        let count = self.classes.len() as u64;
        for (number, class) in self.classes.iter_mut().enumerate() {
            // Not all at the same moment.
            class.start = clock::now() + (1e9 / class.rate) as u64 * number as u64 / count;
        }
    }

    /// The classes with their latencies.
    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Publishes what is due, when it is due, for `span`.
    ///
    /// # Errors
    /// The server does not keep up, or a connection is of no more use.
    pub(super) fn run_on_schedule(&mut self, span: Duration) -> Result<(), Error> {
        let end = clock::now() + clock::nanoseconds(span);
        let mut last_arrival = clock::now();
        loop {
            let now = clock::now();
            let due = self.publish_due(now.min(end))?;
            if now >= end {
                return Ok(());
            }
            let wait = Duration::from_nanos(due.min(end).saturating_sub(clock::now()));
            let before = self.deliveries;
            self.listen(wait.saturating_sub(AWAKE))?;
            if self.deliveries > before || self.in_flight == 0 {
                last_arrival = clock::now();
            } else if clock::now() - last_arrival > clock::nanoseconds(PATIENCE) {
                return Err(self.stalled());
            }
        }
    }

    /// Publishes what is due at `now`; when the next is.
    fn publish_due(&mut self, now: u64) -> Result<u64, Error> {
        for number in 0..self.classes.len() {
            while self.classes[number].due() <= now {
                let class = &mut self.classes[number];
                let (channel, due) = (class.next, class.due());
                class.count += 1;
                class.next = if channel + 1 < class.channels.end { channel + 1 } else { class.channels.start };
                self.late.record(clock::now().saturating_sub(due));
                self.publish(channel, due);
            }
        }
        if self.in_flight > MOST_IN_FLIGHT {
            return Err(Error::Failed(format!(
                "the server does not keep up: {} publications have not reached all their subscribers",
                self.in_flight
            )));
        }
        self.flush()?;
        Ok(self.classes.iter().map(Class::due).min().unwrap_or(now))
    }
}
