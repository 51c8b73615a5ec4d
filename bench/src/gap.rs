//! A hole in a channel's stream, and its repair.

use std::fmt;
use std::sync::Arc;

use fanwire_node::broker::{History, HistoryQuery};
use fanwire_node::{Dispatcher, Sequencer};
use fanwire_wire::Broadcast;
use tokio::runtime::Runtime;

use crate::values::{numbered, position};

/// A channel that a node follows, and a publication that arrives behind a hole.
pub struct Gap {
    runtime: Runtime,
    sequencer: Arc<Sequencer>,
    newest: Broadcast,
    /// Where the stream ends.
    end: u64,
}

impl Gap {
    /// A hole of so many publications, which the history still has.
    ///
    /// # Panics
    ///
    /// If the machine gives no runtime.
    #[must_use]
    pub fn new(missing: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without IO needs nothing that could be missing");
        let end = missing + 2;
        let stream: Vec<_> = (1..=end).map(numbered).collect();
        let (first, newest) =
            (Broadcast::Publication(stream[0].clone()), Broadcast::Publication(stream[stream.len() - 1].clone()));
        let read = move |_, query: HistoryQuery| {
            let from = query.since.unwrap_or_default() as usize;
            let history = History { publications: stream[from..].to_vec(), top: position(end) };
            Box::pin(async move { Ok(history) }) as _
        };
        let sequencer = Sequencer::new(Dispatcher::new(1), Box::new(read));
        sequencer.follow(newest.channel());
        runtime.block_on(async { sequencer.accept(&first) });
        Self { runtime, sequencer, newest, end }
    }

    /// The publication behind the hole arrives: what is missing is read, merged and dispatched.
    pub fn repair(&self) {
        self.runtime.block_on(async {
            self.sequencer.accept(&self.newest);
            while !self.sequencer.positions().iter().any(|(_, at)| at.offset == self.end) {
                tokio::task::yield_now().await;
            }
        });
    }
}

impl fmt::Debug for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gap").finish_non_exhaustive()
    }
}
