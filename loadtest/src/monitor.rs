//! How a run goes over time: deliveries, CPU time and memory of the servers, a few times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock;
use crate::meter;
use crate::outcome::Point;

/// A thread that looks at the servers until [`Monitor::end`].
#[derive(Debug)]
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Vec<Point>>>,
}

/// Where the run counts its deliveries for the monitor to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    deliveries: Counter,
}

/// Often enough for a curve of a few seconds, seldom enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(250);

/// Points that are kept of a run; of a longer one every second, fourth, … is.
const MOST: usize = 120;

impl Counter {
    /// Says how many there were up to here.
    pub(crate) fn set(&self, deliveries: u64) {
        self.0.store(deliveries, Ordering::Relaxed);
    }
}

impl Monitor {
    /// Begins to look at `pids`.
    pub(crate) fn begin(pids: &[u32]) -> Self {
        let shared = Arc::new(Shared::default());
        let (seen, pids) = (shared.clone(), pids.to_vec());
        Self { shared, thread: Some(thread::spawn(move || watch(&seen, &pids))) }
    }

    /// The counter that the curve of deliveries is made of.
    pub(crate) fn deliveries(&self) -> Counter {
        self.shared.deliveries.clone()
    }

    /// Ends, with the curve; empty for a run that was too short for one.
    pub(crate) fn end(mut self) -> Vec<Point> {
        self.stop().unwrap_or_default()
    }

    fn stop(&mut self) -> Option<Vec<Point>> {
        let thread = self.thread.take()?;
        self.shared.over.store(true, Ordering::Relaxed);
        thread.thread().unpark();
        thread.join().ok()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone, Copy)]
struct Reading {
    at: u64,
    deliveries: u64,
    cpu: Option<u64>,
    memory: Option<u64>,
}

fn watch(shared: &Shared, pids: &[u32]) -> Vec<Point> {
    let read = || Reading {
        at: clock::now(),
        deliveries: shared.deliveries.0.load(Ordering::Relaxed),
        cpu: meter::cpu_of_all(pids).ok().flatten(),
        memory: meter::resident_of_all(pids),
    };
    let first = read();
    let mut readings = vec![first];
    let (mut every, mut count) = (1_usize, 0_usize);
    while !shared.over.load(Ordering::Relaxed) {
        thread::park_timeout(INTERVAL);
        count += 1;
        if !count.is_multiple_of(every) || shared.over.load(Ordering::Relaxed) {
            continue;
        }
        readings.push(read());
        if readings.len() > MOST {
            let mut number = 0;
            readings.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            every *= 2;
        }
    }
    readings.windows(2).map(|pair| point(first.at, pair[0], pair[1])).collect()
}

fn point(start: u64, before: Reading, here: Reading) -> Point {
    let span = (here.at - before.at).max(1) as f64 / 1e9;
    Point {
        at: (here.at - start) as f64 / 1e9,
        deliveries: here.deliveries.saturating_sub(before.deliveries) as f64 / span,
        cpu: here.cpu.zip(before.cpu).map(|(here, before)| here.saturating_sub(before) as f64 / 1e9 / span),
        memory: here.memory.map(|bytes| bytes as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_difference() {
        let reading = |at, deliveries, cpu| Reading { at, deliveries, cpu: Some(cpu), memory: Some(7) };
        let point = point(1_000_000_000, reading(2_000_000_000, 10, 0), reading(2_500_000_000, 60, 250_000_000));
        assert_eq!(point, Point { at: 1.5, deliveries: 100.0, cpu: Some(0.5), memory: Some(7.0) });
    }

    #[test]
    fn a_short_run_has_no_curve_and_ends_at_once() {
        assert!(Monitor::begin(&[std::process::id()]).end().len() <= 1);
    }
}
