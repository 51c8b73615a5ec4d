//! Publications to subscribers, in a closed loop or on a schedule, every delivery checked.
//!
//! A channel's publications are numbered from 1, and every subscriber must see each once and in order. What is missing,
//! repeated or late is counted, the first of it is remembered in words, and the run goes on: how much is lost matters too.

mod schedule;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub(crate) use schedule::Class;

use crate::clock::{self, Deadline};
use crate::dialect::numbers::payload;
use crate::error::Error;
use crate::frames::{NumberRun, Tally};
use crate::layout::Layout;
use crate::monitor::Counter;
use crate::mux::Mux;
use crate::sample::{Own, Sample};
use crate::stats::Histogram;

/// Subscribers, publishers, and what is under way between them.
pub(crate) struct Traffic {
    mux: Mux,
    /// What the last read brought.
    tally: Tally,
    layout: Layout,
    /// What channel names begin with.
    prefix: String,
    payload: u32,
    /// By subscription, the number that must come next.
    expected: Vec<u64>,
    channels: Vec<Channel>,
    /// What is to be sent, by publisher; empty between turns.
    outgoing: Vec<Vec<u8>>,
    /// Publications that have not reached all their subscribers.
    in_flight: usize,
    /// The channel that is published to next, in a closed loop, and how many have their turn.
    turn: u32,
    among: u32,
    deliveries: u64,
    published: u64,
    /// Replies to publishers.
    own_replies: u64,
    /// Replies to subscribers, and how many they are to get.
    replies: u64,
    owed: u64,
    /// Those of them that gave all that was missed.
    recovered: u64,
    faults: Faults,
    own: Own,
    latency: Histogram,
    /// What is published on a schedule; none in a closed loop.
    classes: Vec<Class>,
    /// From due to sent, on a schedule: how late the client itself was.
    late: Histogram,
    curve: Counter,
}

/// Broken promises.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Deliveries that never came.
    pub(crate) lost: u64,
    /// Deliveries that came twice, or behind a later one.
    pub(crate) out_of_order: u64,
    /// The first of them in words.
    pub(crate) first: Option<String>,
}

#[derive(Debug, Default)]
struct Channel {
    /// The number of the first publication in flight.
    oldest: u64,
    flights: VecDeque<Flight>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    /// When it was published, or should have been.
    at: u64,
    /// Subscribers that have not read it.
    missing: u32,
}

/// Numbers of different channels differ in the digits above these.
const CHANNEL: u64 = 1_000_000_000;

/// How long nothing may arrive while publications are in flight.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a repeated delivery is waited for after the last publication.
const AFTERMATH: Duration = Duration::from_millis(50);

impl Traffic {
    /// Traffic over the sockets of `mux`: first those of the layout's subscribers, then the `publishers`.
    pub(crate) fn new(mux: Mux, layout: Layout, publishers: u32, prefix: &str, payload: u32) -> Self {
        let channel = || Channel { oldest: 1, flights: VecDeque::new() };
        Self {
            mux,
            tally: Tally::default(),
            prefix: prefix.to_owned(),
            payload,
            expected: vec![1; layout.subscriptions()],
            channels: (0..layout.channels()).map(|_| channel()).collect(),
            outgoing: vec![Vec::new(); publishers as usize],
            in_flight: 0,
            turn: 0,
            among: layout.channels(),
            deliveries: 0,
            published: 0,
            own_replies: 0,
            replies: 0,
            owed: 0,
            recovered: 0,
            faults: Faults::default(),
            own: Own::default(),
            latency: Histogram::new(),
            classes: Vec::new(),
            late: Histogram::new(),
            curve: Counter::default(),
            layout,
        }
    }

    /// Counts deliveries for a curve, too.
    pub(crate) fn draw(&mut self, curve: Counter) {
        self.curve = curve;
    }

    /// A reading of everything counted so far; `senders` are the processes whose CPU time counts.
    pub(crate) fn sample(&self, senders: &[u32]) -> Result<Sample, Error> {
        Sample::take(&self.mux, senders, self.deliveries, self.own)
    }

    /// Latencies of the closed loop: from publishing to parsed.
    pub(crate) fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// How late publications on a schedule were sent.
    pub(crate) fn late(&self) -> &Histogram {
        &self.late
    }

    /// Forgets the latencies, for a warm-up is not to be seen in them.
    pub(crate) fn forget_latencies(&mut self) {
        self.latency.clear();
        self.late.clear();
        for class in &mut self.classes {
            class.forget();
        }
    }

    /// Publications so far.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// Replies that subscribers got, and how many of them gave all that was missed.
    pub(crate) fn replies(&self) -> (u64, u64) {
        (self.replies, self.recovered)
    }

    /// Promises broken so far.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The sockets.
    pub(crate) fn mux(&mut self) -> &mut Mux {
        &mut self.mux
    }

    /// The layout.
    pub(crate) fn layout(&mut self) -> &mut Layout {
        &mut self.layout
    }

    /// A channel's name.
    pub(crate) fn channel_name(&self, channel: u32) -> String {
        channel_name(&self.prefix, channel)
    }

    /// From here on only the first so many channels have their turn.
    pub(crate) fn publish_among(&mut self, channels: u32) {
        self.turn = 0;
        self.among = channels;
    }

    /// Puts so many publications in flight, to the channels in turn.
    pub(crate) fn fill(&mut self, window: u32) -> Result<(), Error> {
        for _ in 0..window {
            self.publish_next(clock::now());
        }
        self.flush()
    }

    /// Goes on for `span`: on the schedule if there is one, else with as many publications in flight as there are.
    pub(crate) fn run_for(&mut self, span: Duration) -> Result<(), Error> {
        if !self.classes.is_empty() {
            return self.run_on_schedule(span);
        }
        let end = Deadline::after(span);
        let mut unlimited = usize::MAX;
        while !end.passed() {
            self.receive(PATIENCE, &mut unlimited)?;
        }
        Ok(())
    }

    /// Publishes once to every channel, with so many in flight, and waits until all have arrived.
    pub(crate) fn once_each(&mut self, window: u32) -> Result<(), Error> {
        let first = self.layout.channels().min(window);
        let mut left = (self.layout.channels() - first) as usize;
        self.fill(first)?;
        while self.in_flight > 0 {
            self.receive(PATIENCE, &mut left)?;
        }
        Ok(())
    }

    /// Lets what is in flight arrive, and looks whether anything comes behind it.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        while self.in_flight > 0 {
            self.receive(PATIENCE, &mut 0)?;
        }
        let end = Deadline::after(AFTERMATH);
        while !end.passed() {
            self.receive(AFTERMATH, &mut 0)?;
        }
        Ok(())
    }

    /// Reads what is ready. What one read completes is replaced at once, in one write, as long as `more` lasts.
    ///
    /// # Errors
    /// Nothing came for [`PATIENCE`] while something was in flight, or a connection is of no more use.
    fn receive(&mut self, patience: Duration, more: &mut usize) -> Result<(), Error> {
        let ready = self.mux.wait(patience)?;
        if ready == 0 && patience >= PATIENCE && self.in_flight > 0 {
            return Err(self.stalled());
        }
        for slot in 0..ready {
            let in_flight = self.in_flight;
            self.take(slot)?;
            let next = (in_flight - self.in_flight).min(*more);
            if next > 0 {
                *more -= next;
                let at = clock::now();
                (0..next).for_each(|_| self.publish_next(at));
                self.flush()?;
            }
        }
        self.curve.set(self.deliveries);
        Ok(())
    }

    /// Sends a subscriber's command, to which so many replies are owed.
    pub(crate) fn command(&mut self, subscriber: usize, command: &[u8], replies: u64) -> Result<(), Error> {
        self.owed += replies;
        self.mux.send(subscriber, command)
    }

    /// Waits until no more than `left` replies are owed to subscribers.
    pub(crate) fn await_replies(&mut self, left: u64) -> Result<(), Error> {
        self.await_until("replies to subscribers", |traffic| traffic.owed <= traffic.replies + left)
    }

    /// Waits until publishers have got a reply to each publication.
    pub(crate) fn await_publishers(&mut self) -> Result<(), Error> {
        self.await_until("replies to publishers", |traffic| traffic.published <= traffic.own_replies)
    }

    /// Waits until everything published has arrived.
    pub(crate) fn await_arrivals(&mut self) -> Result<(), Error> {
        self.await_until("publications", |traffic| traffic.in_flight == 0)
    }

    fn await_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let mut deadline = Deadline::after(PATIENCE);
        while !done(self) {
            let before = (self.replies, self.own_replies, self.deliveries);
            self.listen(PATIENCE)?;
            if before != (self.replies, self.own_replies, self.deliveries) {
                deadline = Deadline::after(PATIENCE);
            } else if deadline.passed() {
                return Err(Error::Failed(format!("nothing came for {PATIENCE:?} while {what} were awaited")));
            }
        }
        Ok(())
    }

    /// Reads what comes within `patience`.
    ///
    /// # Errors
    /// A connection is of no more use.
    pub(crate) fn listen(&mut self, patience: Duration) -> Result<(), Error> {
        self.receive(patience.min(PATIENCE / 2), &mut 0)
    }

    fn publish_next(&mut self, at: u64) {
        let channel = self.turn;
        self.turn = (channel + 1) % self.among;
        self.publish(channel, at);
    }

    /// Puts a publication into what [`Traffic::flush`] sends. `at` is what latencies are counted from.
    pub(crate) fn publish(&mut self, channel: u32, at: u64) {
        let state = &mut self.channels[channel as usize];
        let number = state.oldest + state.flights.len() as u64;
        self.published += 1;
        let missing = self.layout.audience(channel);
        if missing > 0 {
            state.flights.push_back(Flight { at, missing });
            self.in_flight += 1;
        } else {
            state.oldest += 1;
        }
        let data = payload(u64::from(channel) * CHANNEL + number, self.payload);
        let publisher = channel as usize % self.outgoing.len();
        let name = channel_name(&self.prefix, channel);
        self.outgoing[publisher].extend(self.mux.dialect().publish(self.published, &name, &data));
    }

    /// Sends what was published.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let first = self.layout.subscribers();
        for (publisher, bytes) in self.outgoing.iter_mut().enumerate() {
            if !bytes.is_empty() {
                self.mux.send(first + publisher, bytes)?;
                bytes.clear();
            }
        }
        Ok(())
    }

    /// Reads from a ready socket.
    fn take(&mut self, slot: usize) -> Result<(), Error> {
        let before = self.mux.counters();
        let index = self.mux.read(slot, &mut self.tally)?;
        if index >= self.layout.subscribers() {
            let after = self.mux.counters();
            self.own.reads += after.reads - before.reads;
            self.own.bytes += after.bytes - before.bytes;
            self.own_replies += self.tally.replies;
            return Ok(());
        }
        self.replies += self.tally.replies;
        self.recovered += self.tally.recovered;
        if self.tally.runs.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        for number in 0..self.tally.runs.len() {
            self.deliver(index, self.tally.runs[number], now)?;
        }
        Ok(())
    }

    fn deliver(&mut self, index: usize, run: NumberRun, now: u64) -> Result<(), Error> {
        let (channel, mut first, mut count) = ((run.first / CHANNEL) as u32, run.first % CHANNEL, run.count);
        let Some(subscription) = self.layout.subscription(index, channel) else {
            return Err(Error::Failed(format!(
                "subscriber {index} got a publication of channel {channel}, not its own"
            )));
        };
        let state = &mut self.channels[channel as usize];
        let published = state.oldest + state.flights.len() as u64 - 1;
        let expected = self.expected[subscription];
        if first + count > published + 1 {
            let last = first + count - 1;
            return Err(Error::Failed(format!(
                "subscriber {index} got publication {last}, {published} were published"
            )));
        }
        self.deliveries += count;
        if first < expected {
            let repeated = count.min(expected - first);
            self.faults.out_of_order += repeated;
            self.faults.note(|| {
                format!("subscriber {index} expected publication {expected} of channel {channel} and got {first}")
            });
            first += repeated;
            count -= repeated;
        }
        if count == 0 {
            return Ok(());
        }
        if first > expected {
            self.faults.lost += first - expected;
            self.faults.note(|| {
                format!("subscriber {index} expected publication {expected} of channel {channel} and got {first}")
            });
        }
        let class = self.classes.iter_mut().find(|class| class.channels.contains(&channel));
        let latency = class.map_or(&mut self.latency, |class| &mut class.latency);
        for number in expected..first + count {
            let flight = &mut state.flights[(number - state.oldest) as usize];
            if number >= first {
                latency.record(now.saturating_sub(flight.at));
            }
            flight.missing -= 1;
        }
        self.expected[subscription] = first + count;
        while state.flights.front().is_some_and(|flight| flight.missing == 0) {
            state.flights.pop_front();
            state.oldest += 1;
            self.in_flight -= 1;
        }
        Ok(())
    }

    fn stalled(&mut self) -> Error {
        let missing: u64 =
            self.channels.iter().flat_map(|channel| &channel.flights).map(|f| u64::from(f.missing)).sum();
        self.faults.lost += missing;
        Error::Failed(format!(
            "nothing arrived for {PATIENCE:?}; of {} publications, {} did not reach all subscribers: {missing} deliveries \
             are missing",
            self.published, self.in_flight
        ))
    }
}

impl Faults {
    fn note(&mut self, what: impl FnOnce() -> String) {
        self.first.get_or_insert_with(what);
    }
}

/// The name of a run's channel.
pub(crate) fn channel_name(prefix: &str, channel: u32) -> String {
    format!("{prefix}-{channel}")
}
