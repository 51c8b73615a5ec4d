//! Handing clients over to other nodes, a few at a time.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire_wire::Disconnect;
use tokio::time::{Instant, sleep};

use crate::{Node, Worker};

/// The least time in which all clients are asked to leave, and the most of them in a second: what the other nodes take.
const SPREAD: Duration = Duration::from_secs(30);
const MAX_PER_SECOND: f64 = 500.0;

/// How often some of them are asked.
const STEP: Duration = Duration::from_millis(100);

/// Open to new connections, or not.
#[derive(Debug, Default)]
pub(crate) struct Door(AtomicBool);

/// Opens the door when it is dropped.
struct Closed<'a>(&'a Node);

impl Node {
    /// Whether new connections are welcome.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.door().0.load(Ordering::Relaxed)
    }

    /// Takes no new connections, and asks clients to come back to another node (3011): over half a minute at least, and at
    /// most 500 in a second. For as long as the future is polled: when it is dropped, connections are welcome again.
    pub async fn hand_over(self: &Arc<Self>) {
        let _closed = Closed::new(self);
        let rate = (self.connections() as f64 / SPREAD.as_secs_f64()).clamp(1.0, MAX_PER_SECOND);
        let mut due = 0.0;
        let mut last = Instant::now();
        loop {
            // Uneven steps keep nodes that began together from going on together.
            sleep(STEP.mul_f64(0.5 + crate::id::share())).await;
            due += last.elapsed().as_secs_f64() * rate;
            last = Instant::now();
            for index in 0..self.workers() {
                let connections = self.connections().max(1) as f64;
                let share = (due * self.connections_on(index) as f64 / connections).ceil() as usize;
                let asked = self.ask_worker(index, move |worker| ask_to_leave(worker, share)).await;
                due -= asked.unwrap_or_default() as f64;
            }
        }
    }
}

/// Asks so many clients of a worker to come back to another node; returns how many there were.
fn ask_to_leave(worker: &Rc<Worker>, most: usize) -> usize {
    let clients = worker.open_clients(most);
    clients.iter().for_each(|client| client.close(Disconnect::ForceReconnect));
    clients.len()
}

impl<'a> Closed<'a> {
    fn new(node: &'a Node) -> Self {
        node.door().0.store(true, Ordering::Relaxed);
        metrics::gauge!("fanwire_handing_over").set(1.0);
        Self(node)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.door().0.store(false, Ordering::Relaxed);
        metrics::gauge!("fanwire_handing_over").set(0.0);
    }
}
