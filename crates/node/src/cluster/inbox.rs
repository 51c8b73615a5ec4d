//! What other nodes say, until the node listens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fanwire_wire::Refusal;
use fanwire_wire::cluster::{Answer, Control, ControlBody};
use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::registry::MAX_NODES;

/// A node's bounded inbox. What does not fit is dropped and counted: whoever asked sees the node silent.
///
/// Answers do not queue there: each goes straight to who waits for it. One question in a large cluster has many of them.
pub(crate) struct Inbox {
    sender: Sender<Control>,
    receiver: tokio::sync::Mutex<Receiver<Control>>,
    /// Who waits for answers, by the number of the question.
    open: Mutex<HashMap<u64, Sender<(String, Answer)>>>,
    asked: AtomicU64,
    dropped: Counter,
}

/// A question that takes answers until it is dropped.
pub(super) struct OpenQuestion<'a> {
    inbox: &'a Inbox,
    pub(super) number: u64,
    pub(super) answers: Receiver<(String, Answer)>,
}

/// What may wait.
const BOUND: usize = 4096;

/// The most open questions.
const MAX_OPEN: usize = 4096;

impl Inbox {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(BOUND);
        Self {
            sender,
            receiver: tokio::sync::Mutex::new(receiver),
            open: Mutex::default(),
            asked: AtomicU64::new(0),
            dropped: counter!("fanwire_node_messages_dropped_total"),
        }
    }

    /// Takes what a node says; never waits.
    pub(crate) fn put(&self, control: Control) {
        if let ControlBody::Reply { number, answer } = control.body {
            if let Some(waiting) = self.open.lock().get(&number) {
                // Nobody waits any more, or there are more nodes than can be.
                let _ = waiting.try_send((control.from, answer));
            }
        } else if let Err(TrySendError::Full(control)) = self.sender.try_send(control) {
            self.dropped.increment(1);
            tracing::debug!(from = control.from, kind = control.body.kind(), "no room for what a node says");
        }
    }

    /// The other end, for one listener at a time.
    pub(super) async fn listen(&self) -> MutexGuard<'_, Receiver<Control>> {
        self.receiver.lock().await
    }

    /// Makes room for the answers to a question.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyRequests`]
    pub(super) fn open(&self) -> Result<OpenQuestion<'_>, Refusal> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(MAX_NODES);
        let mut open = self.open.lock();
        if open.len() >= MAX_OPEN {
            return Err(Refusal::TooManyRequests);
        }
        open.insert(number, sender);
        Ok(OpenQuestion { inbox: self, number, answers })
    }
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.inbox.open.lock().remove(&self.number);
    }
}
