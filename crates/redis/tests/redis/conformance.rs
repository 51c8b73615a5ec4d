//! The broker and the presence over Redis do what every one must.

use fanwire_redis::Config;

use crate::server::Server;
use crate::server::cluster::Cluster;
use crate::server::sentinel::Sentinels;
use crate::suite::suite;

#[tokio::test]
async fn redis() {
    let server = Server::start().await;
    suite(|prefix| server.config(prefix)).await;
}

/// A server on which functions are not permitted.
#[tokio::test]
async fn redis_with_scripts() {
    let server = Server::start_with(&["--save", "", "--rename-command", "FUNCTION", ""]).await;
    suite(|prefix| server.config(prefix)).await;
    assert!(server.calls("evalsha").await > 0 && server.calls("fcall").await == 0, "scripts were run");
}

#[tokio::test]
async fn valkey() {
    let server = Server::start_valkey().await;
    suite(|prefix| server.config(prefix)).await;
    assert!(server.calls("fcall").await > 0, "functions were run");
}

#[tokio::test]
async fn several_servers() {
    let servers = [Server::start().await, Server::start().await];
    let urls: Vec<_> = servers.iter().map(Server::url).collect();
    suite(|prefix| Config { urls: urls.clone(), ..servers[0].config(prefix) }).await;
    for server in &servers {
        assert!(server.calls("fcall").await > 0, "every server has its channels");
    }
}

#[tokio::test]
async fn sentinel() {
    let sentinels = Sentinels::start(1).await;
    suite(|prefix| sentinels.config(prefix)).await;
}

#[tokio::test]
async fn cluster() {
    let cluster = Cluster::start(3, 0).await;
    suite(|prefix| cluster.config(prefix)).await;
    for server in &cluster.nodes {
        assert!(server.calls("fcall").await > 0, "every primary has its channels");
    }
}

#[tokio::test]
async fn valkey_cluster() {
    let cluster = Cluster::start_valkey(3).await;
    suite(|prefix| cluster.config(prefix)).await;
    for server in &cluster.nodes {
        assert!(server.calls("fcall").await > 0, "every primary has its channels");
    }
}
