//! A Redis Cluster.

use std::path::Path;
use std::time::Duration;

use fanwire_redis::Config;
use fanwire_testkit::free_port;
use tokio::time::sleep;

use super::{Server, valkey, words};

/// Primaries that divide the slots among them, and replicas.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    primaries: usize,
}

const SLOTS: usize = 16384;

impl Cluster {
    /// Starts a cluster; replica i follows primary i.
    pub(crate) async fn start(primaries: usize, replicas: usize) -> Self {
        Self::start_with(primaries, replicas, Vec::new).await
    }

    /// The same of Valkey servers.
    pub(crate) async fn start_valkey(primaries: usize) -> Self {
        let nodes = (0..primaries).map(|_| prepare(&valkey(), &[])).collect();
        Self::unite(nodes, primaries).await
    }

    /// The same, each node with some more options.
    pub(crate) async fn start_with(
        primaries: usize,
        replicas: usize,
        mut options: impl FnMut() -> Vec<String>,
    ) -> Self {
        let redis = Path::new("redis-server");
        let nodes = (0..primaries + replicas).map(|_| prepare(redis, &options())).collect();
        Self::unite(nodes, primaries).await
    }

    /// Makes one cluster of these nodes, of which the first are the primaries.
    async fn unite(mut nodes: Vec<Server>, primaries: usize) -> Self {
        let replicas = nodes.len() - primaries;
        nodes.iter_mut().for_each(Server::spawn);
        for (index, node) in nodes.iter().enumerate() {
            node.until_it_answers().await;
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            if index < primaries {
                let (first, end) = (SLOTS * index / primaries, SLOTS * (index + 1) / primaries);
                node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]).await;
            }
        }
        let cluster = Self { nodes, primaries };
        for node in &cluster.nodes[1..] {
            cluster.meet(node).await;
        }
        cluster.until_all_know(cluster.nodes.len()).await;
        for (index, replica) in cluster.nodes[primaries..].iter().enumerate() {
            let primary = &cluster.nodes[index % primaries];
            replica.ask(&["CLUSTER", "REPLICATE", &id(primary).await]).await;
            replica.until(&["INFO", "replication"], |info| info.contains("master_link_status:up")).await;
        }
        for node in &cluster.nodes {
            node.until(&["CLUSTER", "INFO"], |info| info.contains("cluster_state:ok")).await;
            node.until(&["CLUSTER", "NODES"], |nodes| nodes.matches("slave").count() == replicas).await;
        }
        cluster
    }

    /// Adds a primary without slots; returns its number.
    pub(crate) async fn add(&mut self) -> usize {
        let mut node = prepare(Path::new("redis-server"), &[]);
        node.run().await;
        self.meet(&node).await;
        self.nodes.push(node);
        self.until_all_know(self.nodes.len()).await;
        self.nodes
            .last()
            .expect("just added")
            .until(&["CLUSTER", "INFO"], |info| info.contains("cluster_state:ok"))
            .await;
        self.nodes.len() - 1
    }

    /// Hands a slot over, as redis-cli does it: key by key, while both serve it.
    pub(crate) async fn migrate(&self, slot: u16, from: usize, to: usize) {
        let (from, to, slot) = (&self.nodes[from], &self.nodes[to], slot.to_string());
        let (from_id, to_id) = (id(from).await, id(to).await);
        to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        loop {
            let keys = words(&from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await);
            if keys.is_empty() {
                break;
            }
            let port = to.port().to_string();
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            command.extend(keys.split(' '));
            from.ask(&command).await;
            sleep(Duration::from_millis(1)).await;
        }
        for node in [to, from] {
            node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        }
    }

    /// The number of the primary that serves a slot, as the node with another number sees it.
    pub(crate) async fn primary_of(&self, slot: u16, asked: usize) -> usize {
        let redis::Value::Array(stretches) = self.nodes[asked].ask(&["CLUSTER", "SLOTS"]).await else {
            panic!("slots")
        };
        for stretch in stretches {
            let words: Vec<_> = words(&stretch).split(' ').map(str::to_owned).collect();
            let (first, last): (u16, u16) = (words[0].parse().expect("a slot"), words[1].parse().expect("a slot"));
            if (first..=last).contains(&slot) {
                let port: u16 = words[3].parse().expect("a port");
                return self.nodes.iter().position(|node| node.port() == port).expect("one of the cluster");
            }
        }
        panic!("nobody serves {slot}");
    }

    /// The configuration of a node on this cluster, with some of its addresses.
    pub(crate) fn config(&self, prefix: &str) -> Config {
        let known = self.nodes[..self.primaries].iter().map(|node| format!("127.0.0.1:{}", node.port()));
        let url = format!("redis+cluster://{}", known.collect::<Vec<_>>().join(","));
        Config { urls: vec![url], prefix: prefix.to_owned(), ..Config::default() }
    }

    async fn meet(&self, node: &Server) {
        let port = node.port().to_string();
        let bus = words(&node.ask(&["CONFIG", "GET", "cluster-port"]).await);
        let bus = bus.split(' ').nth(1).expect("a port").to_owned();
        self.nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
    }

    async fn until_all_know(&self, count: usize) {
        let line = format!("cluster_known_nodes:{count}\r\n");
        for node in &self.nodes {
            node.until(&["CLUSTER", "INFO"], |info| info.contains(&line)).await;
        }
    }
}

fn prepare(program: &Path, more: &[String]) -> Server {
    let bus = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000", "--save", ""];
    let options: Vec<_> = options.into_iter().chain(more.iter().map(String::as_str)).collect();
    Server::prepare(program, free_port(), &options)
}

async fn id(node: &Server) -> String {
    words(&node.ask(&["CLUSTER", "MYID"]).await)
}
