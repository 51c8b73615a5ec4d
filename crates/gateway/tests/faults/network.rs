//! The cable between one node of three and Redis.

use std::time::Duration;

use tokio::time::sleep;

use crate::bench::{Bench, Setup};
use crate::figures::{Figures, say};
use crate::home::Home;
use crate::long_or;
use crate::netns::Namespace;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f09_partition() {
    let name = long_or("F9 one node cut off for 20 s", "F9 one node cut off for 8 s");
    partition(name, "drop", "drop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f10_partition_in_one_direction() {
    let name = long_or("F10 … from Redis to the node only, 20 s", "F10 … from Redis to the node only, 8 s");
    partition(name, "drop", "accept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f11_loss() {
    let loss = "numgen random mod 100 < 5 drop";
    let name = "F11 5 % loss between one node and Redis";
    let Some((figures, _)) = cut(name, Setup::default(), loss, loss, 10 * SECOND).await else { return };
    figures.assert_clean().assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn partition_and_handing_over() {
    let setup = Setup { give_up_after: "5s", ..Setup::default() };
    let length = long_or(40, 15);
    let name = long_or(
        "one node cut off for 40 s, handing over after 5 s",
        "one node cut off for 15 s, handing over after 5 s",
    );
    let Some((figures, clients)) = cut(name, setup, "drop", "drop", length * SECOND).await else { return };
    figures.assert_clean();
    assert_eq!(figures.report.told, 0, "whoever is handed over goes on without a gap");
    assert!((1..=clients).contains(&figures.resubscribed), "{} of {clients} have moved", figures.resubscribed);
}

async fn partition(name: &'static str, coming: &str, going: &str) {
    let Some((figures, _)) = cut(name, Setup::default(), coming, going, long_or(20, 8) * SECOND).await else { return };
    figures.assert_clean().assert_unnoticed();
    assert!(figures.times.detect.is_some_and(|detect| detect <= 3 * SECOND), "found late: {:?}", figures.times.detect);
}

/// Treats the packets of one node in this way for a while. Returns also how many clients the node had.
async fn cut(
    name: &'static str,
    setup: Setup,
    coming: &str,
    going: &str,
    length: Duration,
) -> Option<(Figures, usize)> {
    let Some(namespace) = Namespace::create() else {
        say(&format!("SKIPPED {name}: network namespaces need root"));
        return None;
    };
    let mut bench = Bench::start_in(setup, Home::Cable(namespace)).await;
    let begun = bench.fault_begins().await;
    let clients = bench.clients_of(0);
    let (cable, port) = bench.cable();
    cable.rule(&format!("tcp sport {port} {coming}"), &format!("tcp dport {port} {going}"));
    sleep(length).await;
    cable.lift();
    bench.fault_ends();
    bench.until_ready().await;
    for other in &bench.gateways[1..] {
        assert_eq!(other.detected(begun), None, "the others are not affected");
    }
    Some((bench.finish(name).await, clients))
}
