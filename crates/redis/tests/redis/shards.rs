//! Several servers as one: what one of them fails to do, and how few round trips many publications cost.

use std::time::Duration;

use fanwire_node::broker::{Error, PublishOptions, Published, Retention};
use fanwire_node::{Broker, Dispatcher};
use fanwire_redis::{Config, Redis};
use fanwire_wire::{Channel, Payload, Publication};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::server::cluster::Cluster;
use crate::server::{Server, words};

#[tokio::test]
async fn a_server_that_is_down_affects_its_own_channels() {
    let mut servers = [Server::start().await, Server::start().await, Server::start().await];
    let urls = servers.iter().map(Server::url).collect();
    let redis = start(&Config { urls, ..servers[0].config("fanwire") }).await;
    let channels: Vec<_> = (0..30).map(|n| format!("c{n}")).collect();
    for channel in &channels {
        publish(&redis, channel).await.expect("published");
        redis.broker.subscribe(&name(channel)).await.expect("subscribed");
    }
    let mut homes = Vec::new();
    for channel in &channels {
        let mut home = None;
        for (number, server) in servers.iter().enumerate() {
            if server.ask(&["EXISTS", &format!("fanwire:stream:{channel}")]).await == redis::Value::Int(1) {
                assert_eq!(home.replace(number), None, "{channel} is on one server");
            }
        }
        homes.push(home.expect("it is on one"));
    }
    assert!((0..3).all(|server| homes.contains(&server)), "every server has some: {homes:?}");

    servers[1].kill();
    until(|| !redis.health.is_up()).await;
    let up: Vec<_> = redis.health.shards().iter().map(|shard| (shard.shard, shard.up)).collect();
    assert_eq!(up, [(0, true), (1, false), (2, true)]);
    assert_eq!(redis.health.cut_off(), None, "something arrives");
    for (channel, home) in channels.iter().zip(&homes) {
        let published = publish(&redis, channel).await;
        assert_eq!(published.is_ok(), *home != 1, "{channel} on {home}: {published:?}");
        assert!(published.is_ok() || matches!(published, Err(Error::Unavailable(_))), "{published:?}");
        let new = redis.broker.subscribe(&name(&format!("{channel}new"))).await;
        assert!(new.is_ok() || *home == 1 || matches!(new, Err(Error::Unavailable(_))));
    }
    servers[1].run().await;
    until(|| redis.health.is_up()).await;
    for channel in &channels {
        publish(&redis, channel).await.expect("published again");
    }
}

/// What is asked at the same time goes out in the same packets: counted by the server itself.
#[tokio::test]
async fn publications_share_round_trips() {
    let server = Server::start().await;
    let redis = start(&server.config("fanwire")).await;
    share(&redis, std::slice::from_ref(&server), "one server").await;
    let servers = [Server::start().await, Server::start().await];
    let urls = servers.iter().map(Server::url).collect();
    let redis = start(&Config { urls, ..servers[0].config("fanwire") }).await;
    share(&redis, &servers, "two servers").await;
    let cluster = Cluster::start(3, 0).await;
    let redis = start(&cluster.config("fanwire")).await;
    share(&redis, &cluster.nodes, "a cluster of three").await;
}

async fn share(redis: &Redis, servers: &[Server], what: &str) {
    const PUBLICATIONS: usize = 5000;
    let channels: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
    for channel in &channels {
        publish(redis, channel).await.expect("published");
    }
    let (before, begun) = (sums(servers).await, Instant::now());
    let all = (0..PUBLICATIONS).map(|n| publish(redis, &channels[n % channels.len()]));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    let took = begun.elapsed();
    let after = sums(servers).await;
    let (calls, reads) = (after.0 - before.0, after.1 - before.1);
    println!("{PUBLICATIONS} publications at once over {what}: {calls} calls in {reads} reads of a socket, {took:?}");
    assert_eq!(calls, PUBLICATIONS as u64);
    assert!(reads * 8 < calls, "{calls} calls took {reads} reads");
}

/// How many functions the servers have run, and how often they have read from a socket.
async fn sums(servers: &[Server]) -> (u64, u64) {
    let mut sums = (0, 0);
    for server in servers {
        let stats = words(&server.ask(&["INFO", "stats"]).await);
        let reads = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        sums.0 += server.calls("fcall").await;
        sums.1 += reads.and_then(|reads| reads.trim().parse::<u64>().ok()).expect("a number");
    }
    sums
}

pub(crate) async fn start(config: &Config) -> Redis {
    let redis = fanwire_redis::start(config, Dispatcher::new(1)).expect("a good configuration");
    until(|| redis.health.is_up()).await;
    redis
}

pub(crate) async fn publish(redis: &Redis, channel: &str) -> Result<Published, Error> {
    let retention = Retention { size: 100, ttl: Duration::from_secs(60) };
    let options = PublishOptions { history: Some(retention), ..PublishOptions::default() };
    redis.broker.publish(publication(channel), options).await
}

/// Something for a channel.
pub(crate) fn publication(channel: &str) -> Publication {
    Publication {
        channel: name(channel),
        payload: Payload::json("1".into()),
        event: None,
        tags: Vec::new().into(),
        info: None,
        exclude: None,
        stamp: None,
        time_ms: 0,
    }
}

fn name(channel: &str) -> Channel {
    Channel::new(channel).expect("a good name")
}

async fn until(mut wanted: impl FnMut() -> bool) {
    let wait = async {
        while !wanted() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.expect("in time");
}
