//! The connections on which publications arrive: they carry nothing, are cut, are cut off.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, interval, sleep};

use crate::bench::{Bench, NODES, QUIET, Setup};
use crate::figures::say;
use crate::proxy::Proxy;
use crate::redis::{Keeps, Redis};
use crate::{long_or, until};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f06_led_to_a_server_that_answers_and_carries_nothing() {
    let stranger = Redis::start(Keeps::Nothing).await;
    let mut bench = Bench::start(Setup { proxied: true, ..Setup::default() }).await;
    let begun = bench.fault_begins().await;
    bench.proxies.iter().for_each(|proxy| proxy.mislead(stranger.address()));
    until(10 * SECOND, "every node notices", async || {
        bench.gateways.iter().all(|gateway| gateway.detected(begun).is_some())
    })
    .await;
    bench.fault_ends();
    bench.until_ready().await;
    let figures = bench.finish("F6 subscriber connections starved").await;
    figures.assert_clean().assert_unnoticed();
    assert!(figures.times.detect.is_some_and(|detect| detect <= 3 * SECOND), "found late: {:?}", figures.times.detect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f07_killed_every_second() {
    let setup = Setup::default();
    let mut bench = Bench::start(setup).await;
    bench.fault_begins().await;
    let kills = long_or(60, 10_u64);
    let mut ticks = interval(SECOND);
    for _ in 0..kills {
        ticks.tick().await;
        bench.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    }
    bench.fault_ends();
    let name = long_or("F7 subscriber connections killed 60 times", "F7 subscriber connections killed 10 times");
    let figures = bench.finish(name).await;
    figures.assert_clean().assert_unnoticed();
    let most = kills * (setup.recoverable.1 * NODES) as u64;
    assert!(figures.reads <= most, "more than one read per channel, node and kill: {}", figures.reads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f08_cut_off_by_redis_for_reading_too_slowly() {
    let mut bench = Bench::start(Setup { quiet: (1, 1), ..Setup::default() }).await;
    bench.redis.ask(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 65536 1"]).await;
    bench.fault_begins().await;
    bench.gateways[0].signal(Signal::STOP);
    // The kernel's buffers come first. What fills them goes to that node alone and makes no sense to it.
    let only_there = bench.redis.ask(&["PUBSUB", "CHANNELS", &format!("*:{QUIET}0")]).await.items().remove(0).text();
    let junk = "x".repeat(60_000);
    until(60 * SECOND, "Redis cuts the connection", async || {
        bench.redis.ask(&["PUBLISH", &only_there, &junk]).await;
        bench.redis.subscriber_connections().await < NODES
    })
    .await;
    assert_eq!(bench.redis.subscriber_connections().await, NODES - 1, "the others read fast enough");
    sleep(2 * SECOND).await;
    bench.gateways[0].signal(Signal::CONT);
    bench.fault_ends();
    bench.until_ready().await;
    let figures = bench.finish("F8 a stalled node cut off by Redis (output buffer of 64 KiB)").await;
    figures.assert_clean().assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn cut_and_then_silence() {
    let mut bench = Bench::start(Setup { proxied: true, plain: (0, 0), ..Setup::default() }).await;
    let mut sent = bench.quiet().await;
    bench.fault_begins().await;
    bench.proxies.iter().for_each(Proxy::close);
    for _ in 0..3 {
        sent.extend(bench.publish_everywhere().await);
    }
    let last = sent.split_off(sent.len() - Setup::default().recoverable.1);
    // Nothing that follows could show what is missing.
    bench.proxies.iter().for_each(Proxy::open);
    let open = bench.fault_ends();
    bench.until_seen(&last, 20 * SECOND).await;
    let mut slowest = Duration::ZERO;
    for gateway in &bench.gateways {
        until(5 * SECOND, "the node is ready", async || gateway.proven(open).is_some()).await;
        let resubscribed = gateway.proven(open).expect("it is ready");
        let own = bench.subscribers.iter().filter_map(|subscriber| {
            subscriber
                .notes(|notes| (notes.node == Some(gateway.public)).then(|| notes.events.last().map(|(at, _)| *at)))
        });
        let complete: Instant = own.flatten().max().expect("the node has clients");
        slowest = slowest.max(complete.saturating_duration_since(resubscribed));
    }
    say(&format!("  complete {:.3} s after the resubscribe at the latest", slowest.as_secs_f64()));
    sleep(SECOND).await;
    sent.extend(last.iter().cloned());
    let figures = bench.judge("subscriber connections cut, then silence", sent, &last).await;
    figures.assert_clean().assert_unnoticed();
    assert!(slowest <= SECOND, "complete {slowest:?} after the resubscribe");
}
