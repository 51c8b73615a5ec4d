//! What the files in `deploy/` and `k8s/` wait for must be longer than what a node takes to end.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::time::Duration;

use fanwire_node::DrainConfig;

/// From the signal to the end of the process, and some time for a busy machine.
fn needed() -> Duration {
    DrainConfig::default().deadline + DrainConfig::REST + Duration::from_secs(5)
}

/// The value behind a key, on the only line that has it.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let mut found = text.lines().filter_map(|line| line.split_once(key).map(|(_, value)| value.trim()));
    let (Some(value), None) = (found.next(), found.next()) else { panic!("{key:?} is not on exactly one line") };
    value
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.trim_end_matches(['s', ' ', '}']).parse().unwrap())
}

#[test]
fn whoever_ends_a_node_has_the_patience() {
    let systemd = value(include_str!("../../../deploy/systemd/fanwire.service"), "TimeoutStopSec=");
    assert!(seconds(systemd) >= needed(), "systemd: {systemd}");
    let compose = value(include_str!("../../../docker-compose.yml"), "stop_grace_period:");
    assert!(seconds(compose) >= needed(), "compose: {compose}");
    let script = value(include_str!("../../../deploy/local-cluster.sh"), "for ((patience = 1500; ");
    assert!(script.starts_with("patience > 0"), "a tenth of a second each");
    assert!(Duration::from_millis(1500 * 100) >= needed());
}

#[test]
fn kubernetes_waits_for_the_hook_too() {
    let deployment = include_str!("../../../k8s/base/deployment.yaml");
    let hook = seconds(value(deployment, "preStop: { sleep: { seconds:"));
    let patience = seconds(value(deployment, "terminationGracePeriodSeconds:"));
    assert!(patience >= hook + needed(), "{patience:?} for a hook of {hook:?}");
}

#[test]
fn balancers_notice_within_the_grace() {
    let haproxy = value(include_str!("../../../deploy/haproxy/haproxy.cfg"), "default-server check inter 1s fall ");
    let falls: u32 = haproxy.split(' ').next().unwrap().parse().unwrap();
    // A check may just be over when the node becomes unready.
    assert!(Duration::from_secs(1) * (falls + 1) < DrainConfig::default().grace);
    let deployment = include_str!("../../../k8s/base/deployment.yaml");
    let probe = deployment.split("readinessProbe:").nth(1).unwrap().split("lifecycle:").next().unwrap();
    let period = seconds(value(probe, "periodSeconds:"));
    let failures: u32 = value(probe, "failureThreshold:").parse().unwrap();
    // What comes before the signal counts as well: the endpoint is taken out of the service then.
    let hook = seconds(value(deployment, "preStop: { sleep: { seconds:"));
    assert!(period * failures < DrainConfig::default().grace + hook);
}
