//! Too little of something.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Setup};
use crate::figures::say;
use crate::publisher::Load;
use crate::until;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f21_no_descriptors_left() {
    let load = Load { rate: 100, ..Setup::default().load };
    let mut bench = Bench::start(Setup { load, recoverable: (30, 10), plain: (0, 0), ..Setup::default() }).await;
    bench.fault_begins().await;
    let gateway = &bench.gateways[0];
    let limits = Rlimit { current: Some(120), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(gateway.pid()), Resource::Nofile, limits).expect("it may be lowered");
    let cpu = gateway.metric("process_cpu_seconds_total", "").await;
    // The kernel accepts them; the gateway cannot take them up.
    let crowd: Vec<_> = (0..200).map(|_| TcpStream::connect(gateway.public).expect("the backlog takes it")).collect();
    let begun = Instant::now();
    sleep(3 * SECOND).await;
    drop(crowd);
    bench.fault_ends();
    let gateway = &bench.gateways[0];
    until(30 * SECOND, "it accepts again", async || TcpStream::connect(gateway.public).is_ok()).await;
    until(30 * SECOND, "it can be measured", async || gateway.metric("fanwire_accept_errors_total", "").await > 0.0)
        .await;
    let busy = gateway.metric("process_cpu_seconds_total", "").await - cpu;
    let share = busy / begun.elapsed().as_secs_f64();
    say(&format!("  {:.0} % of a core while it could accept nobody", share * 100.0));
    // No loop that only spins. Not a figure of speed.
    assert!(share < 0.9, "{share} of a core");
    let figures = bench.finish("F21 no descriptors left").await;
    figures.assert_clean();
    assert_eq!(figures.resubscribed, 0, "who was there noticed nothing");
}
