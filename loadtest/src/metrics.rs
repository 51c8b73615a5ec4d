//! What gateways say about themselves on `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::http;

/// Counters of all nodes together, summed over their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// Asks every node; empty if one does not answer.
    pub(crate) fn scrape(nodes: &[SocketAddr]) -> Self {
        let mut sum = Self::default();
        for node in nodes {
            let Ok((200, text)) = http::get(*node, "/metrics") else {
                return Self::default();
            };
            sum.add(&text);
        }
        sum
    }

    /// What grew since `earlier`, by how much.
    pub(crate) fn since(&self, earlier: &Self) -> BTreeMap<String, f64> {
        let grown = |(name, value): (&String, &f64)| {
            let grown = value - earlier.0.get(name).copied().unwrap_or_default();
            (grown > 0.0).then(|| (name.clone(), grown))
        };
        self.0.iter().filter_map(grown).collect()
    }

    /// Counters of a scrape in the text format: names that end in `_total`.
    fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(end) = line.find(['{', ' ']) else {
                continue;
            };
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            if let (name, Some(value)) = (&line[..end], value)
                && name.ends_with("_total")
            {
                *self.0.entry(name.to_owned()).or_default() += value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels_and_nodes_and_compared() {
        let mut before = Counters::default();
        before.add("# HELP a_total x\na_total{p=\"x y\"} 3\na_total{p=\"z\"} 4.5\nb 1\nc_total 2\n");
        let mut after = before.clone();
        after.add("a_total{p=\"z\"} 1\nd_total 5\n");
        assert_eq!(after.since(&before), BTreeMap::from([("a_total".to_owned(), 1.0), ("d_total".to_owned(), 5.0)]));
    }
}
