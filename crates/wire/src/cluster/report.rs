//! What a node has to do: what people who look at a cluster want to see.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use super::{channel, proto};
use crate::Channel;

/// How much a node does, and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Publications the broker has acknowledged to it, since its start.
    pub publications: u64,
    /// Publications, joins and leaves given to clients, since its start.
    pub deliveries: u64,
    /// The bytes of those, since its start.
    pub delivered_bytes: u64,
    /// Bytes that wait for full sockets.
    pub waiting_bytes: u64,
    /// From a publication's dispatch until it has left for all subscribers of a worker, in whole microseconds: half of them in
    /// the last seconds took no longer. Zero if there were none.
    pub median: Duration,
    /// The same of 99 of 100.
    pub p99: Duration,
}

/// What stands out on a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The channels with the most deliveries in the last seconds, hottest first.
    pub channels: Vec<HotChannel>,
    /// The clients for which the most bytes wait, slowest first.
    pub clients: Vec<SlowClient>,
}

/// A channel with many deliveries.
#[derive(Clone, Debug, PartialEq)]
pub struct HotChannel {
    /// Which.
    pub channel: Channel,
    /// Its subscriptions.
    pub subscribers: u64,
    /// Publications in a second.
    pub publications_per_second: f64,
    /// What becomes of them: one delivery for each subscriber.
    pub deliveries_per_second: f64,
}

/// A client that does not take what is sent to it as fast as it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlowClient {
    /// The connection's id.
    pub client: String,
    /// The user's; empty for an anonymous one.
    pub user: String,
    /// The protocol it speaks.
    pub protocol: String,
    /// The bytes that wait for it.
    pub waiting_bytes: u64,
}

impl Report {
    /// Adds up what several workers or nodes say, and keeps the first `limit` of each list. Deliveries and subscribers add up; a
    /// publication reaches all of them, so the most of one is what there is.
    #[must_use]
    pub fn sum(parts: impl IntoIterator<Item = Self>, limit: usize) -> Self {
        let mut by_name: HashMap<Channel, HotChannel> = HashMap::new();
        let mut clients = Vec::new();
        for part in parts {
            clients.extend(part.clients);
            for more in part.channels {
                match by_name.entry(more.channel.clone()) {
                    Entry::Vacant(place) => drop(place.insert(more)),
                    Entry::Occupied(mut hot) => {
                        let hot = hot.get_mut();
                        hot.subscribers += more.subscribers;
                        hot.deliveries_per_second += more.deliveries_per_second;
                        hot.publications_per_second = hot.publications_per_second.max(more.publications_per_second);
                    }
                }
            }
        }
        let mut channels: Vec<_> = by_name.into_values().collect();
        channels.sort_by(|a, b| b.deliveries_per_second.total_cmp(&a.deliveries_per_second));
        channels.truncate(limit);
        clients.sort_by_key(|client: &SlowClient| std::cmp::Reverse(client.waiting_bytes));
        clients.truncate(limit);
        Self { channels, clients }
    }
}

impl From<&Traffic> for proto::Traffic {
    fn from(traffic: &Traffic) -> Self {
        let Traffic { publications, deliveries, delivered_bytes, waiting_bytes, median, p99 } = *traffic;
        let micros = |duration: Duration| duration.as_micros() as u64;
        Self {
            publications,
            deliveries,
            delivered_bytes,
            waiting_bytes,
            median_us: micros(median),
            p99_us: micros(p99),
        }
    }
}

impl From<proto::Traffic> for Traffic {
    fn from(traffic: proto::Traffic) -> Self {
        let proto::Traffic { publications, deliveries, delivered_bytes, waiting_bytes, median_us, p99_us } = traffic;
        let (median, p99) = (Duration::from_micros(median_us), Duration::from_micros(p99_us));
        Self { publications, deliveries, delivered_bytes, waiting_bytes, median, p99 }
    }
}

impl From<&Report> for proto::Report {
    fn from(Report { channels, clients }: &Report) -> Self {
        let hot = |hot: &HotChannel| proto::HotChannel {
            channel: hot.channel.as_str().to_owned(),
            subscribers: hot.subscribers,
            publications_per_second: hot.publications_per_second,
            deliveries_per_second: hot.deliveries_per_second,
        };
        let slow = |slow: &SlowClient| {
            let SlowClient { client, user, protocol, waiting_bytes } = slow.clone();
            proto::SlowClient { client, user, protocol, waiting_bytes }
        };
        Self { channels: channels.iter().map(hot).collect(), clients: clients.iter().map(slow).collect() }
    }
}

impl Report {
    /// `None` if a channel's name is none.
    pub(super) fn read(proto::Report { channels, clients }: proto::Report) -> Option<Self> {
        let hot = |hot: proto::HotChannel| {
            Some(HotChannel {
                channel: channel(&hot.channel).ok()?,
                subscribers: hot.subscribers,
                publications_per_second: hot.publications_per_second,
                deliveries_per_second: hot.deliveries_per_second,
            })
        };
        let slow = |slow: proto::SlowClient| {
            let proto::SlowClient { client, user, protocol, waiting_bytes } = slow;
            SlowClient { client, user, protocol, waiting_bytes }
        };
        Some(Self {
            channels: channels.into_iter().map(hot).collect::<Option<_>>()?,
            clients: clients.into_iter().map(slow).collect(),
        })
    }
}
