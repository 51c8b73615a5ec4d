//! Giving up the less important before everything is lost: what a node does when memory, queues or its workers' time run
//! out. One step after the other as it gets worse, and back one by one when it is better.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use fanwire_wire::{Disconnect, Refusal};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::duration;
use crate::{Node, Worker};

/// The section `[shedding]`: from where on a node gives something up. 0 never.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SheddingConfig {
    /// Percent of the memory limit in use. Default: 80.
    pub memory: u8,
    /// The limit, in bytes, of what the process itself may use; 0 for that of its control group, else of the machine. Default: 0.
    pub memory_limit: usize,
    /// The most bytes that wait for slow clients, all together; from half of it on things are given up. Each worker has an
    /// equal share. Default: 1073741824, or a quarter of the memory limit if that is less.
    pub queue_bytes: usize,
    /// How late a worker comes to everything, for two seconds on end. Default: 500ms.
    #[serde(with = "duration")]
    pub lag: Duration,
}

impl Default for SheddingConfig {
    fn default() -> Self {
        Self { memory: 80, memory_limit: 0, queue_bytes: 1024 * 1024 * 1024, lag: Duration::from_millis(500) }
    }
}

impl SheddingConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        if self.memory > 99 { vec!["memory: at most 99 percent".to_owned()] } else { Vec::new() }
    }
}

/// What is given up: each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Relief {
    /// Nothing.
    #[default]
    Nothing,
    /// New connections are turned away.
    Handshakes,
    /// Presence and history cannot be read.
    Queries,
    /// Joins and leaves are not told.
    Memberships,
    /// Slow clients miss publications that they have no position for.
    Publications,
    /// The slowest clients are ended.
    Slowest,
}

impl Relief {
    const ALL: [Self; 6] =
        [Self::Nothing, Self::Handshakes, Self::Queries, Self::Memberships, Self::Publications, Self::Slowest];

    /// The name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Handshakes => "handshakes",
            Self::Queries => "queries",
            Self::Memberships => "memberships",
            Self::Publications => "publications",
            Self::Slowest => "slowest",
        }
    }

    /// As many steps as there are, at most.
    fn of(steps: f64) -> Self {
        Self::ALL[(steps.max(0.0) as usize).min(Self::ALL.len() - 1)]
    }
}

/// What is given up at the moment, and what the workers measure of themselves. Shared by all threads without a lock.
pub(crate) struct Shedding {
    relief: AtomicU8,
    workers: Box<[Vitals]>,
    /// The most bytes that may wait for the clients of one worker.
    queue_share: Arc<AtomicUsize>,
    /// All but the first.
    shed: [Counter; Relief::ALL.len() - 1],
    gauge: Gauge,
}

/// What a worker measures of itself.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// The least lateness of the last two seconds, in microseconds.
    lag: AtomicU32,
    queued: AtomicUsize,
}

impl Vitals {
    pub(crate) fn set(&self, lag: Duration, queued: usize) {
        self.lag.store(u32::try_from(lag.as_micros()).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.queued.store(queued, Ordering::Relaxed);
    }
}

/// How often the node looks at itself.
const LOOK: Duration = Duration::from_millis(50);

/// How often it has to be better, on end, before it takes one step back.
const CALM: u32 = 40;

/// The most clients of a worker that are ended in one look.
const SLOWEST: usize = 4;

/// Clients for which less waits are not slow.
const SLOW_BYTES: usize = 64 * 1024;

impl Shedding {
    pub(crate) fn new(workers: usize) -> Self {
        describe_gauge!(
            "fanwire_shedding",
            "What is given up: 0 nothing, 1 new connections, 2 reading presence and history, 3 joins and leaves, \
             4 publications for slow clients without a position, 5 the slowest clients; each includes those before it"
        );
        describe_counter!("fanwire_shed_total", "What was given up, by what");
        let gauge = gauge!("fanwire_shedding");
        gauge.set(0.0);
        Self {
            relief: AtomicU8::new(0),
            workers: (0..workers).map(|_| Vitals::default()).collect(),
            queue_share: Arc::new(AtomicUsize::new(usize::MAX)),
            shed: std::array::from_fn(|index| counter!("fanwire_shed_total", "what" => Relief::ALL[index + 1].name())),
            gauge,
        }
    }

    /// What is given up at the moment.
    pub(crate) fn relief(&self) -> Relief {
        Relief::ALL[usize::from(self.relief.load(Ordering::Relaxed))]
    }

    /// Whether this is given up at the moment; if so, it is counted.
    pub(crate) fn gives_up(&self, what: Relief) -> bool {
        let up = self.relief() >= what;
        if up {
            self.count(what, 1);
        }
        up
    }

    pub(crate) fn count(&self, what: Relief, times: u64) {
        if let Some(counter) = (what as usize).checked_sub(1).and_then(|index| self.shed.get(index)) {
            counter.increment(times);
        }
    }

    pub(crate) fn vitals(&self, worker: usize) -> &Vitals {
        &self.workers[worker]
    }

    /// The most bytes that may wait for the clients of one worker. It changes.
    pub(crate) fn queue_share(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.queue_share)
    }

    /// Divides among the workers how many bytes may wait for clients; 0 for any number.
    fn bound_queues(&self, bytes: usize) {
        let share = if bytes == 0 { usize::MAX } else { (bytes / self.workers.len().max(1)).max(1) };
        self.queue_share.store(share, Ordering::Relaxed);
    }

    /// How bad it is, in steps.
    fn needed(&self, config: &SheddingConfig, memory: Option<f64>) -> Relief {
        let threshold = f64::from(config.memory) / 100.0;
        let memory = memory.filter(|memory| config.memory > 0 && *memory >= threshold);
        // Five steps from the threshold to three quarters of the way from there to the limit.
        let by_memory = memory.map_or(0.0, |memory| 1.0 + (memory - threshold) / (1.0 - threshold) * 4.0 / 0.75);
        let queued = self.workers.iter().map(|worker| worker.queued.load(Ordering::Relaxed)).max().unwrap_or_default();
        let over = |ratio: f64| if ratio >= 1.0 { 1.0 + (ratio - 1.0) * 4.0 } else { 0.0 };
        // From half of what may wait to all of it.
        let by_queue = over(2.0 * queued as f64 / self.queue_share.load(Ordering::Relaxed) as f64);
        let lag = self.workers.iter().map(|worker| worker.lag.load(Ordering::Relaxed)).max().unwrap_or_default();
        let lag = Duration::from_micros(lag.into());
        let by_lag = if config.lag.is_zero() { 0.0 } else { over(lag.as_secs_f64() / config.lag.as_secs_f64()) };
        // Ending slow clients would not give the workers time.
        Relief::of(by_memory.max(by_queue)).max(Relief::of(by_lag).min(Relief::Memberships))
    }

    /// Goes to what is needed: up at once, down by one step.
    fn adjust(&self, needed: Relief, calm: &mut u32) -> Relief {
        let now = self.relief();
        *calm = if needed < now { *calm + 1 } else { 0 };
        let next = match () {
            () if needed > now => needed,
            () if *calm >= CALM => {
                *calm = 0;
                Relief::ALL[now as usize - 1]
            }
            () => return now,
        };
        tracing::warn!(from = now.name(), to = next.name(), "what is given up has changed");
        self.relief.store(next as u8, Ordering::Relaxed);
        self.gauge.set(f64::from(next as u8));
        next
    }
}

impl Node {
    /// What the node gives up at the moment.
    #[must_use]
    pub fn relief(&self) -> Relief {
        self.shedding().relief()
    }

    /// Looks for ever at how the node does, and gives up what it must. `memory` says which share of its limit is in use, if it
    /// knows.
    pub async fn keep_afloat(self: Arc<Self>, config: SheddingConfig, mut memory: impl FnMut() -> Option<f64>) {
        self.shedding().bound_queues(config.queue_bytes);
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut calm = 0;
        loop {
            ticks.tick().await;
            let needed = self.shedding().needed(&config, memory());
            if self.shedding().adjust(needed, &mut calm) == Relief::Slowest && needed == Relief::Slowest {
                let ended: usize = self.ask_workers(|worker| end_slowest(worker)).await.into_iter().sum();
                self.shedding().count(Relief::Slowest, ended as u64);
            }
        }
    }

    /// Refuses to read presence and history while that is given up.
    pub(crate) fn answers_queries(&self) -> Result<(), Refusal> {
        if self.shedding().gives_up(Relief::Queries) { Err(Refusal::TooManyRequests) } else { Ok(()) }
    }
}

/// Ends some of those for whom most waits; returns how many.
fn end_slowest(worker: &Worker) -> usize {
    let mut slow: Vec<_> = worker.clients().into_iter().filter(|client| client.blocked_bytes() > SLOW_BYTES).collect();
    slow.sort_by_key(|client| std::cmp::Reverse(client.blocked_bytes()));
    slow.truncate(SLOWEST);
    slow.iter().for_each(|client| client.close(Disconnect::Slow));
    slow.len()
}

impl std::fmt::Debug for Shedding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shedding")
            .field("relief", &self.relief())
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gets_worse_in_steps() {
        let shedding = Shedding::new(2);
        let config = SheddingConfig::default();
        shedding.bound_queues(4000);
        for (memory, expected) in [
            (0.0, Relief::Nothing),
            (0.79, Relief::Nothing),
            (0.80, Relief::Handshakes),
            (0.84, Relief::Queries),
            (0.88, Relief::Memberships),
            (0.92, Relief::Publications),
            (0.951, Relief::Slowest),
            (2.0, Relief::Slowest),
        ] {
            assert_eq!(shedding.needed(&config, Some(memory)), expected, "{memory}");
        }
        assert_eq!(shedding.needed(&config, None), Relief::Nothing, "nobody knows");
        shedding.vitals(0).set(Duration::ZERO, 999);
        assert_eq!(shedding.needed(&config, None), Relief::Nothing);
        shedding.vitals(1).set(Duration::ZERO, 1500);
        assert_eq!(shedding.needed(&config, None), Relief::Memberships, "what waits at the worst worker counts");
        shedding.vitals(1).set(Duration::ZERO, 2000);
        assert_eq!(shedding.needed(&config, None), Relief::Slowest);
        shedding.vitals(1).set(Duration::from_secs(5), 0);
        assert_eq!(shedding.needed(&config, None), Relief::Memberships, "that costs a slow worker no client");
        shedding.bound_queues(0);
        shedding.vitals(0).set(Duration::ZERO, 1 << 40);
        let off = SheddingConfig { memory: 0, lag: Duration::ZERO, ..config };
        assert_eq!(shedding.needed(&off, Some(1.0)), Relief::Nothing);
    }

    #[test]
    fn it_gets_better_one_by_one() {
        let shedding = Shedding::new(1);
        let mut calm = 0;
        assert_eq!(shedding.adjust(Relief::Memberships, &mut calm), Relief::Memberships);
        let mut steps = Vec::new();
        for _ in 0..3 * CALM {
            steps.push(shedding.adjust(Relief::Nothing, &mut calm));
        }
        let expected = [Relief::Memberships, Relief::Queries, Relief::Handshakes, Relief::Nothing];
        steps.dedup();
        assert_eq!(steps, expected);
        shedding.adjust(Relief::Queries, &mut calm);
        for _ in 0..CALM - 1 {
            shedding.adjust(Relief::Nothing, &mut calm);
        }
        shedding.adjust(Relief::Queries, &mut calm);
        assert_eq!(shedding.adjust(Relief::Nothing, &mut calm), Relief::Queries, "the calm begins anew");
    }
}
