//! Redis dies, hangs, forgets.

use std::process::{Child, Command};
use std::time::Duration;

use fanwire_testkit::oracle::Event;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::bench::{Bench, NODES, QUIET, Setup};
use crate::long_or;
use crate::publisher::{Load, Repeat};
use crate::redis::Keeps;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f01_killed_and_back_after_two_seconds() {
    let mut bench = Bench::start(Setup::default()).await;
    bench.fault_begins().await;
    bench.redis.kill().await;
    sleep(2 * SECOND).await;
    bench.redis.run().await;
    bench.fault_ends();
    bench.until_ready().await;
    let figures = bench.finish("F1 Redis killed, back after 2 s with all it had").await;
    figures.assert_clean().assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f02_away_for_long() {
    let mut bench = Bench::start(Setup::default()).await;
    bench.fault_begins().await;
    bench.redis.kill().await;
    sleep(long_or(60, 15) * SECOND).await;
    bench.redis.run().await;
    let back = bench.fault_ends();
    bench.until_ready().await;
    for gateway in &bench.gateways {
        let took = gateway.proven(back).expect("it is ready") - back;
        assert!(took < SECOND.mul_f64(2.2), "a node that waits {took:?} with Redis there");
    }
    let figures = bench.finish(long_or("F2 Redis away for 60 s", "F2 Redis away for 15 s")).await;
    figures.assert_clean().assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f03_back_from_an_old_snapshot_twice() {
    let load = Load { repeat: Repeat::Never, ..Setup::default().load };
    let setup = Setup { keeps: Keeps::Snapshots, quiet: (30, 5), load, ..Setup::default() };
    let mut bench = Bench::start(setup).await;
    let mut sent = bench.publish_everywhere().await;
    bench.redis.ask(&["SAVE"]).await;
    sleep(2 * SECOND).await;
    bench.fault_begins().await;
    // Some are away when it happens, and come back with positions from a future that never was.
    bench.restless(true).await;
    for _ in 0..2 {
        bench.redis.kill().await;
        bench.redis.run().await;
        bench.fault_ends();
        bench.until_ready().await;
        // Those concerned learn of it, and see something that is forgotten the second time.
        sleep(long_or(10, 7) * SECOND).await;
    }
    bench.restless(false).await;
    sent.extend(bench.publish_everywhere().await);
    sent.extend(bench.quiet().await);
    let last = bench.publish_everywhere().await;
    bench.until_seen(&last, 20 * SECOND).await;
    for subscriber in bench.subscribers.iter().filter(|subscriber| subscriber.channel.starts_with(QUIET)) {
        let told = |(_, event): &_| match event {
            Event::Subscribed { recovered, was_recovering, .. } => *was_recovering && !recovered,
            Event::Unsubscribed { code } | Event::Disconnected { code } => matches!(code, 2500 | 3010),
            Event::Publication { .. } => false,
        };
        assert!(!subscriber.notes(|notes| notes.events.iter().any(told)), "nothing of {}'s was lost", subscriber.name);
    }
    sent.extend(last.iter().cloned());
    let figures = bench.judge("F3 Redis back from an old snapshot, twice the same", sent, &last).await;
    figures.assert_clean();
    assert!(figures.report.acked_but_lost > 0 && figures.report.told > 0, "{}", figures.report);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f04_killed_with_all_it_knew() {
    let load = Load { repeat: Repeat::Never, ..Setup::default().load };
    let mut bench = Bench::start(Setup { keeps: Keeps::Nothing, load, ..Setup::default() }).await;
    bench.fault_begins().await;
    bench.redis.kill().await;
    sleep(2 * SECOND).await;
    bench.redis.run().await;
    bench.fault_ends();
    bench.until_ready().await;
    // Whoever is told is told within 5 s.
    sleep(6 * SECOND).await;
    let figures = bench.finish("F4 Redis killed with all it knew").await;
    figures.assert_clean();
    assert_eq!(figures.report.told, Setup::default().recoverable.0, "everybody with a position, once");
    assert!(figures.report.acked_but_lost > 0, "{}", figures.report);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f05_hangs() {
    for (seconds, name) in [(1, "F5 Redis hangs for 1 s"), (5, "F5 … 5 s"), (30, "F5 … 30 s")] {
        if seconds > long_or(30, 5) {
            continue;
        }
        let mut bench = Bench::start(Setup::default()).await;
        bench.fault_begins().await;
        let silent = silent_ends(&bench).await;
        bench.redis.signal(Signal::STOP);
        sleep(seconds * SECOND).await;
        bench.redis.signal(Signal::CONT);
        bench.fault_ends();
        bench.until_ready().await;
        for (before, after) in silent.iter().zip(silent_ends(&bench).await) {
            let most = f64::from(seconds) / 2.0 + 1.0;
            assert!(after - before <= most, "{} connections given up within {seconds} s", after - before);
        }
        let figures = bench.finish(name).await;
        figures.assert_clean().assert_unnoticed();
        assert!(figures.times.slowest_failure < SECOND.mul_f64(1.3), "publishers are answered within a second");
    }
}

/// How often each gateway has given up a connection that carried nothing.
async fn silent_ends(bench: &Bench) -> [f64; NODES] {
    let mut counts = [0.0; NODES];
    for (count, gateway) in counts.iter_mut().zip(&bench.gateways) {
        *count = gateway.metric("fanwire_redis_reconnects_total", "reason=\"silent\"").await;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn clean_restart() {
    let mut bench = Bench::start(Setup::default()).await;
    bench.fault_begins().await;
    bench.redis.stop().await;
    bench.redis.run().await;
    bench.fault_ends();
    bench.until_ready().await;
    bench.finish("Redis restarted cleanly").await.assert_clean().assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn stopped_for_eight_seconds_again_and_again_on_busy_cores() {
    let mut bench = Bench::start(Setup::default()).await;
    let _hogs = Hogs::start(2);
    bench.fault_begins().await;
    let mut sent = Vec::new();
    for _ in 0..long_or(20, 2) {
        bench.restless(true).await;
        bench.redis.signal(Signal::STOP);
        sleep(8 * SECOND).await;
        bench.redis.signal(Signal::CONT);
        bench.fault_ends();
        bench.until_ready().await;
        sleep(2 * SECOND).await;
        bench.restless(false).await;
        // Deaf or dead is who does not get this one.
        let markers = bench.publish_everywhere().await;
        bench.until_seen(&markers, 30 * SECOND).await;
        sent.extend(markers);
    }
    sent.extend(bench.quiet().await);
    let last = bench.publish_everywhere().await;
    bench.until_seen(&last, 30 * SECOND).await;
    sent.extend(last.iter().cloned());
    let name = long_or(
        "Redis stopped for 8 s, 20 times, busy cores, restless clients",
        "Redis stopped for 8 s, twice, busy cores, restless clients",
    );
    bench.judge(name, sent, &last).await.assert_clean();
}

/// Processes that use a core each, and end with their owner.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(number: usize) -> Self {
        let hog = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell");
        Self((0..number).map(|_| hog()).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill().and_then(|()| hog.wait());
        }
    }
}
