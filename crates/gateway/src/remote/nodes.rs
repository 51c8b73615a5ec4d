//! `fanwire nodes`: who is in the cluster, and what each has.

use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::api::Missing;
use super::table::{Align, table};
use super::{Remote, finish};

/// The answer of `info`.
#[derive(Deserialize)]
struct Info {
    nodes: Vec<Node>,
    #[serde(flatten)]
    missing: Missing,
}

#[derive(Deserialize)]
struct Node {
    uid: String,
    name: String,
    version: String,
    num_clients: u64,
    num_users: u64,
    num_subs: u64,
    num_channels: u64,
    /// Seconds.
    uptime: u64,
    state: String,
    age_ms: u64,
}

/// Prints the nodes. Says on standard error what is not seen.
pub(crate) fn nodes(remote: &Remote) -> ExitCode {
    finish(remote.call::<Info>("info", &json!({})).map(|answer| {
        answer.result.missing.complain();
        answer.print(remote, |info| show(&info.nodes))
    }))
}

fn show(nodes: &[Node]) -> String {
    let columns = [
        ("NAME", Align::Left),
        ("ID", Align::Left),
        ("VERSION", Align::Left),
        ("UPTIME", Align::Right),
        ("CLIENTS", Align::Right),
        ("USERS", Align::Right),
        ("SUBSCRIPTIONS", Align::Right),
        ("CHANNELS", Align::Right),
        ("AGE", Align::Right),
        ("STATE", Align::Left),
    ];
    let row = |node: &Node| {
        [
            node.name.clone(),
            node.uid.clone(),
            node.version.clone(),
            short(Duration::from_secs(node.uptime)),
            node.num_clients.to_string(),
            node.num_users.to_string(),
            node.num_subs.to_string(),
            node.num_channels.to_string(),
            format!("{:.1}s", node.age_ms as f64 / 1000.0),
            node.state.clone(),
        ]
    };
    table(columns, &nodes.iter().map(row).collect::<Vec<_>>())
}

/// A duration in its two largest units.
fn short(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(extra: &str) -> Info {
        let node = r#"{"uid":"c0b7","name":"gw-1","version":"0.1.0","num_clients":3,"num_users":2,"num_subs":12345,
                       "num_channels":1,"uptime":93784,"num_workers":2,"state":"active","age_ms":1240,"later":{}}"#;
        serde_json::from_str(&format!("{{\"nodes\":[{node}]{extra}}}")).unwrap()
    }

    #[test]
    fn a_line_for_each_node() {
        let expected = "NAME  ID    VERSION   UPTIME  CLIENTS  USERS  SUBSCRIPTIONS  CHANNELS   AGE  STATE\n\
                        gw-1  c0b7  0.1.0    1day 2h        3      2          12345         1  1.2s  active\n";
        assert_eq!(show(&info("").nodes), expected);
        assert_eq!(info("").missing.notes(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_seen_is_said() {
        let notes = info(r#","silent":["a","b"],"unsupported":["c"],"unasked":true"#).missing.notes();
        assert_eq!(notes.len(), 3);
        assert!(
            notes[0].contains("a, b") && notes[1].contains('c') && notes[2].contains("cannot be asked"),
            "{notes:?}"
        );
    }
}
