//! Every scenario that is shipped, in small, against a real gateway: figures come, nothing is lost, reports are written.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Runs a scenario with keys set on top of it: its output, and the one report in its JSON.
fn run(name: &str, set: &[&str]) -> (Output, Value) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("fanwire-smoke-{}-{number}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (json, html) = (folder.join("out.json"), folder.join("out.html"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"));
    command.arg("run").arg(scenario(name)).arg("--server-bin").arg(gateway());
    command.arg("--json").arg(&json).arg("--html").arg(&html);
    for assignment in set {
        command.args(["--set", assignment]);
    }
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let Ok(json) = std::fs::read_to_string(&json) else {
        panic!("{name} wrote no JSON:\n{text}");
    };
    let session: Value = serde_json::from_str(&json).unwrap();
    let page = std::fs::read_to_string(&html).unwrap();
    // One page, no other file.
    assert!(page.contains("<section") && page.contains("</html>"), "{name}");
    // Of a single value there is no chart.
    assert!(page.contains("<svg") || name == "resume", "{name}");
    for outside in ["<script", "<link", "src=", "url(", "@import", "http://www", "https://"] {
        assert!(!page.contains(outside), "{name} has {outside}");
    }
    std::fs::remove_dir_all(folder).unwrap();
    (output, session["scenarios"][0].clone())
}

/// Runs a scenario that must go well; every figure named must be there and above zero in each row that has it.
fn passes(name: &str, set: &[&str], figures: &[&str]) {
    let (output, report) = run(name, set);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}:\n{text}");
    for figure in figures {
        let rows = report["rows"].as_array().unwrap();
        let values: Vec<f64> = rows.iter().filter_map(|row| row["figures"][figure]["median"].as_f64()).collect();
        assert!(!values.is_empty() && values.iter().all(|value| *value > 0.0), "{name}: {figure} {values:?}\n{text}");
    }
}

/// Speed is not what a build without optimisations is judged by.
const NO_DEMANDS: &str = "assert=[]";

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name).with_extension("toml")
}

/// The gateway that was built with this.
fn gateway() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_fanwire-loadtest")).parent().unwrap();
    let binary = folder.join("fanwire");
    assert!(binary.is_file(), "{} is not there: cargo build", binary.display());
    binary
}

const FAN_OUT: [&str; 4] =
    [NO_DEMANDS, "load.fan-out.subscribers=30", "load.fan-out.seconds=0.2", "load.fan-out.rounds=1"];

#[test]
fn fan_out_in_a_closed_loop() {
    let set = [&FAN_OUT[..], &["load.fan-out.window=[1, 4]"]].concat();
    passes(
        "fan-out",
        &set,
        &["deliveries_per_cpu_second", "share_of_limit", "latency_p99_ms", "frames_per_write_by_server"],
    );
    passes("fan-out-10000", &[&set[..], &["load.fan-out.limit=false"]].concat(), &["deliveries_per_second"]);
    let set = [&FAN_OUT[..], &["load.fan-out.channels=7", "load.fan-out.window=[3]"]].concat();
    passes("many-channels", &set, &["deliveries_per_cpu_second"]);
}

#[test]
fn fan_out_on_a_schedule() {
    let set = [&FAN_OUT[..], &["load.fan-out.rate=[50]"]].concat();
    passes("rates", &set, &["latency_p50_ms", "publisher_late_p99_ms", "server_memory"]);
    passes("latency", &[&set[..], &["load.fan-out.subscribers=1"]].concat(), &["latency_max_ms"]);
}

#[test]
fn a_cluster() {
    let set = [&FAN_OUT[..], &["load.fan-out.window=[2]", "load.fan-out.rate=[50]"]].concat();
    passes("cluster", &set, &["deliveries_per_cpu_second", "redis_floor_p50_ms"]);
    passes("cluster-latency", &FAN_OUT, &["latency_over_redis_floor", "latency_over_relayed_floor"]);
}

#[test]
fn mixed() {
    let set = [
        "load.mixed.subscribers=40",
        "load.mixed.groups=4",
        "load.mixed.seconds=0.3",
        "load.mixed.group_rate=50",
        "load.mixed.direct_rate=100",
    ];
    passes("mixed", &set, &["latency_p50_ms", "deliveries_per_second"]);
}

#[test]
fn idle() {
    let set = [NO_DEMANDS, "load.idle.connections=50", "load.idle.channels=10", "load.idle.rest=0.2"];
    passes("idle", &set, &["handshake_cpu_us"]);
}

#[test]
fn handshakes() {
    let set = ["load.handshake.connections=50", "load.handshake.channels=10", "load.handshake.storms=1"];
    passes("handshake", &set, &["handshake_cpu_us", "handshake_over_limit", "handshakes_per_second"]);
}

#[test]
fn churn() {
    let set =
        ["load.churn.connections=20", "load.churn.subscriptions=5", "load.churn.channels=40", "load.churn.seconds=0.2"];
    passes("churn", &set, &["operations_per_second", "operation_cpu_us"]);
}

#[test]
fn growth() {
    let set = [
        "load.growth.connections=20",
        "load.growth.audience=2",
        "load.growth.channels=[10, 50]",
        "load.growth.seconds=0.2",
        "load.growth.rounds=1",
    ];
    passes("growth", &set, &["deliveries_per_cpu_second", "publications_per_second"]);
}

#[test]
fn slow_consumers() {
    let set = [
        NO_DEMANDS,
        "load.slow-consumers.subscribers=10",
        "load.slow-consumers.slow=3",
        "load.slow-consumers.payload=8000",
        "load.slow-consumers.seconds=0.5",
        // So that the slow ones are too slow within so short a time.
        "server.config.client.queue_size=65536",
    ];
    passes("slow-consumers", &set, &["slow_disconnected", "deliveries_per_second"]);
}

#[test]
fn resume() {
    let set = ["load.resume.clients=20", "load.resume.channels=4", "load.resume.missed=5", "load.resume.rounds=1"];
    passes("resume", &set, &["recoveries_per_second", "deliveries", "share_of_limit"]);
}

#[test]
fn what_is_not_recovered_fails() {
    let set = [
        "load.resume.clients=4",
        "load.resume.channels=2",
        "load.resume.missed=9",
        "load.resume.rounds=1",
        // Fewer than are missed.
        r#"server.config.namespace=[{ name = "history", history_size = 5, history_ttl = "1m", recovery = true }]"#,
    ];
    let (output, report) = run("resume", &set);
    assert_eq!(output.status.code(), Some(1), "{report}");
}

#[test]
fn an_assertion_that_does_not_hold_fails() {
    let (output, report) =
        run("latency", &[&FAN_OUT[1..], &["load.fan-out.rate=[50]", r#"assert=["latency_p50_ms < 0"]"#]].concat());
    assert_eq!(output.status.code(), Some(1), "{report}");
    let verdicts = report["verdicts"].as_array().unwrap();
    let of =
        |name: &str| verdicts.iter().find(|verdict| verdict["assertion"].as_str().unwrap().starts_with(name)).unwrap();
    assert_eq!((&of("latency")["held"], &of("lost")["held"]), (&Value::Bool(false), &Value::Bool(true)));
}

#[test]
fn a_mistake_in_a_scenario_is_no_measurement() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanwire-loadtest"));
    command.arg("run").arg(scenario("idle")).args(["--set", "load.idle.conections=5"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("conections") && error.contains("idle.toml"), "{error}");
}
