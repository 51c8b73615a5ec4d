//! Failovers that sentinels decide on, under load.

use std::time::Duration;

use fanwire_node::broker::Error;
use fanwire_redis::Config;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::load::{Load, Settle};
use crate::server::proxy::Proxy;
use crate::server::sentinel::{NAME, Sentinels};
use crate::server::{Server, words};
use crate::shards;

/// The replica has everything: nobody notices. Every other time the old primary lives on and goes on believing that it is
/// one, for a while.
#[tokio::test]
async fn failovers_in_step_are_noticed_by_nobody() {
    LocalSet::new()
        .run_until(async {
            let mut sentinels = Sentinels::start(2).await;
            let load = Load::start(&sentinels.config("fanwire"), Settle::Always).await;
            let (mut faults, mut agreed) = (Vec::new(), Vec::new());
            for round in 0..5 {
                let old = sentinels.primary().await;
                let fault = Instant::now();
                faults.push(fault);
                if round % 2 == 0 {
                    // It lets its replicas catch up before it ends.
                    sentinels.servers[old].stop().await;
                } else {
                    sentinels.servers[old].ask(&["CLIENT", "PAUSE", "20000", "WRITE"]).await;
                    in_step(&sentinels.servers, old).await;
                    // A sentinel that is busy with the last one is asked again.
                    sentinels.sentinels[round % 3].until(&["SENTINEL", "FAILOVER", NAME], |_| true).await;
                }
                sentinels.until_another_than(old).await;
                agreed.push(fault.elapsed());
                load.until_publishing().await;
                load.until_up().await;
                if round % 2 == 0 {
                    // It comes back as what it was.
                    sentinels.servers[old].run().await;
                } else {
                    sentinels.servers[old].until(&["CLIENT", "UNPAUSE"], |_| true).await;
                }
                sleep(Duration::from_secs(1)).await;
                // The sentinels would tell it better, too, after a while.
                sentinels.replicate().await;
            }
            faults.push(Instant::now());
            let verdict = load.finish().await;
            for (fault, agreed) in faults.windows(2).zip(agreed) {
                let times = verdict.times(fault[0], fault[1]);
                println!("  sentinels agreed after {:.2} s, {times}", agreed.as_secs_f64());
            }
            verdict.print("F12 five failovers in step");
            verdict.assert_clean();
            assert_eq!((verdict.report.told, verdict.report.acked_but_lost), (0, 0));
        })
        .await;
}

/// The replica has not everything: what it lacks is lost, and those who saw it are told. Nobody else is.
#[tokio::test]
async fn a_failover_that_loses_is_told_to_those_who_saw_more() {
    LocalSet::new()
        .run_until(async {
            let primary = Server::start().await;
            let leg = Proxy::start(primary.port()).await;
            let replica = Server::start_replica_of(leg.port).await;
            let mut sentinels = Sentinels::watch(vec![primary, replica]).await;
            let load = Load::start(&sentinels.config("fanwire"), Settle::Never).await;
            leg.hold();
            sleep(Duration::from_millis(1500)).await;
            let fault = Instant::now();
            sentinels.servers[0].kill();
            sentinels.until_another_than(0).await;
            load.until_publishing().await;
            load.until_up().await;
            // Whoever is told is told within five seconds.
            sleep(Duration::from_secs(6)).await;
            let verdict = load.finish().await;
            println!("  {}", verdict.times(fault, Instant::now()));
            verdict.print("F12 failover to a replica 1.5 s behind");
            verdict.assert_clean();
            assert!(verdict.report.acked_but_lost > 0 && verdict.report.told > 0, "{}", verdict.report);
        })
        .await;
}

/// A primary that was replaced and does not know it takes what was sent to it before. That must not count.
#[tokio::test]
async fn what_a_former_primary_says_is_no_proof() {
    let sentinels = Sentinels::start(1).await;
    // What waits for the old one is not given up, and not sent again, while this lasts.
    let redis = shards::start(&Config { timeout: Duration::from_secs(20), ..sentinels.config("fanwire") }).await;
    shards::publish(&redis, "a").await.expect("published");
    sentinels.servers[0].ask(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    in_step(&sentinels.servers, 0).await;
    let switch = async {
        sentinels.servers[0].until(&["INFO", "clients"], |info| !info.contains("blocked_clients:0")).await;
        sentinels.sentinels[0].until(&["SENTINEL", "FAILOVER", NAME], |_| true).await;
        sentinels.until_another_than(0).await;
        let elsewhere =
            async { while timeout(Duration::from_millis(200), shards::publish(&redis, "b")).await.is_err() {} };
        timeout(Duration::from_secs(30), elsewhere).await.expect("the node finds the new one");
        sentinels.servers[0].ask(&["CLIENT", "UNPAUSE"]).await;
    };
    let (outcome, ()) = tokio::join!(shards::publish(&redis, "a"), switch);
    let kept = words(&sentinels.servers[1].ask(&["XLEN", "fanwire:stream:a"]).await);
    match outcome {
        Err(Error::OutcomeUnknown) => assert_eq!(kept, "1"),
        // It had learned already that it is none any more, and sent the node on.
        Ok(_) => assert_eq!(kept, "2"),
        Err(error) => panic!("{error:?}"),
    }
}

/// The primary is where it was: that nobody can be asked does not matter, not even to who has to connect anew.
#[tokio::test]
async fn silent_sentinels_do_not_matter() {
    LocalSet::new()
        .run_until(async {
            let sentinels = Sentinels::start(1).await;
            let load = Load::start(&sentinels.config("fanwire"), Settle::Always).await;
            sentinels.sentinels.iter().for_each(|sentinel| sentinel.signal("STOP"));
            let fault = Instant::now();
            for kind in ["normal", "pubsub"] {
                sentinels.servers[0].ask(&["CLIENT", "KILL", "TYPE", kind]).await;
            }
            load.until_publishing().await;
            sleep(Duration::from_secs(1)).await;
            load.until_up().await;
            sentinels.sentinels.iter().for_each(|sentinel| sentinel.signal("CONT"));
            let verdict = load.finish().await;
            println!("  {}", verdict.times(fault, Instant::now()));
            verdict.print("connections cut, sentinels silent");
            verdict.assert_clean();
            assert_eq!(verdict.report.told, 0);
        })
        .await;
}

/// Waits until the replicas of a primary that takes no writes have all it has.
async fn in_step(servers: &[Server], primary: usize) {
    let end = offset(&servers[primary], "master_repl_offset:").await;
    for (_, replica) in servers.iter().enumerate().filter(|(number, _)| *number != primary) {
        let wait = async {
            while offset(replica, "slave_repl_offset:").await < end {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), wait).await.expect("the replica catches up");
    }
}

async fn offset(server: &Server, field: &str) -> u64 {
    let info = words(&server.ask(&["INFO", "replication"]).await);
    let line = info.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|offset| offset.trim().parse().ok()).unwrap_or_default()
}
