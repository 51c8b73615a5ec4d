//! How much is remembered of all channels, and which of them is forgotten first.

use std::collections::{BTreeMap, HashMap};

use fanwire_wire::Channel;
use metrics::Gauge;

use super::Track;

/// The account of what all channels remember together.
pub(super) struct Memory {
    pub(super) bytes: usize,
    /// The channels of which something is remembered, by their age in it.
    pub(super) ages: BTreeMap<u64, Channel>,
    next_age: u64,
    /// Shows `bytes`.
    gauge: Gauge,
}

/// The most bytes remembered of all channels; over it the channel goes that was of no use for longest.
pub(super) const MAX_REMEMBERED: usize = 64 * 1024 * 1024;

impl Memory {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { bytes: 0, ages: BTreeMap::new(), next_age: 0, gauge }
    }

    /// Counts what is remembered of a channel by now.
    pub(super) fn settle(&mut self, channel: &Channel, track: &mut Track) {
        let bytes = track.recent.bytes();
        if bytes == track.counted {
            return;
        }
        self.bytes = self.bytes + bytes - track.counted;
        self.gauge.set(self.bytes as f64);
        track.counted = bytes;
        if track.age.is_none() {
            self.put_last(channel, track);
        }
    }

    /// Drops what is remembered of a channel.
    pub(super) fn release(&mut self, track: &mut Track) {
        track.recent.clear();
        track.age.take().map(|age| self.ages.remove(&age));
        self.bytes -= std::mem::take(&mut track.counted);
        self.gauge.set(self.bytes as f64);
    }

    /// Drops what is remembered of the oldest channels until the rest is not too much. One that was of use becomes the youngest.
    pub(super) fn shrink(&mut self, channels: &mut HashMap<Channel, Track>) {
        while self.bytes > MAX_REMEMBERED {
            let Some((_, channel)) = self.ages.pop_first() else { return };
            let Some(track) = channels.get_mut(&channel) else { continue };
            if track.used {
                self.put_last(&channel, track);
            } else {
                self.release(track);
            }
        }
    }

    fn put_last(&mut self, channel: &Channel, track: &mut Track) {
        (track.age, track.used) = (Some(self.next_age), false);
        self.ages.insert(self.next_age, channel.clone());
        self.next_age += 1;
    }
}
