//! How long to wait before the next attempt.

use std::time::Duration;

/// Full jitter: anything from nothing to a ceiling that doubles with each failure.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    failures: u32,
}

impl Backoff {
    /// With a ceiling from `first` to `last`.
    pub(crate) fn new((first, last): (Duration, Duration)) -> Self {
        Self { first, last, failures: 0 }
    }

    /// The time to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.last);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(fastrand::f64())
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_grows_to_its_end() {
        let (first, last) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new((first, last));
        let mut highest = Duration::ZERO;
        for failure in 0..2000 {
            let pause = backoff.next();
            assert!(pause <= last && (failure > 0 || pause <= first));
            highest = highest.max(pause);
        }
        // 2000 draws from 0 to 2 s that all stay below 1.5 s: less likely than a broken machine.
        assert!(highest > Duration::from_millis(1500));
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
