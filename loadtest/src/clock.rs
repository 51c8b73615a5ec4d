//! The monotonic clock, in nanoseconds.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep, set_current_timer_slack};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since an arbitrary start.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// A point in time after which waiting is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// The point `span` from here.
    pub(crate) fn after(span: Duration) -> Self {
        Self(now() + nanoseconds(span))
    }

    /// Whether the point lies in the past.
    pub(crate) fn passed(self) -> bool {
        now() >= self.0
    }
}

/// Lets this thread's waits end on time: the kernel's usual slack would be seen in every latency.
pub(crate) fn wake_on_time() {
    // Without it waits end 50 µs late, which makes figures worse, not wrong.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

/// Gives the processor away for `span`, or until a signal arrives.
pub(crate) fn pause(span: Duration) {
    // An early return is harmless: every caller polls a condition.
    let (NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) | NanosleepRelativeResult::Err(_)) =
        nanosleep(&timespec(span));
}

/// Keeps the processor busy for `span`.
pub(crate) fn spin(span: Duration) {
    let end = Deadline::after(span);
    while !end.passed() {
        std::hint::spin_loop();
    }
}

/// The kernel's form of a duration.
pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(span.subsec_nanos()) }
}

/// A duration as the clock counts.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
