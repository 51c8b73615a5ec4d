//! Storm control: how many of what a node takes in a second. What comes faster waits a moment, and what would have to
//! wait too long is refused with the time to come back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanwire_wire::Refusal;
use metrics::{Counter, counter, describe_counter};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Node;
use crate::config::duration;
use crate::shedding::Relief;

/// The section `[admission]`: what a node takes in a second. 0 for as much as comes. Each has a burst of half a second's worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// Openings of client connections; more are answered with 503 and `Retry-After`. Default: 1000.
    pub handshakes: u32,
    /// Clients that say who they are; more are refused with 111. Default: 1000.
    pub connects: u32,
    /// Subscriptions that clients ask for; more are refused with 111. Default: 10000.
    pub subscribes: u32,
    /// Those of them that ask for what they missed; more are refused with 111. Default: 5000.
    pub recoveries: u32,
    /// How long anything may wait for its turn before it is refused. Default: 1s.
    #[serde(with = "duration")]
    pub patience: Duration,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            handshakes: 1000,
            connects: 1000,
            subscribes: 10_000,
            recoveries: 5000,
            patience: Duration::from_secs(1),
        }
    }
}

impl AdmissionConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        let patience = self.patience > MAX_PATIENCE;
        patience
            .then(|| format!("patience: at most {}", humantime::format_duration(MAX_PATIENCE)))
            .into_iter()
            .collect()
    }
}

/// Less than what clients and balancers wait for an answer.
const MAX_PATIENCE: Duration = Duration::from_secs(4);

/// What is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The opening of a client connection.
    Handshake,
    /// A client that says who it is.
    Connect,
    /// A subscription.
    Subscribe,
    /// A subscription that continues where another one stopped.
    Recovery,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Handshake, Self::Connect, Self::Subscribe, Self::Recovery];

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Recovery => "recovery",
        }
    }
}

/// There are too many of them: when to come back at the earliest, different for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// From now on.
    pub retry_after: Duration,
}

impl TooMany {
    /// For one who would stand behind a line that takes this long: all of them come back, over twice that time, and
    /// not in the same second.
    pub(crate) fn behind(line: Duration) -> Self {
        Self { retry_after: line.mul_f64(1.0 + crate::id::share()) + DITHER.mul_f64(crate::id::share()) }
    }
}

/// A bucket for each kind.
#[derive(Debug)]
pub(crate) struct Admission {
    gates: [Gate; Kind::ALL.len()],
    /// Nanoseconds.
    patience: AtomicU64,
}

struct Gate {
    bucket: Bucket,
    /// At once, after a while, not.
    outcomes: [Counter; 3],
}

impl Admission {
    /// Admits everything.
    pub(crate) fn new() -> Self {
        describe_counter!(
            "fanwire_admissions_total",
            "What was let in at once, after a while, or not at all because too much of it came, by kind"
        );
        let gate = |kind: Kind| Gate {
            bucket: Bucket::new(),
            outcomes: ["at_once", "waited", "refused"]
                .map(|outcome| counter!("fanwire_admissions_total", "kind" => kind.name(), "outcome" => outcome)),
        };
        Self { gates: Kind::ALL.map(gate), patience: AtomicU64::new(0) }
    }

    fn limit(&self, config: &AdmissionConfig) {
        let rates = [config.handshakes, config.connects, config.subscribes, config.recoveries];
        self.gates.iter().zip(rates).for_each(|(gate, rate)| gate.bucket.limit(rate));
        self.patience.store(nanos(config.patience), Ordering::Relaxed);
    }

    /// How many wait at most.
    fn line(&self, kind: Kind) -> usize {
        let gap = self.gates[kind as usize].bucket.gap.load(Ordering::Relaxed);
        let patience = self.patience.load(Ordering::Relaxed);
        patience.checked_div(gap).map_or(0, |line| usize::try_from(line).unwrap_or(usize::MAX).min(MAX_LINE))
    }

    /// Waits for a turn.
    pub(crate) async fn admit(&self, kind: Kind) -> Result<(), TooMany> {
        let Gate { bucket, outcomes: [at_once, waited, refused] } = &self.gates[kind as usize];
        let patience = Duration::from_nanos(self.patience.load(Ordering::Relaxed));
        match bucket.take(patience) {
            Ok(Duration::ZERO) => at_once.increment(1),
            Ok(wait) => {
                waited.increment(1);
                tokio::time::sleep(wait).await;
            }
            Err(wait) => {
                refused.increment(1);
                return Err(TooMany::behind(wait));
            }
        }
        Ok(())
    }
}

impl Node {
    /// Takes so much in a second from now on; a new node takes everything.
    pub fn admit_at_most(&self, config: &AdmissionConfig) {
        self.admission().limit(config);
    }

    /// The most openings that wait for their turn at the same moment.
    #[must_use]
    pub fn handshakes_in_line(&self) -> usize {
        self.admission().line(Kind::Handshake)
    }

    /// Waits until the opening of a client connection has its turn.
    ///
    /// # Errors
    ///
    /// There are too many, or the node cannot take any at the moment.
    pub async fn admit_handshake(&self) -> Result<(), TooMany> {
        if self.shedding().gives_up(Relief::Handshakes) {
            return Err(TooMany::behind(OVERLOADED));
        }
        self.admission().admit(Kind::Handshake).await
    }

    /// Waits until something that a client asks for has its turn.
    ///
    /// # Errors
    ///
    /// Code 111: there are too many.
    pub(crate) async fn admit(&self, kind: Kind) -> Result<(), Refusal> {
        self.admission().admit(kind).await.map_err(|TooMany { .. }| Refusal::TooManyRequests)
    }
}

/// When to ask a node again that is overloaded, at the earliest.
const OVERLOADED: Duration = Duration::from_secs(2);

/// The most openings that may wait, whatever the rate: each is a descriptor and some kilobytes.
const MAX_LINE: usize = 16 * 1024;

/// Over which time those who are refused come back, at least.
const DITHER: Duration = Duration::from_secs(4);

/// A token bucket whose line is a number: when the next one would have its turn. Shared by all threads without a lock.
#[derive(Debug)]
struct Bucket {
    start: Instant,
    /// Nanoseconds since the start.
    next: AtomicU64,
    /// Nanoseconds between two turns; 0 for no limit.
    gap: AtomicU64,
}

impl Bucket {
    fn new() -> Self {
        Self { start: Instant::now(), next: AtomicU64::new(0), gap: AtomicU64::new(0) }
    }

    /// Takes so many in a second from now on; 0 for no limit.
    fn limit(&self, per_second: u32) {
        let gap = 1_000_000_000_u64.checked_div(per_second.into()).unwrap_or_default();
        self.gap.store(gap, Ordering::Relaxed);
    }

    /// Takes the next turn and returns how long it is until then; or takes none and returns how long the line is, if that is
    /// longer than `patience`.
    fn take(&self, patience: Duration) -> Result<Duration, Duration> {
        let gap = self.gap.load(Ordering::Relaxed);
        if gap == 0 {
            return Ok(Duration::ZERO);
        }
        let now = nanos(self.start.elapsed());
        // What was not used up to half a second ago still can be.
        let earliest = now.saturating_sub(nanos(BURST));
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let turn = next.max(earliest);
            (turn.saturating_sub(now) <= nanos(patience)).then(|| turn + gap)
        });
        let until = |next: u64| Duration::from_nanos(next.max(earliest).saturating_sub(now));
        taken.map(until).map_err(until)
    }
}

/// How much unused time counts.
const BURST: Duration = Duration::from_millis(500);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::advance;

    use super::*;

    fn admission(handshakes: u32, patience: u64) -> Admission {
        let admission = Admission::new();
        admission.limit(&AdmissionConfig { handshakes, patience: Duration::from_secs(patience), ..Default::default() });
        admission
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_at_once_gets_its_turns_or_is_refused() {
        let admission = admission(100, 2);
        // Nothing was unused yet.
        let start = Instant::now();
        let came =
            join_all((0..1000).map(|_| async { (admission.admit(Kind::Handshake).await, start.elapsed()) })).await;
        let (admitted, refused): (Vec<_>, Vec<_>) = came.into_iter().partition(|(outcome, _)| outcome.is_ok());
        assert_eq!((admitted.len(), refused.len()), (201, 799), "two seconds' worth, and the first");
        for second in 0..2 {
            let within = admitted.iter().filter(|(_, at)| at.as_secs() == second).count();
            assert!((100..=101).contains(&within), "{within} in second {second}");
        }
        let after: Vec<_> = refused.iter().map(|(outcome, _)| outcome.unwrap_err().retry_after.as_secs_f64()).collect();
        assert!(after.iter().all(|after| (2.0..=8.1).contains(after)), "{after:?}");
        let early = after.iter().filter(|after| **after < 4.5).count();
        assert!((100..=700).contains(&early), "they are spread: {early}");
    }

    #[tokio::test(start_paused = true)]
    async fn unused_turns_count_for_half_a_second() {
        let bucket = Bucket::new();
        bucket.limit(100);
        advance(Duration::from_secs(60)).await;
        let at_once = std::iter::repeat_with(|| bucket.take(Duration::from_secs(1)))
            .take_while(|turn| *turn == Ok(Duration::ZERO));
        assert_eq!(at_once.count(), 51);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_no_limit_and_kinds_are_apart() {
        let admission = Admission::new();
        admission.limit(&AdmissionConfig {
            handshakes: 0,
            connects: 1,
            patience: Duration::ZERO,
            ..AdmissionConfig::default()
        });
        for _ in 0..10_000 {
            admission.admit(Kind::Handshake).await.unwrap();
        }
        admission.admit(Kind::Connect).await.unwrap();
        admission.admit(Kind::Connect).await.unwrap_err();
        admission.admit(Kind::Subscribe).await.unwrap();
    }

    #[test]
    fn threads_share_a_bucket() {
        let bucket = Bucket::new();
        bucket.limit(1000);
        let taken = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| bucket.take(Duration::from_secs(1)).is_ok()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert!((1000..1500).contains(&taken), "{taken}");
    }
}
