//! What other nodes say, until the node listens.

use fanwire_wire::cluster::Control;
use metrics::{Counter, counter};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{Mutex, MutexGuard};

/// A node's bounded inbox. What does not fit is dropped and counted: whoever asked sees the node silent.
pub(crate) struct Inbox {
    sender: Sender<Control>,
    receiver: Mutex<Receiver<Control>>,
    dropped: Counter,
}

/// What may wait.
const BOUND: usize = 1024;

impl Inbox {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(BOUND);
        let receiver = Mutex::new(receiver);
        Self { sender, receiver, dropped: counter!("fanwire_node_messages_dropped_total") }
    }

    /// Puts in what a node says; never waits.
    pub(crate) fn put(&self, control: Control) {
        if let Err(TrySendError::Full(control)) = self.sender.try_send(control) {
            self.dropped.increment(1);
            tracing::debug!(from = control.from, kind = control.body.kind(), "no room for what a node says");
        }
    }

    /// The other end, for one listener at a time.
    pub(super) async fn listen(&self) -> MutexGuard<'_, Receiver<Control>> {
        self.receiver.lock().await
    }
}
