//! How everything outside of a worker's thread reaches the worker.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use fanwire_wire::Broadcast;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Worker;

/// One thing for a worker to do.
pub(crate) enum Letter {
    /// Give a broadcast to the local subscribers.
    Dispatch(Broadcast, Instant),
    /// Run this on the worker's thread.
    Run(Task),
}

/// A piece of work for a worker's thread; must not block.
pub(crate) type Task = Box<dyn FnOnce(&Rc<Worker>) + Send>;

/// A worker's bounded mailbox. Whoever posts awaits [`Mailbox::ready`] first,
/// so that it holds at most [`BOUND`] letters and one for each poster that was let in at the same moment.
#[derive(Default)]
pub(crate) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    filled: Notify,
    emptied: Notify,
}

/// The letters a mailbox holds before posters have to wait.
const BOUND: usize = 16 * 1024;

impl Mailbox {
    /// Waits until there is room.
    pub(crate) async fn ready(&self) {
        loop {
            if self.letters.lock().len() < BOUND {
                return;
            }
            let emptied = self.emptied.notified();
            if self.letters.lock().len() < BOUND {
                return;
            }
            emptied.await;
        }
    }

    /// Appends a letter.
    pub(crate) fn post(&self, letter: Letter) {
        let was_empty = {
            let mut letters = self.letters.lock();
            letters.push_back(letter);
            letters.len() == 1
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits for a letter. For the worker alone.
    pub(crate) async fn filled(&self) {
        while self.letters.lock().is_empty() {
            self.filled.notified().await;
        }
    }

    /// Takes all letters in exchange for an empty queue. For the worker alone.
    pub(crate) fn swap(&self, empty: &mut VecDeque<Letter>) {
        debug_assert!(empty.is_empty(), "letters behind others would overtake them");
        let mut letters = self.letters.lock();
        let was_full = letters.len() >= BOUND;
        std::mem::swap(&mut *letters, empty);
        drop(letters);
        if was_full {
            self.emptied.notify_waiters();
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("letters", &self.letters.lock().len()).finish_non_exhaustive()
    }
}
