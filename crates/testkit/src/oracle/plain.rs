//! Publications without a position: nothing twice, one order for all, loss counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::log::Event;
use super::report::{Report, Rule};

/// What the subscribers of one channel saw of such publications.
#[derive(Debug, Default)]
pub(super) struct Plain<'a> {
    subscribers: BTreeMap<&'a str, Subscriber>,
    acked: BTreeSet<u64>,
}

/// The publications one client saw, cut at each subscription.
#[derive(Debug, Default)]
struct Subscriber {
    segments: Vec<Vec<u64>>,
    live: bool,
}

impl<'a> Plain<'a> {
    pub(super) fn acked(&mut self, pub_id: u64) {
        self.acked.insert(pub_id);
    }

    /// Takes what a client saw.
    pub(super) fn see(&mut self, name: &'a str, channel: &str, event: &Event, report: &mut Report) {
        let subscriber = self.subscribers.entry(name).or_default();
        match event {
            Event::Subscribed { .. } => {
                subscriber.segments.push(Vec::new());
                subscriber.live = true;
            }
            Event::Unsubscribed { .. } | Event::Disconnected { .. } => subscriber.live = false,
            Event::Publication { at: None, pub_id: Some(pub_id) } => match subscriber.segments.last_mut() {
                Some(segment) if subscriber.live => segment.push(*pub_id),
                _ => report
                    .violation(Rule::Plain, || format!("{name} on {channel} gets {pub_id} without a subscription")),
            },
            Event::Publication { .. } => {}
        }
    }

    /// The end of the log.
    pub(super) fn end(&self, channel: &str, report: &mut Report) {
        let mut seen = HashSet::new();
        let mut sequences = Vec::new();
        for (name, subscriber) in &self.subscribers {
            for segment in &subscriber.segments {
                // Over two subscriptions, on two nodes, the same one may come again.
                let mut own = HashSet::new();
                let (new, again): (Vec<u64>, Vec<u64>) = segment.iter().partition(|pub_id| own.insert(**pub_id));
                report.duplicated += again.len();
                for pub_id in again {
                    report.violation(Rule::Plain, || format!("{name} on {channel} gets {pub_id} again"));
                }
                sequences.push(new);
                seen.extend(own);
            }
        }
        if !self.subscribers.is_empty() {
            report.unseen_plain += self.acked.iter().filter(|pub_id| !seen.contains(pub_id)).count();
        }
        order(channel, &sequences, report);
    }
}

/// Looks for an order that all of them agree with, and counts what each lacks of it between its first and its last.
fn order(channel: &str, sequences: &[Vec<u64>], report: &mut Report) {
    let order = Order::new(sequences);
    let knotted = order.knotted();
    if !knotted.is_empty() {
        report.reordered += 1;
        report.violation(Rule::Plain, || {
            format!("the subscribers of {channel} do not agree on the order of {:?}", &knotted[..knotted.len().min(10)])
        });
        return;
    }
    for sequence in sequences {
        let (Some(first), Some(last)) = (sequence.first(), sequence.last()) else { continue };
        report.lost_plain += order.between(*first, *last) + 1 - sequence.len();
    }
}

/// What followed what, for anybody.
struct Order {
    followers: HashMap<u64, Vec<u64>>,
    /// The number of direct predecessors.
    waits_for: BTreeMap<u64, usize>,
    /// The place of each in one order that agrees with all.
    rank: HashMap<u64, usize>,
}

impl Order {
    fn new(sequences: &[Vec<u64>]) -> Self {
        let mut order = Self { followers: HashMap::new(), waits_for: BTreeMap::new(), rank: HashMap::new() };
        let mut pairs = HashSet::new();
        for sequence in sequences {
            sequence.iter().for_each(|pub_id| *order.waits_for.entry(*pub_id).or_default() += 0);
            for pair in sequence.windows(2) {
                if pairs.insert((pair[0], pair[1])) {
                    order.followers.entry(pair[0]).or_default().push(pair[1]);
                    *order.waits_for.entry(pair[1]).or_default() += 1;
                }
            }
        }
        let mut waits_for = order.waits_for.clone();
        let mut ready: Vec<u64> = waits_for.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        while let Some(pub_id) = ready.pop() {
            order.rank.insert(pub_id, order.rank.len());
            for follower in order.followers.get(&pub_id).into_iter().flatten() {
                let Some(count) = waits_for.get_mut(follower) else { continue };
                *count -= 1;
                if *count == 0 {
                    ready.push(*follower);
                }
            }
        }
        order
    }

    /// Those that come before themselves, or behind such ones.
    fn knotted(&self) -> Vec<u64> {
        self.waits_for.keys().filter(|pub_id| !self.rank.contains_key(pub_id)).copied().collect()
    }

    /// How many steps lie between two, on the longest way: whoever saw the ones on it saw them in this order.
    fn between(&self, first: u64, last: u64) -> usize {
        let rank = |pub_id: u64| self.rank.get(&pub_id).copied().unwrap_or_default();
        let end = rank(last);
        let mut longest = HashMap::from([(first, 0_usize)]);
        let mut open = BTreeMap::from([(rank(first), first)]);
        while let Some((_, pub_id)) = open.pop_first() {
            let steps = longest.get(&pub_id).copied().unwrap_or_default() + 1;
            for follower in self.followers.get(&pub_id).into_iter().flatten().filter(|id| rank(**id) <= end) {
                let known = longest.entry(*follower).or_default();
                *known = steps.max(*known);
                open.insert(rank(*follower), *follower);
            }
        }
        longest.get(&last).copied().unwrap_or_default()
    }
}
