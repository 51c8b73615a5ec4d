//! Mistakes a gateway could make, each of which the oracle has to find.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use fanwire_node::broker::{History, HistoryQuery, Order};
use fanwire_wire::{Broadcast, Channel, Epoch, Publication, Stamp};
use parking_lot::Mutex;

/// A mistake a gateway could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One delivery in ten is not written to its client.
    Drop,
    /// One delivery in ten is written behind the next one.
    Swap,
    /// One delivery in ten is written twice.
    Duplicate,
    /// What the connection brings is dispatched as it comes: no gap is repaired, nothing old is recognised.
    NoSequencer,
    /// Positions are not compared after the node has subscribed anew.
    NoSync,
    /// Positions are not compared from time to time either.
    NoComparison,
    /// A stream's new life is taken for the old one.
    IgnoreEpoch,
    /// A recovery brings the latest publications, and says that this is all.
    PartialRecovery,
    /// A publication is applied as often as it is sent.
    IgnoreKeys,
    /// A server that lost its memory mints positions again.
    NoJump,
    /// Nobody is told of a gap.
    TellNobody,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Drop,
        Self::Swap,
        Self::Duplicate,
        Self::NoSequencer,
        Self::NoSync,
        Self::NoComparison,
        Self::IgnoreEpoch,
        Self::PartialRecovery,
        Self::IgnoreKeys,
        Self::NoJump,
        Self::TellNobody,
    ];
}

/// Shows the node of [`Mutant::IgnoreEpoch`] the first epoch of each channel, for ever.
#[derive(Default)]
pub(super) struct Veil(Mutex<HashMap<Channel, Epoch>>);

impl Veil {
    pub(super) fn cover(&self, channel: &Channel, epoch: &mut Epoch) {
        *epoch = self.0.lock().entry(channel.clone()).or_insert_with(|| epoch.clone()).clone();
    }

    pub(super) fn cover_history(&self, channel: &Channel, history: &mut History) {
        self.cover(channel, &mut history.top.epoch);
        for publication in &mut history.publications {
            self.cover_publication(publication);
        }
    }

    pub(super) fn cover_broadcast(&self, mut broadcast: Broadcast) -> Broadcast {
        if let Broadcast::Publication(publication) = &mut broadcast {
            self.cover_publication(publication);
        }
        broadcast
    }

    fn cover_publication(&self, publication: &mut Arc<Publication>) {
        let Publication { channel, stamp, .. } = Arc::make_mut(publication);
        if let Some(Stamp { position, .. }) = stamp {
            self.cover(channel, &mut position.epoch);
        }
    }
}

/// Links what was read to where the reader stands, whatever is missing in between.
pub(super) fn sell_as_complete(query: &HistoryQuery, history: &mut History) {
    if let (Order::Forward, Some(since), Some(first)) = (query.order, query.since, history.publications.first_mut())
        && let Some(stamp) = &mut Arc::make_mut(first).stamp
    {
        stamp.prev = since;
    }
}

impl fmt::Debug for Veil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Veil").field("channels", &self.0.lock().len()).finish()
    }
}
