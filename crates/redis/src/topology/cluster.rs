//! What the nodes of a cluster say.

use redis::{Pipeline, Value};

use super::scouts::Answer;
use crate::answers::{items, number, text};
use crate::url::Address;

/// What does the cluster look like, and since which election?
pub(super) fn question() -> Pipeline {
    let mut question = redis::pipe();
    question.cmd("CLUSTER").arg("INFO");
    question.cmd("CLUSTER").arg("SLOTS");
    question
}

/// The cluster as a node sees it.
pub(super) struct View(Vec<Stretch>);

/// Slots with the same nodes.
struct Stretch {
    first: u16,
    last: u16,
    /// The primary, then the replicas.
    nodes: Vec<Address>,
}

/// The view after the latest election, of those who belong to the cluster: a node that was cut off keeps its own.
pub(super) fn latest(answers: Vec<Answer>) -> Option<View> {
    let read = |Answer { from, values }: Answer| {
        let [info, slots] = <[_; 2]>::try_from(values).ok()?;
        let info = text(info)?;
        let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if line("cluster_state") != Some("ok") {
            return None;
        }
        let epoch: u64 = line("cluster_current_epoch")?.trim().parse().ok()?;
        let stretches: Vec<_> = items(slots).into_iter().filter_map(|slots| stretch(slots, &from)).collect();
        Some((epoch, View(stretches)))
    };
    answers.into_iter().filter_map(read).max_by_key(|(epoch, _)| *epoch).map(|(_, view)| view)
}

impl View {
    pub(super) fn primary(&self, slot: u16) -> Option<Address> {
        let stretch = self.0.iter().find(|stretch| (stretch.first..=stretch.last).contains(&slot))?;
        stretch.nodes.first().cloned()
    }

    /// All nodes, each once.
    pub(super) fn nodes(&self) -> Vec<Address> {
        let mut nodes: Vec<_> = self.0.iter().flat_map(|stretch| &stretch.nodes).cloned().collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

fn stretch(value: Value, asked: &Address) -> Option<Stretch> {
    let mut value = items(value).into_iter();
    let (first, last) = (number(value.next()?)?, number(value.next()?)?);
    let node = |value| {
        let mut node = items(value).into_iter();
        let (host, port) = (node.next().and_then(text).unwrap_or_default(), number(node.next()?)?);
        Some(Address { host: host.into(), port }.said_by(asked))
    };
    Some(Stretch { first, last, nodes: value.filter_map(node).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn answer(state: &str, epoch: u64, host: &str, port: i64) -> Answer {
        let info = format!("cluster_state:{state}\r\ncluster_known_nodes:2\r\ncluster_current_epoch:{epoch}\r\n");
        let node = |port| Value::Array(vec![text(host), Value::Int(port), text("id"), Value::Array(vec![])]);
        let stretch = Value::Array(vec![Value::Int(0), Value::Int(16383), node(port), node(port + 1)]);
        let from = Address { host: "asked".into(), port: 1 };
        Answer { from, values: vec![text(&info), Value::Array(vec![stretch])] }
    }

    #[test]
    fn the_latest_view_of_a_whole_cluster_counts() {
        let primary = |answers| latest(answers).and_then(|view| view.primary(42)).map(|address| address.to_string());
        let stale = || answer("ok", 3, "a", 1);
        assert_eq!(primary(vec![stale(), answer("ok", 5, "b", 2), stale()]).as_deref(), Some("b:2"));
        assert_eq!(primary(vec![answer("fail", 9, "b", 2), stale()]).as_deref(), Some("a:1"));
        assert_eq!(primary(vec![answer("fail", 9, "b", 2)]), None);
        for unknown in ["", "?"] {
            assert_eq!(primary(vec![answer("ok", 1, unknown, 2)]).as_deref(), Some("asked:2"));
        }
    }

    #[test]
    fn all_nodes_are_known_once() {
        let view = latest(vec![answer("ok", 1, "a", 1)]).unwrap();
        let nodes: Vec<_> = view.nodes().iter().map(Address::to_string).collect();
        assert_eq!(nodes, ["a:1", "a:2"]);
    }
}
