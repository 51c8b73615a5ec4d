//! What a node says about its work.

use std::rc::Rc;

use fanwire_wire::cluster::{Report, SlowClient, Traffic};

use crate::meter::{Latencies, MAX_HOT};
use crate::{Client, Node, Worker};

impl Node {
    /// What stands out on this node, with at most `limit` entries in each list, and never more than 32: the channels with the
    /// most deliveries in the last whole period of 5 seconds, and the clients for which the most bytes wait.
    ///
    /// Each worker answers at a cost that is bounded whatever it holds. It knows its own 32 hottest channels only: what a
    /// channel has on workers where others are hotter is not counted.
    pub async fn report(&self, limit: u32) -> Report {
        let limit = (limit as usize).min(MAX_HOT);
        Report::sum(self.ask_workers(move |worker| part(worker, limit)).await, limit)
    }

    /// How much this node does.
    pub(crate) async fn traffic(&self) -> Traffic {
        let parts = self.ask_workers(|worker| (worker.waiting_bytes(), worker.hub().meter.latencies())).await;
        let mut latencies = Latencies::default();
        parts.iter().for_each(|(_, part)| latencies.merge(part));
        let metrics = self.metrics();
        Traffic {
            publications: metrics.publications.total(),
            deliveries: metrics.deliveries.total(),
            delivered_bytes: metrics.delivered_bytes.total(),
            waiting_bytes: parts.iter().map(|(bytes, _)| *bytes as u64).sum(),
            median: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
        }
    }
}

fn part(worker: &Rc<Worker>, limit: usize) -> Report {
    let slow = |(bytes, client): (usize, Rc<Client>)| SlowClient {
        client: client.id(),
        user: client.user().to_string(),
        protocol: client.protocol().to_owned(),
        waiting_bytes: bytes as u64,
    };
    Report {
        channels: worker.hub().meter.hottest(MAX_HOT),
        clients: worker.slowest(limit).into_iter().map(slow).collect(),
    }
}
