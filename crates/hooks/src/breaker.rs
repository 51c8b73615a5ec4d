//! Spares a backend that does not answer, and those who would wait for it.

use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use parking_lot::Mutex;
use tokio::time::Instant;

/// So many failures without a success between them open the breaker.
const FAILURES: u32 = 10;

/// How long it stays open at first; twice as long after each probe that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// And no longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Lets questions through while the backend answers; while it does not, one from time to time. Its lock is a leaf.
#[derive(Debug)]
pub(crate) struct Breaker {
    hook: String,
    state: Mutex<State>,
    open: Gauge,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Everything passes; so many failures since the last success.
    Closed { failures: u32 },
    /// Nothing passes until then, then one.
    Open { until: Instant, pause: Duration },
    /// One is under way.
    Probing { pause: Duration },
    /// Another hook has its place: what is still under way changes nothing.
    Retired,
}

/// The right to ask once. Dropped without a word it counts as never used.
#[derive(Debug)]
pub(crate) struct Ticket {
    breaker: Arc<Breaker>,
    is_probe: bool,
}

impl Breaker {
    pub(crate) fn new(hook: &str, open: Gauge) -> Arc<Self> {
        open.set(0.0);
        Arc::new(Self { hook: hook.to_owned(), state: Mutex::new(State::Closed { failures: 0 }), open })
    }

    /// Lets a question through, or not.
    pub(crate) fn pass(self: &Arc<Self>) -> Option<Ticket> {
        let mut state = self.state.lock();
        let is_probe = match *state {
            State::Closed { .. } | State::Retired => false,
            State::Open { until, pause } if until <= Instant::now() => {
                *state = State::Probing { pause };
                true
            }
            State::Open { .. } | State::Probing { .. } => return None,
        };
        Some(Ticket { breaker: Arc::clone(self), is_probe })
    }

    /// Makes room for another one.
    pub(crate) fn retire(&self) {
        *self.state.lock() = State::Retired;
        self.open.set(0.0);
    }
}

impl Ticket {
    /// The backend answered.
    pub(crate) fn succeeded(mut self) {
        self.is_probe = false;
        let mut state = self.breaker.state.lock();
        if matches!(*state, State::Retired) {
            return;
        }
        if !matches!(*state, State::Closed { .. }) {
            tracing::info!(hook = self.breaker.hook, "backend answers again");
            self.breaker.open.set(0.0);
        }
        *state = State::Closed { failures: 0 };
    }

    /// The backend gave no answer.
    pub(crate) fn failed(mut self) {
        let was_probe = std::mem::take(&mut self.is_probe);
        let mut state = self.breaker.state.lock();
        let pause = match *state {
            State::Closed { failures } if failures + 1 < FAILURES => {
                *state = State::Closed { failures: failures + 1 };
                return;
            }
            State::Closed { .. } => {
                tracing::warn!(hook = self.breaker.hook, "backend does not answer: it is asked only now and then");
                PAUSE
            }
            State::Probing { pause } if was_probe => (pause * 2).min(LONGEST_PAUSE),
            // Asked before the breaker opened.
            State::Open { .. } | State::Probing { .. } | State::Retired => return,
        };
        self.breaker.open.set(1.0);
        // Not all gateways at once.
        let until = Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        *state = State::Open { until, pause };
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_probe {
            return;
        }
        let mut state = self.breaker.state.lock();
        if let State::Probing { pause } = *state {
            *state = State::Open { until: Instant::now(), pause };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Arc<Breaker> {
        Breaker::new("test", Gauge::noop())
    }

    fn fail(breaker: &Arc<Breaker>, times: u32) {
        for _ in 0..times {
            breaker.pass().unwrap().failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row() {
        let breaker = breaker();
        fail(&breaker, FAILURES - 1);
        breaker.pass().unwrap().succeeded();
        fail(&breaker, FAILURES - 1);
        assert!(breaker.pass().is_some());
        breaker.pass().unwrap().failed();
        assert!(breaker.pass().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_decides() {
        let breaker = breaker();
        let slow = breaker.pass().unwrap();
        fail(&breaker, FAILURES);
        tokio::time::advance(PAUSE.mul_f64(0.74)).await;
        assert!(breaker.pass().is_none());
        tokio::time::advance(PAUSE.mul_f64(0.52)).await;
        let probe = breaker.pass().unwrap();
        assert!(breaker.pass().is_none(), "one at a time");
        // What was asked long ago says nothing about now.
        slow.failed();
        probe.failed();
        tokio::time::advance(PAUSE.mul_f64(1.26)).await;
        assert!(breaker.pass().is_none(), "the second pause is longer");
        tokio::time::advance(PAUSE.mul_f64(1.26)).await;
        breaker.pass().unwrap().succeeded();
        assert!(breaker.pass().is_some() && breaker.pass().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_given_up_makes_room_for_another() {
        let breaker = breaker();
        fail(&breaker, FAILURES);
        tokio::time::advance(PAUSE * 2).await;
        drop(breaker.pass().unwrap());
        breaker.pass().unwrap().succeeded();
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound() {
        let breaker = breaker();
        fail(&breaker, FAILURES);
        for _ in 0..10 {
            tokio::time::advance(LONGEST_PAUSE.mul_f64(1.26)).await;
            breaker.pass().unwrap().failed();
        }
        tokio::time::advance(LONGEST_PAUSE.mul_f64(1.26)).await;
        assert!(breaker.pass().is_some());
    }
}
