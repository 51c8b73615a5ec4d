//! `fanwire drain` and `fanwire rebalance`: clients that move to other nodes.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::json;

use super::table::{Align, table};
use super::{Answer, Remote, finish};

#[derive(Deserialize)]
struct Node {
    uid: String,
    name: String,
    num_clients: u64,
}

#[derive(Deserialize)]
struct Rebalance {
    keep: u64,
    nodes: Vec<Move>,
}

#[derive(Deserialize)]
struct Move {
    #[serde(flatten)]
    node: Node,
    moving: u64,
}

/// Lets a node go down, and says which.
pub(crate) fn drain(remote: &Remote, node: Option<&str>) -> ExitCode {
    finish(remote.call::<Node>("drain", &json!({ "node": node })).map(|Answer { result, raw }| {
        let Node { uid, name, num_clients } = result;
        if remote.json { format!("{raw}\n") } else { format!("{name} ({uid}) lets its {num_clients} clients go\n") }
    }))
}

/// Begins to even out, and says what moves.
pub(crate) fn rebalance(remote: &Remote, rate: f64) -> ExitCode {
    finish(
        remote
            .call::<Rebalance>("rebalance", &json!({ "rate": rate }))
            .map(|Answer { result, raw }| if remote.json { format!("{raw}\n") } else { show(&result, rate) }),
    )
}

fn show(Rebalance { keep, nodes }: &Rebalance, rate: f64) -> String {
    let columns = [("NAME", Align::Left), ("ID", Align::Left), ("CLIENTS", Align::Right), ("MOVING", Align::Right)];
    let row = |Move { node, moving }: &Move| {
        [node.name.clone(), node.uid.clone(), node.num_clients.to_string(), moving.to_string()]
    };
    let moving: u64 = nodes.iter().map(|each| each.moving).sum();
    let rows: Vec<_> = nodes.iter().map(row).collect();
    format!("{}{moving} clients move, at most {rate} in a second; each node keeps {keep}\n", table(columns, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_shown() {
        let answer = r#"{"keep":2,"nodes":[{"uid":"c0","name":"gw-1","num_clients":4,"moving":2},
                         {"uid":"d1","name":"gw-2","num_clients":0,"moving":0}]}"#;
        let expected = "NAME  ID  CLIENTS  MOVING\n\
                        gw-1  c0        4       2\n\
                        gw-2  d1        0       0\n\
                        2 clients move, at most 50 in a second; each node keeps 2\n";
        assert_eq!(show(&serde_json::from_str(answer).unwrap(), 50.0), expected);
    }
}
