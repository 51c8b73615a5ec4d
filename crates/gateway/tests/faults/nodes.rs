//! Nodes die.

use std::time::Duration;

use fanwire_testkit::oracle::Event;
use serde_json::json;
use tokio::time::Instant;

use crate::bench::{Bench, NODES, Setup};
use crate::figures::say;
use crate::publisher::Load;
use crate::subscriber::Subscriber;
use crate::{long_or, until};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f14_killed() {
    let setup = Setup::default();
    let mut bench = Bench::start(setup).await;
    let begun = bench.fault_begins().await;
    let moved = bench.clients_of(0);
    bench.kill(0);
    bench.fault_ends();
    until(30 * SECOND, "presence is clean", async || present(&bench, setup.recoverable.1).await == setup.recoverable.0)
        .await;
    let clean = begun.elapsed();
    say(&format!("  presence clean after {:.2} s", clean.as_secs_f64()));
    let figures = bench.finish("F14 a node killed").await;
    figures.assert_clean();
    assert_eq!((figures.report.told, figures.resubscribed), (0, moved), "all of them, and only they, have moved");
    assert!(clean < 12 * SECOND, "presence clean after {clean:?}");
}

/// Nodes that let 50 clients go in a second.
const DRAIN: &str = "[drain]\ngrace = \"0s\"\nrate = 50\ndeadline = \"30s\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f15_rolling_restart() {
    let mut bench = Bench::start(Setup { more: DRAIN, ..Setup::default() }).await;
    bench.fault_begins().await;
    let mut longest = Duration::ZERO;
    for _ in 0..long_or(5, 1) {
        for node in 0..NODES {
            longest = longest.max(bench.end(node).await);
            bench.replace(node).await;
        }
    }
    bench.fault_ends();
    say(&format!("  each node ended with 0, after {:.1} s at most", longest.as_secs_f64()));
    let figures = bench.finish(long_or("F15 rolling restart, 5 rounds", "F15 rolling restart")).await;
    figures.assert_clean();
    assert_eq!((figures.report.told, figures.report.failed_recoveries), (0, 0), "nobody lost anything");
    assert!(longest < 30 * SECOND, "before the deadline: {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f15_drain_of_many() {
    let load = Load { rate: 20, ..Setup::default().load };
    let clients = long_or(9000, 900);
    let setup = Setup { load, recoverable: (clients, 20), plain: (0, 0), on_one: true, ..Setup::default() };
    let mut bench = Bench::start(setup).await;
    bench.fault_begins().await;
    let moved = bench.clients_of(0);
    let took = bench.end(0).await.as_secs_f64();
    bench.fault_ends();
    let peaks = bench.gateways[1..].iter().map(|gateway| gateway.peak_memory() / (1024 * 1024));
    say(&format!(
        "  {moved} clients had moved after {took:.1} s; the others: at most {} MiB",
        peaks.max().unwrap_or_default()
    ));
    let name = long_or("F15 a node with 9,000 clients drained", "F15 a node with 900 clients drained");
    let figures = bench.finish(name).await;
    figures.assert_clean();
    assert_eq!((figures.report.told, figures.report.failed_recoveries), (0, 0), "nobody lost anything");
    // The rate of the defaults, with its burst.
    assert!(took > moved as f64 / 500.0 - 1.0, "faster than drain.rate: {took} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f16_killed_while_clients_move() {
    let setup = Setup { more: DRAIN, ..Setup::default() };
    let mut bench = Bench::start(setup).await;
    let begun = bench.fault_begins().await;
    let all = bench.clients_of(0);
    bench.gateways[0].signal(rustix::process::Signal::TERM);
    until(30 * SECOND, "some have moved", async || bench.clients_of(0) < all * 2 / 3).await;
    assert!(bench.clients_of(0) > 0, "and not all of them");
    bench.kill(0);
    bench.fault_ends();
    until(30 * SECOND, "presence is clean", async || present(&bench, setup.recoverable.1).await == setup.recoverable.0)
        .await;
    say(&format!("  presence clean {:.2} s after the signal", begun.elapsed().as_secs_f64()));
    let figures = bench.finish("F16 a node killed while its clients move").await;
    figures.assert_clean();
    assert_eq!((figures.report.told, figures.report.failed_recoveries), (0, 0), "nobody lost anything");
}

/// Who is there, in all channels, as another node sees it.
async fn present(bench: &Bench, channels: usize) -> usize {
    let mut sum = 0;
    for number in 0..channels {
        let stats = bench.gateways[1].api("presence_stats", &json!({ "channel": format!("kept:{number}") })).await;
        sum += stats["num_clients"].as_u64().unwrap_or_default() as usize;
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f17_storm() {
    let load = Load { rate: 20, ..Setup::default().load };
    let clients = long_or(9000, 4000);
    let setup = Setup { load, recoverable: (clients, 20), plain: (0, 0), on_one: true, ..Setup::default() };
    let mut bench = Bench::start(setup).await;
    let begun = bench.fault_begins().await;
    // On a busy machine some have tried another node before.
    let there = |subscriber: &&Subscriber| subscriber.notes(|notes| notes.node == Some(bench.gateways[0].public));
    let moved = bench.subscribers.iter().filter(there).count();
    bench.kill(0);
    bench.fault_ends();
    let back = |bench: &Bench| -> Vec<Instant> {
        let again = |events: &[(Instant, Event)]| {
            let again = events.iter().find(|(at, event)| *at > begun && matches!(event, Event::Subscribed { .. }));
            again.map(|(at, _)| *at)
        };
        bench.subscribers.iter().filter_map(|subscriber| subscriber.notes(|notes| again(&notes.events))).collect()
    };
    until(120 * SECOND, "everybody is back", async || back(&bench).len() >= moved).await;
    let mut times = back(&bench);
    times.sort();
    let after = |share: f64| (times[((moved - 1) as f64 * share) as usize] - begun).as_secs_f64();
    let mut refused = 0.0;
    for gateway in &bench.gateways[1..] {
        refused += gateway.metric("fanwire_admissions_total", "kind=\"handshake\",outcome=\"refused\"").await;
    }
    let peaks = bench.gateways[1..].iter().map(|gateway| gateway.peak_memory() / (1024 * 1024));
    say(&format!("  {refused} openings told to come later; at most {} MiB", peaks.max().unwrap_or_default()));
    say(&format!("  half of {moved} are back after {:.2} s, 99 % after {:.2} s", after(0.5), after(0.99)));
    let figures =
        bench.finish(long_or("F17 a node with 9,000 clients killed", "F17 a node with 4,000 clients killed")).await;
    figures.assert_clean();
    assert_eq!((figures.report.told, figures.report.failed_recoveries), (0, 0), "everybody has recovered");
    // One for a channel and node, and again where a starved node takes Redis for gone and compares.
    let most = moved as u64 / 10;
    assert!(
        figures.reads <= most,
        "{} histories read for {} channels: one for each client?",
        figures.reads,
        setup.recoverable.1
    );
}
