//! One unbroken sequence per channel, whatever the way from the broker does.

mod memory;
mod metrics;
mod recent;
mod resume;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::{Broadcast, Channel, Position, Publication};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::Dispatcher;
use crate::broker::{Error, History, HistoryQuery, Order, Retention};
use memory::Memory;
use metrics::Metrics;
use recent::Recent;
use resume::Flight;

/// Stands between a broker whose deliveries can fail and the [`Dispatcher`]: follows the links of the publications of each
/// channel, and reads what is missing from the history, once per channel however many subscribers it has. It remembers the
/// latest publications of channels whose subscribers go on where they stood, so that those who come back cost the broker
/// nothing ([`Sequencer::resume`]).
///
/// Only what is gone for good reaches the workers as a gap; they tell the subscribers concerned.
pub struct Sequencer {
    dispatcher: Arc<Dispatcher>,
    read: ReadHistory,
    tracks: Mutex<Tracks>,
    /// Bound the reads that run at the same time. Two, so that subscribers do not wait behind repairs that find no broker.
    repairs: Semaphore,
    flights: Semaphore,
    metrics: Metrics,
}

/// How a sequencer reads a channel's history.
pub type ReadHistory =
    Box<dyn Fn(Channel, HistoryQuery) -> BoxFuture<'static, Result<History, Error>> + Send + Sync + 'static>;

/// What a difference between a channel's position and its stream's end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Something may have been missed: repair at once.
    Suspicious,
    /// Publications may be on their way: repair what has not come by the next comparison.
    Routine,
}

struct Tracks {
    channels: HashMap<Channel, Track>,
    lives: u64,
    memory: Memory,
}

/// Where a channel stands.
#[derive(Default)]
struct Track {
    /// Tells this track from an earlier one of the same channel.
    life: u64,
    at: Option<Position>,
    /// `at` was dispatched. Else it was only read, and what lies before it may still be on its way.
    dispatched: bool,
    /// What arrived since the running repair has begun to read.
    repair: Option<Held>,
    /// The end of the stream at the last comparison.
    due: Option<Position>,
    /// What the channel keeps; known once a subscriber has asked where to go on.
    retention: Option<Retention>,
    recent: Recent,
    /// Its bytes in the account of [`Memory`], and its place there.
    counted: usize,
    age: Option<u64>,
    /// `recent` was of use since it got that place.
    used: bool,
    flight: Option<Flight>,
    /// When publications were last read for subscribers.
    read_at: Option<Instant>,
}

#[derive(Default)]
struct Held {
    publications: Vec<Arc<Publication>>,
    overflowed: bool,
}

enum Next {
    Dispatch,
    Seen,
    Broken,
}

/// The reads of each kind that run at the same time.
const MAX_READS: usize = 64;

/// The publications of one read.
const PAGE: usize = 512;

/// The most publications held during one read; with more there is another read.
const MAX_HELD: usize = 1024;

/// How long a failed read waits for its repetition, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl Sequencer {
    /// Makes the sequencer of the node that owns `dispatcher`.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>, read: ReadHistory) -> Arc<Self> {
        let (metrics, remembered) = (Metrics::new(), metrics::recent_bytes());
        Arc::new(Self {
            dispatcher,
            read,
            tracks: Mutex::new(Tracks { channels: HashMap::new(), lives: 0, memory: Memory::new(remembered) }),
            repairs: Semaphore::new(MAX_READS),
            flights: Semaphore::new(MAX_READS),
            metrics,
        })
    }

    /// Begins to follow a channel; called before the broker delivers it. Changes nothing for one that is followed.
    pub fn follow(&self, channel: &Channel) {
        let mut tracks = self.tracks.lock();
        if !tracks.channels.contains_key(channel) {
            tracks.lives += 1;
            let track = Track { life: tracks.lives, ..Track::default() };
            tracks.channels.insert(channel.clone(), track);
        }
    }

    /// Forgets a channel that the broker delivers no more.
    pub fn forget(&self, channel: &Channel) {
        let mut tracks = self.tracks.lock();
        if let Some(mut track) = tracks.channels.remove(channel) {
            tracks.memory.release(&mut track);
        }
    }

    /// Takes note that these channels have not arrived for a while, though they will again: what is remembered of them may
    /// have been removed meanwhile. What was published without a position is lost.
    pub fn interrupted(&self, concerned: impl Fn(&Channel) -> bool) {
        let mut tracks = self.tracks.lock();
        let Tracks { channels, memory, .. } = &mut *tracks;
        let mut plain = 0;
        for (_, track) in channels.iter_mut().filter(|(channel, _)| concerned(channel)) {
            plain += u64::from(track.at.is_none());
            memory.release(track);
        }
        self.metrics.interrupted.increment(plain);
    }

    /// Drops what is remembered of a channel: its history was removed.
    pub fn clear(&self, channel: &Channel) {
        let mut tracks = self.tracks.lock();
        let Tracks { channels, memory, .. } = &mut *tracks;
        if let Some(track) = channels.get_mut(channel) {
            memory.release(track);
        }
    }

    /// Takes what the broker delivered: dispatches it, drops it if it was dispatched before, or repairs the gap before it.
    ///
    /// What carries no stamp passes through; beside a running repair it may overtake what is being read.
    pub fn accept(self: &Arc<Self>, broadcast: &Broadcast) {
        let mut tracks = self.tracks.lock();
        let Tracks { channels, memory, .. } = &mut *tracks;
        let Some(track) = channels.get_mut(broadcast.channel()) else { return };
        match broadcast {
            Broadcast::Publication(publication) if publication.stamp.is_some() => {
                if let Some(held) = &mut track.repair {
                    held.push(publication);
                } else if let Next::Broken = self.advance(track, publication) {
                    self.repair(broadcast.channel(), track);
                }
                memory.settle(broadcast.channel(), track);
                memory.shrink(channels);
            }
            _ => self.dispatcher.dispatch(broadcast),
        }
    }

    /// Where the channels with a stream stand.
    #[must_use]
    pub fn positions(&self) -> Vec<(Channel, Position)> {
        let tracks = self.tracks.lock();
        let at_rest = tracks.channels.iter().filter(|(_, track)| track.repair.is_none());
        at_rest.filter_map(|(channel, track)| Some((channel.clone(), track.at.clone()?))).collect()
    }

    /// Compares a channel, which stood at `before`, with the end of its stream as it was read later (`None`: it is gone).
    pub fn compare(self: &Arc<Self>, channel: &Channel, before: &Position, top: Option<Position>, how: Comparison) {
        let mut tracks = self.tracks.lock();
        let Some(track) = tracks.channels.get_mut(channel) else { return };
        let Some(at) = track.at.as_ref().filter(|at| at.epoch == before.epoch) else { return };
        if track.repair.is_some() {
            return;
        }
        let rewound = top.as_ref().is_none_or(|top| top.epoch != before.epoch || top.offset < before.offset);
        let expected = match how {
            Comparison::Suspicious => top,
            Comparison::Routine => std::mem::replace(&mut track.due, top),
        };
        if rewound || expected.is_some_and(|due| due.epoch == at.epoch && due.offset > at.offset) {
            self.repair(channel, track);
        }
    }

    fn repair(self: &Arc<Self>, channel: &Channel, track: &mut Track) {
        track.repair = Some(Held::default());
        let (sequencer, channel, life) = (Arc::clone(self), channel.clone(), track.life);
        tokio::spawn(async move { sequencer.read_missing(channel, life).await });
    }

    /// Reads until the channel stands at the end of its stream.
    async fn read_missing(self: Arc<Self>, channel: Channel, life: u64) {
        let Ok(_permit) = self.repairs.acquire().await else { return };
        let mut wait = RETRY.0;
        while let Some(from) = self.begin_read(&channel, life) {
            let query = HistoryQuery { since: Some(from.offset), limit: PAGE, order: Order::Forward };
            self.metrics.repaired.increment(1);
            match (self.read)(channel.clone(), query).await {
                Ok(history) => {
                    self.dispatcher.ready().await;
                    self.merge(&channel, life, &from, history);
                }
                Err(_) => {
                    sleep(wait).await;
                    wait = (wait * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Where a read has to begin; `None` when the repair is over. What arrived before is part of what will be read.
    fn begin_read(&self, channel: &Channel, life: u64) -> Option<Position> {
        let mut tracks = self.tracks.lock();
        let track = tracks.channels.get_mut(channel).filter(|track| track.life == life)?;
        *track.repair.as_mut()? = Held::default();
        track.at.clone()
    }

    /// Dispatches what was read, then what arrived meanwhile. Ends the repair unless there is more to read.
    fn merge(&self, channel: &Channel, life: u64, from: &Position, history: History) {
        let mut tracks = self.tracks.lock();
        let Tracks { channels, memory, .. } = &mut *tracks;
        let Some(track) = channels.get_mut(channel).filter(|track| track.life == life) else { return };
        self.apply(track, channel, from, history);
        if let Some(flight) = &track.flight {
            flight.moved.notify_one();
        }
        memory.settle(channel, track);
        memory.shrink(channels);
    }

    fn apply(&self, track: &mut Track, channel: &Channel, from: &Position, history: History) {
        let History { publications, top } = history;
        let more = publications.len() >= PAGE;
        let mut at = from.clone();
        track.dispatched = true;
        if top.epoch == from.epoch && top.offset >= from.offset {
            for publication in publications {
                // The first one tells the workers by its link whether anything before it is gone.
                if let Some(stamp) = &publication.stamp {
                    at = stamp.position.clone();
                }
                track.remember(&publication);
                self.dispatcher.dispatch(&Broadcast::Publication(publication));
            }
            if more {
                track.at = Some(at);
                return;
            }
        }
        if at != top {
            // Another life of the stream, or nothing is left of what was missed.
            self.metrics.lost.increment(1);
            track.recent.clear();
            self.dispatcher.lose(channel, &at, &top);
        }
        track.at = Some(top);
        let Some(held) = track.repair.take() else { return };
        let broken = |publication| matches!(self.advance(track, publication), Next::Broken);
        if held.overflowed || held.publications.iter().any(broken) {
            track.repair = Some(Held::default());
        }
    }

    /// Dispatches a publication if it is the next one.
    fn advance(&self, track: &mut Track, publication: &Arc<Publication>) -> Next {
        let next = track.place(publication);
        if let (Next::Dispatch, Some(stamp)) = (&next, &publication.stamp) {
            track.at = Some(stamp.position.clone());
            track.dispatched = true;
            track.remember(publication);
            self.dispatcher.dispatch(&Broadcast::Publication(Arc::clone(publication)));
            if let Some(flight) = &track.flight {
                flight.moved.notify_one();
            }
        }
        next
    }
}

impl Track {
    fn remember(&mut self, publication: &Arc<Publication>) {
        if let Some(retention) = self.retention {
            self.recent.push(publication, retention);
            self.used = true;
        }
    }

    fn place(&self, publication: &Publication) -> Next {
        let (Some(at), Some(stamp)) = (&self.at, &publication.stamp) else { return Next::Dispatch };
        match () {
            () if at.epoch != stamp.position.epoch => Next::Broken,
            () if stamp.position.offset <= at.offset && self.dispatched => Next::Seen,
            () if stamp.position.offset <= at.offset || stamp.prev == at.offset => Next::Dispatch,
            () => Next::Broken,
        }
    }
}

impl Held {
    fn push(&mut self, publication: &Arc<Publication>) {
        if self.publications.len() < MAX_HELD {
            self.publications.push(Arc::clone(publication));
        } else {
            self.overflowed = true;
        }
    }
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer").field("channels", &self.tracks.lock().channels.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
