//! What a node remembers of a channel: its latest publications, each linked to the one before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::{Epoch, Position, Publication, Stamp};
use tokio::time::Instant;

use crate::broker::{Retention, weight};
use crate::clock;

/// The latest publications of a channel, without a gap, up to where the channel stands; or nothing.
#[derive(Default)]
pub(super) struct Recent {
    epoch: Epoch,
    entries: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    publication: Arc<Publication>,
    offset: u64,
    prev: u64,
    weight: usize,
    /// Until when the channel keeps it.
    until: Instant,
}

/// The most publications and bytes remembered of one channel, whatever it keeps.
const MAX_COUNT: usize = 1024;
const MAX_BYTES: usize = 512 * 1024;

/// The bytes that one publication costs in memory beside its weight, roughly.
const OVERHEAD: usize = 256;

impl Recent {
    /// The bytes remembered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds the publication at which the channel stands from now on.
    pub(super) fn push(&mut self, publication: &Arc<Publication>, retention: Retention) {
        let Some(stamp) = &publication.stamp else { return };
        let entry = Entry::new(publication, stamp, Instant::now() + retention.ttl);
        let follows = self.entries.back().is_none_or(|last| last.offset == entry.prev);
        if !follows || self.epoch != stamp.position.epoch {
            self.clear();
            self.epoch = stamp.position.epoch.clone();
        }
        self.bytes += entry.weight;
        self.entries.push_back(entry);
        self.trim(retention);
    }

    /// Puts what was read from the stream before what is remembered, as far as the two meet. The channel stands at `at`.
    pub(super) fn put_before(&mut self, read: &VecDeque<Arc<Publication>>, at: &Position, ttl: Duration) {
        if self.entries.is_empty() {
            self.epoch = at.epoch.clone();
        }
        let mut next = self.entries.front().map_or(at.offset, |first| first.prev);
        for publication in read.iter().rev() {
            let Some(stamp) = &publication.stamp else { continue };
            if stamp.position.epoch != self.epoch || stamp.position.offset < next {
                return;
            }
            if stamp.position.offset == next {
                let age = clock::unix_ms().saturating_sub(u64::try_from(publication.time_ms).unwrap_or_default());
                let left = ttl.saturating_sub(Duration::from_millis(age));
                let entry = Entry::new(publication, stamp, Instant::now() + left);
                next = entry.prev;
                self.bytes += entry.weight;
                self.entries.push_front(entry);
            }
        }
    }

    /// Forgets what the channel keeps no more.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.entries.pop_front_if(|oldest| oldest.until <= now) {
            self.bytes -= oldest.weight;
        }
    }

    /// Forgets the oldest beyond the bounds.
    pub(super) fn trim(&mut self, retention: Retention) {
        while self.entries.len() > retention.size.min(MAX_COUNT) || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.weight;
        }
    }

    /// Everything behind `offset` up to where the channel stands, `at`. `None` if that is not remembered, or if the channel
    /// does not keep all of it at `now` (`None`: never mind).
    pub(super) fn behind(&self, offset: u64, at: &Position, now: Option<Instant>) -> Option<Vec<Arc<Publication>>> {
        if offset == at.offset {
            return Some(Vec::new());
        }
        let first = self.entries.partition_point(|entry| entry.offset <= offset);
        let next = self.entries.get(first).filter(|next| next.prev == offset && self.epoch == at.epoch)?;
        let kept = now.is_none_or(|now| next.until > now);
        kept.then(|| self.entries.range(first..).map(|entry| Arc::clone(&entry.publication)).collect())
    }

    /// The latest publication, as a list of one; an empty one if there never was any. `None` if it is not remembered.
    pub(super) fn latest(&self, at: &Position, now: Option<Instant>) -> Option<Vec<Arc<Publication>>> {
        if at.offset == 0 {
            return Some(Vec::new());
        }
        let last = self.entries.back().filter(|last| last.offset == at.offset && self.epoch == at.epoch)?;
        now.is_none_or(|now| last.until > now).then(|| vec![Arc::clone(&last.publication)])
    }
}

impl Entry {
    fn new(publication: &Arc<Publication>, stamp: &Stamp, until: Instant) -> Self {
        let (offset, prev) = (stamp.position.offset, stamp.prev);
        Self { offset, prev, weight: weight(publication) + OVERHEAD, until, publication: Arc::clone(publication) }
    }
}
