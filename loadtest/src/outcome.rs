//! What a scenario brought: runs with their figures, and their medians.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::figure::Figure;
use crate::stats::{Histogram, median};

/// Figures by name.
pub(crate) type Figures = BTreeMap<Figure, f64>;

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Run {
    /// Which of the scenario's points: "W = 4", "1,000/s". Runs of one label are repetitions.
    pub(crate) label: String,
    /// The publications in flight, in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<u32>,
    /// What was measured.
    pub(crate) figures: Figures,
    /// Latencies that shares of the deliveries did not exceed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) latencies: Vec<Quantile>,
    /// What the servers' own counters grew by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) counters: BTreeMap<String, f64>,
    /// How it went over time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) series: Vec<Point>,
}

/// A point of a distribution.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantile {
    /// The share, 0 to 1.
    pub(crate) share: f64,
    /// Milliseconds that it did not exceed.
    pub(crate) ms: f64,
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Point {
    /// Seconds since the run began.
    pub(crate) at: f64,
    /// Deliveries per second since the point before.
    pub(crate) deliveries: f64,
    /// Cores that the servers kept busy since the point before; none if their processes are unknown.
    pub(crate) cpu: Option<f64>,
    /// Resident bytes of the servers; none if their processes are unknown.
    pub(crate) memory: Option<f64>,
}

/// The medians of all runs with one label.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The label.
    pub(crate) label: String,
    /// The publications in flight, in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<u32>,
    /// Repetitions.
    pub(crate) runs: usize,
    /// By figure.
    pub(crate) figures: BTreeMap<Figure, Spread>,
}

/// A figure's values over the repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one.
    pub(crate) median: f64,
    /// The lowest.
    pub(crate) low: f64,
    /// The highest.
    pub(crate) high: f64,
}

/// The shares that a distribution is kept at.
const SHARES: [f64; 17] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0];

impl Run {
    /// A run without figures.
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// Notes a figure.
    pub(crate) fn set(&mut self, figure: Figure, value: f64) {
        self.figures.insert(figure, value);
    }

    /// Notes a figure that the machine may not tell.
    pub(crate) fn set_some(&mut self, figure: Figure, value: Option<f64>) {
        if let Some(value) = value {
            self.set(figure, value);
        }
    }

    /// Notes a distribution of nanoseconds.
    pub(crate) fn set_latencies(&mut self, latencies: &Histogram) {
        if latencies.is_empty() {
            return;
        }
        let ms = |share| latencies.quantile(share) as f64 / 1e6;
        self.latencies = SHARES.iter().map(|&share| Quantile { share, ms: ms(share) }).collect();
        for (figure, share) in [
            (Figure::LatencyP50, 0.5),
            (Figure::LatencyP90, 0.9),
            (Figure::LatencyP99, 0.99),
            (Figure::LatencyP999, 0.999),
            (Figure::LatencyMax, 1.0),
        ] {
            self.set(figure, ms(share));
        }
    }
}

/// A row for each label, in the order of their first runs.
pub(crate) fn rows(runs: &[Run]) -> Vec<Row> {
    let mut labels: Vec<&str> = Vec::new();
    for run in runs {
        if !labels.contains(&run.label.as_str()) {
            labels.push(&run.label);
        }
    }
    labels.into_iter().map(|label| row(label, runs.iter().filter(|run| run.label == label))).collect()
}

fn row<'a>(label: &str, runs: impl Iterator<Item = &'a Run>) -> Row {
    let mut values: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
    let (mut count, mut window) = (0, None);
    for run in runs {
        (count, window) = (count + 1, run.window);
        for (&figure, &value) in &run.figures {
            values.entry(figure).or_default().push(value);
        }
    }
    let spread = |values: Vec<f64>| Spread {
        low: values.iter().copied().fold(f64::INFINITY, f64::min),
        high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        median: median(values).unwrap_or(f64::NAN),
    };
    let figures = values.into_iter().map(|(figure, values)| (figure, spread(values))).collect();
    Row { label: label.to_owned(), window, runs: count, figures }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_become_a_row_in_the_order_of_the_first_round() {
        let run = |label: &str, value: f64| {
            let mut run = Run::new(label);
            run.set(Figure::Deliveries, value);
            run
        };
        let rows = rows(&[run("b", 3.0), run("a", 7.0), run("b", 1.0), run("b", 2.0)]);
        assert_eq!(rows.iter().map(|row| (row.label.as_str(), row.runs)).collect::<Vec<_>>(), [("b", 3), ("a", 1)]);
        assert_eq!(rows[0].figures[&Figure::Deliveries], Spread { median: 2.0, low: 1.0, high: 3.0 });
    }

    #[test]
    fn no_latencies_are_no_figures() {
        let mut run = Run::new("x");
        run.set_latencies(&Histogram::new());
        assert!(run.figures.is_empty());
        let mut latencies = Histogram::new();
        latencies.record(2_000_000);
        run.set_latencies(&latencies);
        assert!((run.figures[&Figure::LatencyP50] - 2.0).abs() < 0.07);
    }
}
