//! One fault upon the other, while what the last one has broken is being repaired, and clients come and go.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::bench::{Bench, NODES, Setup};
use crate::figures::say;
use crate::long_or;
use crate::proxy::Proxy;
use crate::redis::{Keeps, Redis};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn one_upon_the_other() {
    let seed = fastrand::u64(..);
    say(&format!("  seed {seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let stranger = Redis::start(Keeps::Nothing).await;
    let mut bench = Bench::start(Setup { proxied: true, ..Setup::default() }).await;
    let begun = bench.fault_begins().await;
    bench.restless(true).await;
    while begun.elapsed() < Duration::from_secs(long_or(300, 25)) {
        strike(&mut bench, &stranger, &mut random).await;
        sleep(up_to(2000, &mut random)).await;
    }
    bench.fault_ends();
    bench.until_ready().await;
    bench.restless(false).await;
    let name = long_or("one fault upon the other for 5 min", "one fault upon the other for 25 s");
    bench.finish(name).await.assert_clean();
}

/// Breaks something, and mends what does not mend itself.
async fn strike(bench: &mut Bench, stranger: &Redis, random: &mut fastrand::Rng) {
    let node = random.usize(..NODES);
    match random.u32(..7) {
        0 => drop(bench.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await),
        1 => drop(bench.redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await),
        2 => {
            bench.redis.kill().await;
            sleep(up_to(1500, random)).await;
            bench.redis.run().await;
        }
        3 => {
            bench.redis.signal(Signal::STOP);
            sleep(up_to(3500, random)).await;
            bench.redis.signal(Signal::CONT);
        }
        4 => {
            bench.kill(node);
            sleep(up_to(1000, random)).await;
            bench.replace(node).await;
        }
        5 => bench.proxies[node].mislead(stranger.address()),
        _ => {
            bench.proxies.iter().for_each(Proxy::close);
            sleep(up_to(1000, random)).await;
            bench.proxies.iter().for_each(Proxy::open);
        }
    }
}

/// Up to so many milliseconds.
fn up_to(most: u64, random: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(random.u64(..most))
}
