//! Too little of something.

use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Setup};
use crate::control_group::ControlGroup;
use crate::crowd::{Attention, Crowd};
use crate::figures::say;
use crate::home::Home;
use crate::publisher::Load;
use crate::{long_or, until};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f22_little_memory() {
    let name = "F22 a node with 128 MiB, flooded for clients that do not read";
    let Some(group) = ControlGroup::with_memory(128 * 1024 * 1024) else {
        say(&format!("SKIPPED {name}: control groups need root"));
        return;
    };
    let load = Load { rate: 100, ..Setup::default().load };
    let setup = Setup { load, recoverable: (30, 10), plain: (30, 10), ..Setup::default() };
    let mut bench = Bench::start_in(setup, Home::Memory(group)).await;
    // Each on a channel of its own, so that nothing is shared: 200 MiB may wait for them.
    let crowd = Crowd::gather(bench.gateways[0].public, 200, json!({}), flooded, Attention::None).await;
    let begun = bench.fault_begins().await;
    let (gateway, other) = (&bench.gateways[0], &bench.gateways[1]);
    let channels: Vec<_> = (0..200).map(flooded).collect();
    let flood = json!({ "channels": channels, "data": { "text": "x".repeat(16 * 1024) } });
    // Until it gives something up, and on from there.
    let (mut most, mut more) = (0.0_f64, 30);
    while more > 0 {
        other.api("broadcast", &flood).await;
        most = most.max(gateway.metric("fanwire_shedding", "").await);
        more -= u32::from(most > 0.0);
        assert!(begun.elapsed() < 120 * SECOND, "it gave nothing up");
    }
    let flooded = begun.elapsed().as_secs_f64();
    drop(crowd);
    let ended = bench.fault_ends();
    bench.until_ready().await;
    let (again, peak) = (ended.elapsed().as_secs_f64(), bench.gateways[0].peak_memory() >> 20);
    say(&format!("  flooded for {flooded:.1} s, gave up to step {most}; ready {again:.1} s later; at most {peak} MiB"));
    let figures = bench.finish(name).await;
    figures.assert_clean().assert_unnoticed();
}

fn flooded(number: usize) -> String {
    format!("plain:flooded{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f23_little_processor() {
    let client = "insecure = true\nping_interval = \"3s\"\npong_timeout = \"2s\"";
    let load = Load { rate: 100, ..Setup::default().load };
    let mut bench = Bench::start(Setup { client, load, ..Setup::default() }).await;
    bench.fault_begins().await;
    let hogs: Vec<_> = (0..4 * cores()).map(|_| Hog::start()).collect();
    sleep(long_or(30, 8) * SECOND).await;
    drop(hogs);
    bench.fault_ends();
    for gateway in &bench.gateways {
        assert_eq!(gateway.metric("fanwire_disconnects_total", "\"no_pong\"").await, 0.0, "they did answer");
    }
    let name = long_or("F23 four busy processes for each core, 30 s", "F23 four busy processes for each core, 8 s");
    let figures = bench.finish(name).await;
    figures.assert_clean().assert_unnoticed();
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// A process that takes all the time it can get, until its owner ends.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a process"))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}
