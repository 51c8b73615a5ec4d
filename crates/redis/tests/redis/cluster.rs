//! A Redis Cluster that changes under load: slots move, a primary dies, comes back, another one joins.

use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::load::{Load, RECOVERABLE, Settle};
use crate::server::cluster::Cluster;
use crate::server::words;

#[tokio::test]
async fn a_cluster_changes_and_nobody_notices() {
    LocalSet::new()
        .run_until(async {
            let mut cluster = Cluster::start(3, 3).await;
            let load = Load::start(&cluster.config("fanwire"), Settle::Always).await;
            let mut faults = Vec::new();

            faults.push(("slots move", Instant::now()));
            let mut moved = 0;
            for number in 0..RECOVERABLE {
                let slot = slot(&cluster, &format!("long:{number}")).await;
                let from = cluster.primary_of(slot, 0).await;
                if from != 1 && moved < 8 {
                    cluster.migrate(slot, from, 1).await;
                    moved += 1;
                }
            }
            assert_eq!(moved, 8);
            load.until_publishing().await;
            load.until_up().await;
            sleep(Duration::from_secs(1)).await;

            faults.push(("a primary dies, a replica takes over", Instant::now()));
            let dead = 2;
            cluster.nodes[dead].kill();
            cluster.nodes[0].until(&["CLUSTER", "INFO"], |info| info.contains("cluster_state:fail")).await;
            for alive in [0, 1, 3, 4, 5] {
                cluster.nodes[alive].until(&["CLUSTER", "INFO"], |info| info.contains("cluster_state:ok")).await;
            }
            load.until_publishing().await;
            load.until_up().await;

            faults.push(("it comes back as a replica", Instant::now()));
            cluster.nodes[dead].run().await;
            cluster.nodes[dead].until(&["INFO", "replication"], |info| info.contains("master_link_status:up")).await;
            load.until_publishing().await;

            faults.push(("another primary joins and takes slots", Instant::now()));
            let new = cluster.add().await;
            for number in 0..4 {
                let slot = slot(&cluster, &format!("long:{number}")).await;
                let from = cluster.primary_of(slot, 0).await;
                cluster.migrate(slot, from, new).await;
            }
            load.until_publishing().await;
            load.until_up().await;
            sleep(Duration::from_secs(1)).await;

            faults.push(("", Instant::now()));
            let verdict = load.finish().await;
            for pair in faults.windows(2) {
                println!("  {}: {}", pair[0].0, verdict.times(pair[0].1, pair[1].1));
            }
            verdict.print("F13 a cluster that changes");
            verdict.assert_clean();
            // A primary that is killed may take with it what its replica has not got, microseconds before.
            assert!(verdict.report.acked_but_lost < 10, "{}", verdict.report);
            assert!(verdict.report.told == 0 || verdict.report.acked_but_lost > 0, "{}", verdict.report);
            let calls = cluster.nodes[new].calls("fcall").await;
            assert!(calls > 0, "the new primary is used");
        })
        .await;
}

/// The slot of a channel.
async fn slot(cluster: &Cluster, channel: &str) -> u16 {
    for node in cluster.nodes.iter() {
        let Ok(found) = node.try_ask(&["KEYS", &format!("fanwire:*:stream:{channel}")]).await else { continue };
        let key = words(&found);
        if !key.is_empty() {
            return words(&node.ask(&["CLUSTER", "KEYSLOT", &key]).await).parse().expect("a slot");
        }
    }
    panic!("nobody has {channel}");
}
