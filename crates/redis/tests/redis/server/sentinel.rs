//! A primary, its replicas, and the sentinels that watch them.

use std::path::Path;

use fanwire_redis::Config;
use fanwire_testkit::free_port;

use super::{Server, words};

/// Servers that replicate, and sentinels that agree on the primary.
pub(crate) struct Sentinels {
    pub(crate) servers: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
}

/// The name of the primary.
pub(crate) const NAME: &str = "main";

impl Sentinels {
    /// Starts a primary, replicas and three sentinels.
    pub(crate) async fn start(replicas: usize) -> Self {
        let mut servers = vec![Server::start().await];
        for _ in 0..replicas {
            servers.push(Server::start_replica_of(servers[0].port()).await);
        }
        Self::watch(servers).await
    }

    /// Starts three sentinels for servers of which the first one is the primary.
    pub(crate) async fn watch(servers: Vec<Server>) -> Self {
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let port = free_port();
            let mut sentinel = Server::prepare(Path::new("redis-server"), port, &[]);
            let file = sentinel.folder().join("sentinel.conf");
            let text = format!(
                "sentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {NAME} 2000\n\
                 sentinel failover-timeout {NAME} 4000\nsentinel parallel-syncs {NAME} 2\n",
                servers[0].port()
            );
            std::fs::write(&file, text).expect("written");
            sentinel.set_config_file(&file);
            sentinel.run().await;
            sentinels.push(sentinel);
        }
        let replicas = format!("num-slaves {} ", servers.len() - 1);
        for sentinel in &sentinels {
            let ready = |about: &str| {
                let about = format!("{about} ");
                about.contains("num-other-sentinels 2 ") && about.contains(&replicas)
            };
            sentinel.until(&["SENTINEL", "MASTER", NAME], ready).await;
        }
        Self { servers, sentinels }
    }

    /// The number of the primary, as the sentinels agree.
    pub(crate) async fn primary(&self) -> usize {
        let answer = words(&self.sentinels[0].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await);
        let port: u16 = answer.split(' ').nth(1).and_then(|port| port.parse().ok()).expect("an address");
        self.servers.iter().position(|server| server.port() == port).expect("one of them")
    }

    /// Waits until all sentinels name another primary.
    pub(crate) async fn until_another_than(&self, old: usize) {
        let old = self.servers[old].port().to_string();
        for sentinel in &self.sentinels {
            sentinel.until(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME], |answer| !answer.ends_with(&old)).await;
        }
    }

    /// Makes all other servers replicas of the primary, and waits until they are and the sentinels know.
    pub(crate) async fn replicate(&self) {
        let primary = self.primary().await;
        let primary_port = self.servers[primary].port().to_string();
        let line = format!("master_port:{primary_port}\r\n");
        for (_, server) in self.servers.iter().enumerate().filter(|(number, _)| *number != primary) {
            // Sentinels that are at it, too, cut connections.
            server.until(&["REPLICAOF", "127.0.0.1", &primary_port], |_| true).await;
            let in_step = |info: &str| info.contains(&line) && info.contains("master_link_status:up");
            server.until(&["INFO", "replication"], in_step).await;
        }
        let all = format!("slaves={},sentinels=3", self.servers.len() - 1);
        for sentinel in &self.sentinels {
            sentinel.until(&["INFO", "sentinel"], |info| info.contains("status=ok") && info.contains(&all)).await;
        }
    }

    pub(crate) fn config(&self, prefix: &str) -> Config {
        let known = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port()));
        let url = format!("redis+sentinel://{}/{NAME}", known.collect::<Vec<_>>().join(","));
        Config { urls: vec![url], prefix: prefix.to_owned(), ..Config::default() }
    }
}
