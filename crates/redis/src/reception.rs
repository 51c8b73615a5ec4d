//! What a node receives: one subscriber for each server, as long as it serves anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{Dispatcher, Sequencer};
use fanwire_wire::Channel;

use crate::Tasks;
use crate::health::Health;
use crate::partitions::Partition;
use crate::store::Store;
use crate::subscriber::Subscriber;
use crate::topology::{Server, Topology};
use crate::wishes::Wishes;

/// What all subscribers share.
pub(crate) struct Reception {
    pub(crate) topology: Arc<Topology>,
    pub(crate) store: Arc<Store>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) sequencer: Arc<Sequencer>,
    pub(crate) health: Health,
    /// Those of each partition.
    pub(crate) wishes: Vec<Wishes>,
    /// This node's name for itself.
    pub(crate) node: String,
    pub(crate) timeout: Duration,
}

/// A server with its subscriber, which ends when this is dropped.
struct Station {
    /// The server's number, for metrics and health.
    shard: usize,
    _task: Tasks,
}

impl Reception {
    /// The wishes of a partition.
    pub(crate) fn wishes(&self, partition: Partition) -> &Wishes {
        &self.wishes[partition.index()]
    }

    /// Whether the publications of a channel arrive.
    pub(crate) fn is_up(&self, channel: &Channel) -> bool {
        self.wishes(self.store.keys.partition(channel)).shard().is_some_and(|shard| self.health.is_shard_up(shard))
    }

    /// Gives each server a subscriber, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut stations: BTreeMap<Server, Station> = BTreeMap::new();
        let mut map = self.topology.map();
        loop {
            let current = map.borrow_and_update().clone();
            let servers = current.servers();
            // What is over ends first: its wishes and its number are free then.
            stations.retain(|server, station| {
                let stays = servers.contains(server);
                if !stays {
                    self.health.end(station.shard);
                }
                stays
            });
            for server in servers {
                if !stations.contains_key(server) {
                    let shard = self.number(server, &stations);
                    self.health.begin(shard, &server.address);
                    let subscriber = Subscriber { shared: Arc::clone(&self), server: server.clone(), shard };
                    let task = Tasks(vec![tokio::spawn(subscriber.run())]);
                    stations.insert(server.clone(), Station { shard, _task: task });
                }
            }
            self.health.set_whole(current.is_whole());
            if map.changed().await.is_err() {
                return;
            }
        }
    }

    /// The place in the list of URLs; in a cluster the smallest number that is free.
    fn number(&self, server: &Server, stations: &BTreeMap<Server, Station>) -> usize {
        if !self.topology.partitions.is_cluster() {
            return server.site;
        }
        let taken = |number: &usize| stations.values().any(|station| station.shard == *number);
        (0..).find(|number| !taken(number)).unwrap_or_default()
    }
}
