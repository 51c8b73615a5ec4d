//! The confirmations that a connection for subscriptions waits for.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What the server has yet to confirm. The redis crate cannot tell: in a cluster a server also says by itself that a subscription
/// has ended.
#[derive(Default)]
pub(crate) struct Awaited {
    names: Mutex<HashSet<(Way, String)>>,
    changed: Notify,
}

/// In or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    In,
    Out,
}

impl Awaited {
    /// Awaits these, and nothing else any more.
    pub(crate) fn expect(&self, way: Way, names: HashSet<String>) {
        *self.names.lock() = names.into_iter().map(|name| (way, name)).collect();
    }

    /// True if it was awaited.
    pub(crate) fn confirm(&self, way: Way, name: String) -> bool {
        let awaited = self.names.lock().remove(&(way, name));
        self.changed.notify_one();
        awaited
    }

    /// Waits until nothing is awaited.
    pub(crate) async fn all(&self) {
        while !self.names.lock().is_empty() {
            self.changed.notified().await;
        }
    }
}
