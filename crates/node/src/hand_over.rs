//! Handing clients over to other nodes, for as long as this one does not hear the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Node;
use crate::moving::Why;

/// The least time in which all clients are asked to leave, and the most of them in a second: what the other nodes take.
const SPREAD: Duration = Duration::from_secs(30);
const MAX_PER_SECOND: f64 = 500.0;

/// Whether clients are handed over.
#[derive(Debug, Default)]
pub(crate) struct HandOver(AtomicBool);

/// Ends it when it is dropped.
struct UnderWay<'a>(&'a Node);

impl HandOver {
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Node {
    /// Takes no new connections, and asks clients to come back to another node (3011): over half a minute at least, and at
    /// most 500 in a second. For as long as the future is polled: when it is dropped, connections are welcome again.
    pub async fn hand_over(self: &Arc<Self>) {
        let _under_way = UnderWay::new(self);
        let rate = (self.connections() as f64 / SPREAD.as_secs_f64()).clamp(1.0, MAX_PER_SECOND);
        self.move_clients(Why::HandOver, rate, usize::MAX).await;
    }
}

impl<'a> UnderWay<'a> {
    fn new(node: &'a Node) -> Self {
        node.handing_over().0.store(true, Ordering::Relaxed);
        metrics::gauge!("fanwire_handing_over").set(1.0);
        Self(node)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.handing_over().0.store(false, Ordering::Relaxed);
        metrics::gauge!("fanwire_handing_over").set(0.0);
    }
}
