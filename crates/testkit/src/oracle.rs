//! What subscribers saw against what was published: nothing lost in silence, nothing twice, nothing out of order.
//!
//! Publishers and clients write a [`Log`]; at the end the streams are read into it, and [`Log::judge`] compares. The rules
//! are the [`Rule`]s. A subscriber counts as *told* of a gap by an unsubscribe (2500) or disconnect (3010) for insufficient
//! state, or when a recovery fails; whoever is told begins anew, whoever is not told must have everything.

mod log;
mod plain;
mod report;
mod segment;
mod truth;

use std::collections::{BTreeMap, HashMap};

pub use log::{At, Entry, Event, Figure, Log, Marker, Outcome, Published, Record, Seen, Settled, Stream, Trimmed};
pub use report::{Report, Rule, Violation};

use plain::Plain;
use segment::Subscription;
use truth::Truth;

/// The code of an unsubscribe that tells of a gap.
pub const INSUFFICIENT_STATE_UNSUBSCRIBE: u32 = 2500;

/// The code of a disconnect that tells of a gap.
pub const INSUFFICIENT_STATE: u32 = 3010;

/// What the oracle has to know of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The most publications a recovery can bring: who missed more may be refused. Default: no bound.
    pub recoverable: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { recoverable: usize::MAX }
    }
}

impl Log {
    /// Compares what was seen with what was published.
    #[must_use]
    pub fn judge(&self, rules: &Rules) -> Report {
        let mut report = Report::default();
        let mut book = Book::default();
        self.records.iter().for_each(|record| book.take(record, &mut report));
        book.close(rules, &mut report);
        report
    }
}

/// A log, sorted.
#[derive(Default)]
struct Book<'a> {
    channels: BTreeMap<&'a str, Channel<'a>>,
    /// The publications that exist, each with how often it may stand in its stream.
    attempts: HashMap<(&'a str, u64), Attempts<'a>>,
}

#[derive(Default)]
struct Channel<'a> {
    truth: Truth<'a>,
    plain: Plain<'a>,
    subscribers: BTreeMap<&'a str, Vec<Line<'a>>>,
}

/// What concerns one subscriber, in order.
#[derive(Clone, Copy)]
enum Line<'a> {
    Event(&'a Event),
    Marker(u64),
    Settled(&'a At),
}

#[derive(Default)]
struct Attempts<'a> {
    /// All attempts with a key together may be applied once.
    keyed: bool,
    unkeyed: usize,
    /// Where it stands, as acknowledged.
    acked: Option<&'a Option<At>>,
}

impl<'a> Book<'a> {
    fn take(&mut self, record: &'a Record, report: &mut Report) {
        match record {
            Record::Published(published) => self.published(published, report),
            Record::Seen(Seen { subscriber, channel, event }) => {
                let channel = self.channels.entry(channel).or_default();
                channel.subscribers.entry(subscriber).or_default().push(Line::Event(event));
                if let Event::Publication { at: Some(at), pub_id } = event
                    && let Err(contradiction) = channel.truth.learn(at, *pub_id, subscriber)
                {
                    report.violation(Rule::Agreement, || contradiction.0);
                }
            }
            Record::Stream(stream) => {
                let channel = self.channels.entry(&stream.channel).or_default();
                if let Err(contradiction) = channel.truth.read(stream) {
                    report.violation(Rule::Agreement, || contradiction.0);
                }
            }
            Record::Trimmed(Trimmed { channel, at }) => self.channels.entry(channel).or_default().truth.trimmed(at),
            Record::Marker(Marker { channel, pub_id }) => self.tell_all(channel, Line::Marker(*pub_id)),
            Record::Settled(Settled { channel, top }) => self.tell_all(channel, Line::Settled(top)),
            Record::Figure(figure) => {
                if figure.at_most.is_some_and(|bound| figure.value.is_nan() || figure.value > bound) {
                    report.violation(Rule::Figure, || {
                        format!("{} is {}, over {:?}", figure.name, figure.value, figure.at_most)
                    });
                }
                report.figures.push(figure.clone());
            }
        }
    }

    fn tell_all(&mut self, channel: &'a str, line: Line<'a>) {
        let subscribers = &mut self.channels.entry(channel).or_default().subscribers;
        subscribers.values_mut().for_each(|lines| lines.push(line));
    }

    fn published(&mut self, published: &'a Published, report: &mut Report) {
        let Published { pub_id, channel: name, key, outcome } = published;
        let attempts = self.attempts.entry((name, *pub_id)).or_default();
        attempts.keyed |= key.is_some();
        attempts.unkeyed += usize::from(key.is_none());
        let Outcome::Acked(at) = outcome else { return };
        let channel = self.channels.entry(name).or_default();
        match at {
            None => channel.plain.acked(*pub_id),
            Some(at) => {
                if let Err(contradiction) = channel.truth.acked(at, *pub_id) {
                    report.violation(Rule::Agreement, || contradiction.0);
                }
            }
        }
        match attempts.acked {
            None => {
                report.acked += 1;
                attempts.acked = Some(at);
            }
            Some(before) if key.is_some() && before != at => {
                report.violation(Rule::Idempotency, || {
                    format!("{name}: {pub_id} is acknowledged at {before:?} and {at:?}")
                });
            }
            Some(_) => {}
        }
    }

    fn close(mut self, rules: &Rules, report: &mut Report) {
        for (name, channel) in &mut std::mem::take(&mut self.channels) {
            channel.truth.settle();
            report.acked_but_lost += channel.truth.acked_but_lost();
            once_in_the_stream(name, &channel.truth, &self.attempts, report);
            for (subscriber, lines) in &channel.subscribers {
                let mut subscription = Subscription::new(format!("{subscriber} on {name}"), &channel.truth, rules);
                for line in lines {
                    match line {
                        Line::Event(event) => {
                            self.check_publication(name, subscriber, event, report);
                            channel.plain.see(subscriber, name, event, report);
                            subscription.see(event, report);
                        }
                        Line::Marker(pub_id) => subscription.expect(*pub_id),
                        Line::Settled(top) => subscription.settle(top, report),
                    }
                }
                subscription.end(report);
            }
            channel.plain.end(name, report);
        }
    }

    fn check_publication(&self, name: &'a str, subscriber: &str, event: &Event, report: &mut Report) {
        let Event::Publication { pub_id, .. } = event else { return };
        report.delivered += 1;
        if pub_id.is_none_or(|pub_id| !self.attempts.contains_key(&(name, pub_id))) {
            report.phantom += 1;
            report.violation(Rule::NoPhantom, || format!("{subscriber} on {name} gets {event:?}"));
        }
    }
}

/// Each publication stands in its stream as often as it may.
fn once_in_the_stream(
    name: &str,
    truth: &Truth<'_>,
    attempts: &HashMap<(&str, u64), Attempts<'_>>,
    report: &mut Report,
) {
    let mut places: BTreeMap<u64, Vec<(&str, u64)>> = BTreeMap::new();
    for (epoch, offset, pub_id) in truth.kept() {
        places.entry(pub_id).or_default().push((epoch, offset));
    }
    for (pub_id, places) in places {
        let allowed = attempts.get(&(name, pub_id)).map_or(0, |made| usize::from(made.keyed) + made.unkeyed);
        // What nobody published is found where it is delivered.
        if allowed > 0 && places.len() > allowed {
            report.violation(Rule::Idempotency, || format!("{name}: {pub_id} stands at {places:?}"));
        }
    }
}
