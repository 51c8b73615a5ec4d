//! Clients whose network went away without a word.

use std::time::Duration;

use serde_json::json;

use crate::bench::{Bench, Setup};
use crate::crowd::{Attention, Crowd};
use crate::figures::say;
use crate::home::Home;
use crate::netns::Namespace;
use crate::until;

/// Who says nothing for so long is pinged, and has so long to answer.
const PING: Duration = Duration::from_secs(3);
const PONG: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f19_half_open() {
    let name = "F19 1,000 half-open clients of one node";
    let Some(namespace) = Namespace::create() else {
        say(&format!("SKIPPED {name}: network namespaces need root"));
        return;
    };
    let setup = Setup { client: "insecure = true\nping_interval = \"3s\"\npong_timeout = \"2s\"", ..Setup::default() };
    let mut bench = Bench::start_in(setup, Home::Cable(namespace)).await;
    let gateway = &bench.gateways[0];
    let before = gateway.descriptors();
    // Something is on the way to each of them when the network goes.
    let channel = |number| format!("plain:{}", number % 20);
    let crowd = Crowd::gather(gateway.public, 1000, json!({}), channel, Attention::Full).await;
    assert!(gateway.descriptors() >= before + 1000, "each has a descriptor");
    let begun = bench.fault_begins().await;
    let (cable, _) = bench.cable();
    // Both ports: another connection may have one of the same.
    let (theirs, own) = (crowd.ports(), bench.gateways[0].public.port());
    cable
        .rule(&format!("tcp dport {own} tcp sport {theirs} drop"), &format!("tcp sport {own} tcp dport {theirs} drop"));
    let gateway = &bench.gateways[0];
    let gone = async || gateway.metric("fanwire_disconnects_total", "\"no_pong\"").await >= 1000.0;
    until(Duration::from_secs(30), "they are gone", gone).await;
    let took = begun.elapsed();
    until(Duration::from_secs(10), "their descriptors are back", async || gateway.descriptors() <= before + 20).await;
    bench.fault_ends();
    say(&format!("  the last one was gone after {:.1} s", took.as_secs_f64()));
    let figures = bench.finish(name).await;
    figures.assert_clean().assert_unnoticed();
    // The wheel is coarse; the machine may be busy.
    assert!((PONG..PING + PONG + 3 * Duration::from_secs(1)).contains(&took), "{took:?}");
    drop(crowd);
}
