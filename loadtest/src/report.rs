//! Progress on the standard error, tables on the standard output, JSON in a file.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::args::FanoutArgs;
use crate::error::{Context as _, Error};
use crate::fanout::Pair;
use crate::idle::IdleRun;
use crate::limit::LimitRun;
use crate::meter::{Machine, Memory};
use crate::stats::median;

/// Says what is going on.
pub(crate) fn progress(what: fmt::Arguments<'_>) {
    eprintln!("… {what}");
}

/// Writes a value as JSON, if a file was named.
pub(crate) fn write_json(path: Option<&Path>, value: &impl Serialize) -> Result<(), Error> {
    let Some(path) = path else {
        return Ok(());
    };
    let context = || format!("write {}", path.display());
    let mut text = serde_json::to_string_pretty(value).map_err(std::io::Error::from).context(context())?;
    text.push('\n');
    std::fs::write(path, text).context(context())
}

/// The medians of all rounds with one window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    window: u32,
    frames_per_write: Option<f64>,
    frames_per_read: Option<f64>,
    frames_per_write_by_server: Option<f64>,
    per_second: Option<f64>,
    per_cpu_second: Option<f64>,
    limit_per_cpu_second: Option<f64>,
    ratio: Option<f64>,
    lowest_ratio: Option<f64>,
    highest_ratio: Option<f64>,
    latency_p50_ms: Option<f64>,
    latency_p99_ms: Option<f64>,
    server_busy: Option<f64>,
    client_busy: Option<f64>,
    limit_client_busy: Option<f64>,
}

/// A row for each window.
pub(crate) fn rows(windows: &[u32], pairs: &[Pair]) -> Vec<Row> {
    windows
        .iter()
        .map(|&window| {
            let of = |value: &dyn Fn(&Pair) -> Option<f64>| {
                let pairs = pairs.iter().filter(|pair| pair.run.window == window);
                pairs.filter_map(value).collect::<Vec<f64>>()
            };
            let middle = |value: &dyn Fn(&Pair) -> Option<f64>| median(of(value));
            let ratios = of(&Pair::ratio);
            Row {
                window,
                frames_per_write: middle(&|p| p.run.figures.frames_per_write),
                frames_per_read: middle(&|p| Some(p.run.figures.frames_per_read)),
                frames_per_write_by_server: middle(&|p| p.run.frames_per_write_by_server),
                per_second: middle(&|p| Some(p.run.figures.per_second)),
                per_cpu_second: middle(&|p| p.run.figures.per_cpu_second),
                limit_per_cpu_second: middle(&|p| p.limit?.figures.per_cpu_second),
                ratio: median(ratios.iter().copied()),
                lowest_ratio: ratios.iter().copied().reduce(f64::min),
                highest_ratio: ratios.iter().copied().reduce(f64::max),
                latency_p50_ms: middle(&|p| Some(p.run.latency_p50_ms)),
                latency_p99_ms: middle(&|p| Some(p.run.latency_p99_ms)),
                server_busy: middle(&|p| p.run.figures.sender_busy),
                client_busy: middle(&|p| Some(p.run.figures.client_busy)),
                limit_client_busy: middle(&|p| Some(p.limit?.figures.client_busy)),
            }
        })
        .collect()
}

/// Prints the medians of a fan-out run.
pub(crate) fn print_fanout(args: &FanoutArgs, server: &str, pairs: &[Pair]) -> Result<(), Error> {
    let mut table = Table::new(&[
        "W",
        "frames/write",
        "by server",
        "frames/read",
        "deliveries/s",
        "per CPU s",
        "limit per CPU s",
        "ratio",
        "ratios",
        "p50 ms",
        "p99 ms",
        "server CPU",
        "client CPU",
    ]);
    for row in rows(&args.window, pairs) {
        table.row([
            row.window.to_string(),
            fixed(row.frames_per_write, 2),
            fixed(row.frames_per_write_by_server, 2),
            fixed(row.frames_per_read, 2),
            count(row.per_second),
            count(row.per_cpu_second),
            count(row.limit_per_cpu_second),
            fixed(row.ratio, 2),
            match (row.lowest_ratio, row.highest_ratio) {
                (Some(low), Some(high)) => format!("{low:.2} to {high:.2}"),
                _ => "-".to_owned(),
            },
            fixed(row.latency_p50_ms, 2),
            fixed(row.latency_p99_ms, 2),
            percent(row.server_busy),
            percent(row.client_busy),
        ]);
    }
    print(&format!(
        "{server}: {} subscribers, {} bytes, {} x {:?} each, medians; nothing lost, repeated or \
         reordered\n{}\n\n{table}",
        args.subscribers,
        args.payload,
        args.rounds,
        args.seconds,
        Machine::this(),
    ))
}

/// Prints runs of the limit.
pub(crate) fn print_limit(runs: &[LimitRun]) -> Result<(), Error> {
    let mut table = Table::new(&[
        "frames/write",
        "counted",
        "frames/read",
        "deliveries/s",
        "per CPU s",
        "us/delivery",
        "sender CPU",
        "client CPU",
    ]);
    for run in runs {
        let figures = &run.figures;
        table.row([
            format!("{:.2}", run.wanted),
            fixed(figures.frames_per_write, 2),
            format!("{:.2}", figures.frames_per_read),
            count(Some(figures.per_second)),
            count(figures.per_cpu_second),
            fixed(figures.per_cpu_second.map(|rate| 1e6 / rate), 3),
            percent(figures.sender_busy),
            percent(Some(figures.client_busy)),
        ]);
    }
    print(&format!("{}\n\n{table}", Machine::this()))
}

/// Prints the readings of an idle run.
pub(crate) fn print_idle(run: &IdleRun) -> Result<(), Error> {
    let mut table = Table::new(&["bytes per connection", "RSS", "PSS", "private dirty"]);
    let readings = [
        ("after connect", run.after_connect),
        ("after the rest", run.after_settle),
        ("after one message each", run.after_message),
    ];
    for (name, memory) in readings {
        let grown = |field: fn(&Memory) -> u64| {
            let bytes = field(&memory) as f64 - field(&run.before) as f64;
            format!("{:.0}", bytes / f64::from(run.connections))
        };
        table.row([
            name.to_owned(),
            grown(|memory| memory.rss),
            grown(|memory| memory.pss),
            grown(|memory| memory.private_dirty),
        ]);
    }
    print(&format!(
        "{}: {} connections, a subscription each, {} channels; rested {} s, {} pings answered, all \
         reached by a message afterwards\n{}\nserver before: {:.1} MiB RSS; connect and subscribe: \
         {:.0} us of server CPU each\n\n{table}",
        run.server,
        run.connections,
        run.channels,
        run.settle_seconds,
        run.pings_answered,
        Machine::this(),
        run.before.rss as f64 / f64::from(1 << 20),
        run.connect_cpu_microseconds,
    ))
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().write_all(text.as_bytes()).context("write the table")
}

fn fixed(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.0} %", value * 100.0))
}

/// A rate in thousands, the unit in which rates of this kind are compared.
fn count(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.0} k", value / 1e3))
}

/// A table in Markdown, aligned for reading as it is.
struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    fn new(names: &[&str; COLUMNS]) -> Self {
        Self { rows: vec![names.map(str::to_owned)] }
    }

    fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            // The rule below the names needs two characters.
            cells.max().unwrap_or_default().max(2)
        };
        for (number, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                write!(out, "| {cell:>0$} ", width(column))?;
            }
            out.write_str("|\n")?;
            if number == 0 {
                for column in 0..COLUMNS {
                    write!(out, "| {:->1$}: ", "", width(column) - 1)?;
                }
                out.write_str("|\n")?;
            }
        }
        out.write_char('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new(&["W", "per CPU s"]);
        table.row(["16".to_owned(), count(Some(3_490_000.0))]);
        assert_eq!(table.to_string(), "|  W | per CPU s |\n| -: | --------: |\n| 16 |    3490 k |\n\n");
    }
}
