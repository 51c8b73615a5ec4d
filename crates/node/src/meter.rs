//! What a worker measures of itself, period by period: how long deliveries take, and which channels cause most of them.
//!
//! What is asked for is that of the last whole period. Counting costs a few instructions for each broadcast and worker,
//! whatever the number of its subscribers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fanwire_wire::cluster::HotChannel;
use tokio::time::Instant;

use crate::hub::LocalChannel;

/// The measurements of a worker.
pub(crate) struct Meter {
    /// The number of the period.
    period: Cell<u32>,
    begun: Cell<Instant>,
    latencies: RefCell<Latencies>,
    hot: RefCell<Hot>,
    last: RefCell<(Latencies, Vec<HotChannel>)>,
}

/// How long a period is.
pub(crate) const PERIOD: Duration = Duration::from_secs(5);

/// The channels of which a worker knows how hot they are.
pub(crate) const MAX_HOT: usize = 32;

impl Meter {
    /// A broadcast has left for all its subscribers, so long after it came.
    pub(crate) fn delivered(&self, after: Duration) {
        self.latencies.borrow_mut().add(after);
    }

    /// A publication was dispatched to so many subscribers of a channel.
    pub(crate) fn dispatched(&self, channel: &Rc<LocalChannel>, subscribers: usize) {
        let subscribers = u32::try_from(subscribers).unwrap_or(u32::MAX);
        self.hot.borrow_mut().count(channel, subscribers, self.period.get());
    }

    /// Begins another period if this one is over.
    pub(crate) fn tick(&self) {
        let now = Instant::now();
        let length = now - self.begun.get();
        if length >= PERIOD {
            self.begun.set(now);
            self.period.set(self.period.get().wrapping_add(1));
            *self.last.borrow_mut() = (self.latencies.take(), self.hot.take().rates(length));
        }
    }

    pub(crate) fn latencies(&self) -> Latencies {
        self.last.borrow().0.clone()
    }

    /// The hottest channels, hottest first.
    pub(crate) fn hottest(&self, most: usize) -> Vec<HotChannel> {
        self.last.borrow().1.iter().take(most).cloned().collect()
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            // A channel that was never counted has the number 0.
            period: Cell::new(1),
            begun: Cell::new(Instant::now()),
            latencies: RefCell::default(),
            hot: RefCell::default(),
            last: RefCell::default(),
        }
    }
}

/// Durations, counted in classes an eighth of an octave wide: a quantile is at most an eighth too long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    /// By class; as long as the longest needs.
    counts: Vec<u32>,
}

impl Latencies {
    fn add(&mut self, duration: Duration) {
        let class = Self::class(duration);
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0);
        }
        self.counts[class] = self.counts[class].saturating_add(1);
    }

    /// Adds those of another worker.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }

    /// What this share of all took at most; zero if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let all: u64 = self.counts.iter().copied().map(u64::from).sum();
        let rank = (all as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = |count: &u32| {
            seen += u64::from(*count);
            seen >= rank
        };
        self.counts.iter().position(reached).map_or(Duration::ZERO, Self::end)
    }

    /// Up to 8 µs each one has its class; from there on eight classes double it.
    fn class(duration: Duration) -> usize {
        let micros = (duration.as_micros() as u64).min(Self::MAX_MICROS);
        let shift = micros.checked_ilog2().unwrap_or(0).saturating_sub(3);
        (8 * shift + (micros >> shift) as u32) as usize
    }

    /// The end of a class.
    fn end(class: usize) -> Duration {
        let shift = (class / 8).saturating_sub(1);
        Duration::from_micros(((class - 8 * shift) as u64 + 1) << shift)
    }

    /// Whatever takes longer than a minute is out of all measure, and bounds the classes.
    const MAX_MICROS: u64 = 60_000_000;
}

/// How hot a channel is in a period, which is far too short for numbers that these could not hold.
#[derive(Default)]
pub(crate) struct Heat {
    period: Cell<u32>,
    publications: Cell<u32>,
    deliveries: Cell<u32>,
    listed: Cell<bool>,
}

/// The hottest channels of a period: exactly those, however many others there are. One that belongs to them was counted last
/// when it was hotter than the coolest in the list, for that one only gets hotter.
#[derive(Default)]
struct Hot {
    list: Vec<Rc<LocalChannel>>,
    /// No channel of a full list is cooler.
    floor: u32,
}

impl Hot {
    fn count(&mut self, channel: &Rc<LocalChannel>, subscribers: u32, period: u32) {
        let heat = &channel.heat;
        if heat.period.replace(period) != period {
            heat.publications.set(0);
            heat.deliveries.set(0);
            heat.listed.set(false);
        }
        heat.publications.set(heat.publications.get().saturating_add(1));
        heat.deliveries.set(heat.deliveries.get().saturating_add(subscribers));
        if heat.listed.get() || heat.deliveries.get() <= self.floor {
            return;
        }
        if self.list.len() < MAX_HOT {
            heat.listed.set(true);
            self.list.push(Rc::clone(channel));
            return;
        }
        let Some(coolest) = self.list.iter_mut().min_by_key(|channel| channel.heat.deliveries.get()) else { return };
        self.floor = coolest.heat.deliveries.get();
        if heat.deliveries.get() > self.floor {
            heat.listed.set(true);
            coolest.heat.listed.set(false);
            *coolest = Rc::clone(channel);
        }
    }

    /// The list in a form that keeps no channel alive.
    fn rates(self, length: Duration) -> Vec<HotChannel> {
        let seconds = length.as_secs_f64();
        let hot = |channel: Rc<LocalChannel>| HotChannel {
            channel: channel.name.clone(),
            subscribers: channel.members() as u64,
            publications_per_second: f64::from(channel.heat.publications.get()) / seconds,
            deliveries_per_second: f64::from(channel.heat.deliveries.get()) / seconds,
        };
        let mut list = self.list;
        list.sort_by_key(|channel| std::cmp::Reverse(channel.heat.deliveries.get()));
        list.into_iter().map(hot).collect()
    }
}

#[cfg(test)]
mod tests {
    use fanwire_wire::Channel;
    use tokio::time::advance;

    use super::*;
    use crate::hub::Hub;

    #[test]
    fn quantiles_are_an_eighth_too_long_at_most() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        for micros in 1..=1000 {
            latencies.add(Duration::from_micros(micros));
        }
        let mut other = Latencies::default();
        other.add(Duration::from_secs(1000));
        latencies.merge(&other);
        for (share, exact) in [(0.0, 1), (0.5, 501), (0.99, 991), (1.0, 60_000_000)] {
            let (quantile, exact) = (latencies.quantile(share), Duration::from_micros(exact));
            assert!(
                quantile > exact && quantile <= exact.mul_f64(1.126).max(exact + Duration::from_micros(1)),
                "{quantile:?} for {exact:?}"
            );
        }
    }

    #[test]
    fn every_duration_is_in_the_class_that_ends_behind_it() {
        for micros in (0..5000).chain([59_999_999, 60_000_000]) {
            let class = Latencies::class(Duration::from_micros(micros));
            assert!(Latencies::end(class) > Duration::from_micros(micros), "{micros}");
            assert!(class == 0 || Latencies::end(class - 1) <= Duration::from_micros(micros), "{micros}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_hottest_are_known_exactly_and_of_the_last_period() {
        let (hub, meter) = (Hub::default(), Meter::default());
        let channels: Vec<_> = (0..500).map(|n| hub.channel(&Channel::new(&format!("c{n}")).unwrap())).collect();
        // All take turns; the higher the number the hotter.
        for round in 0..500 {
            channels[round..].iter().for_each(|channel| meter.dispatched(channel, 3));
        }
        meter.tick();
        assert!(meter.hottest(MAX_HOT).is_empty(), "the period is not over");
        advance(PERIOD).await;
        meter.tick();
        let names = |most| meter.hottest(most).into_iter().map(|hot| hot.channel.to_string()).collect::<Vec<_>>();
        assert_eq!(names(MAX_HOT), (500 - MAX_HOT..500).rev().map(|n| format!("c{n}")).collect::<Vec<_>>());
        let hottest = &meter.hottest(1)[0];
        assert_eq!((hottest.publications_per_second, hottest.deliveries_per_second), (100.0, 300.0));

        meter.dispatched(&channels[0], 1);
        advance(PERIOD).await;
        meter.tick();
        assert_eq!(names(MAX_HOT), ["c0"]);
        assert_eq!(meter.hottest(1)[0].publications_per_second, 0.2, "what was counted before is over");
        channels.iter().for_each(|channel| assert_eq!(Rc::strong_count(channel), 2, "nothing keeps it alive"));
    }
}
