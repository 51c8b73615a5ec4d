//! How many calls a key may make.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A number of calls a second on the average, and at once after a pause.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    /// How far ahead of its time the next call may be.
    ahead: Duration,
    /// When everything admitted so far will have had its time. Its lock is a leaf.
    free: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / rate;
        Self { interval, ahead: interval * burst.saturating_sub(1), free: Mutex::new(Instant::now()) }
    }

    /// Takes the time of `calls`, or says after how long to ask again. Whoever has time for one may make them all, and waits
    /// longer afterwards: so a broadcast is never too large to be made at all, and the average holds.
    pub(crate) fn take(&self, calls: usize) -> Result<(), Duration> {
        let now = Instant::now();
        let mut free = self.free.lock();
        let start = (*free).max(now);
        let early = start.duration_since(now).saturating_sub(self.ahead);
        if early.is_zero() {
            *free = start + self.interval * u32::try_from(calls).unwrap_or(u32::MAX);
            Ok(())
        } else {
            Err(early)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn the_average_holds_and_a_pause_gathers_no_more_than_the_burst() {
        let pace = Pace::new(10, 3);
        for _ in 0..2 {
            for _ in 0..3 {
                assert_eq!(pace.take(1), Ok(()));
            }
            assert_eq!(pace.take(1), Err(100 * MS));
            advance(99 * MS).await;
            assert_eq!(pace.take(1), Err(MS));
            advance(MS).await;
            assert_eq!(pace.take(1), Ok(()));
            assert_eq!(pace.take(1), Err(100 * MS));
            advance(Duration::from_secs(3600)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_are_paid_for_afterwards() {
        let pace = Pace::new(10, 1);
        assert_eq!(pace.take(50), Ok(()));
        assert_eq!(pace.take(1), Err(5000 * MS));
        advance(5000 * MS).await;
        assert_eq!(pace.take(1), Ok(()));
    }
}
