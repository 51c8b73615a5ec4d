//! Tables on the standard output, JSON in a file.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::engine::Report;
use crate::error::{Context as _, Error};
use crate::figure::{Figure, Unit};
use crate::limit::LimitRun;
use crate::meter::Machine;
use crate::outcome::Spread;

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
    write(path, &text)
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).context(format!("write {}", path.display()))
}

/// Prints what came of a scenario.
pub(crate) fn print(report: &Report, machine: &Machine) -> Result<(), Error> {
    let labels = report.rows.iter().map(|row| row.label.clone());
    let mut table = Table::new(std::iter::once("figure".to_owned()).chain(labels).collect());
    for &figure in Figure::ALL {
        let values: Vec<_> = report.rows.iter().map(|row| row.figures.get(&figure)).collect();
        if values.iter().any(Option::is_some) {
            let cells = values.into_iter().map(|value| value.map_or_else(|| "-".to_owned(), |v| show(figure, *v)));
            table.row(std::iter::once(figure.title().to_owned()).chain(cells).collect());
        }
    }
    let runs = report.rows.iter().map(|row| row.runs).max().unwrap_or_default();
    let mut text = format!("{}\n{machine}; medians of {runs}\n\n{table}", report.name);
    for verdict in &report.verdicts {
        let sign = if verdict.held { "ok    " } else { "FAILED" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{sign} {} ({})", verdict.assertion, verdict.found);
    }
    if let Some(fault) = &report.first_fault {
        let _ = writeln!(text, "first: {fault}");
    }
    text.push('\n');
    output(&text)
}

/// The median, and how far a ratio moved: that says whether to trust it.
fn show(figure: Figure, spread: Spread) -> String {
    let Spread { median, low, high } = spread;
    if figure.unit() == Unit::Ratio && low < high {
        return format!("{median:.2} ({low:.2}–{high:.2})");
    }
    figure.unit().show(median)
}

/// Prints runs of the limit.
pub(crate) fn print_limit(runs: &[LimitRun]) -> Result<(), Error> {
    let names = "frames/write,counted,frames/read,deliveries/s,per CPU s,us/delivery,sender CPU,client CPU";
    let mut table = Table::new(names.split(',').map(str::to_owned).collect());
    for run in runs {
        let figures = &run.figures;
        table.row(vec![
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
    output(&format!("{}\n\n{table}", Machine::this()))
}

fn output(text: &str) -> Result<(), Error> {
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
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(names: Vec<String>) -> Self {
        Self { rows: vec![names] }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            // The rule below the names needs two characters.
            cells.max().unwrap_or_default().max(2)
        };
        for (number, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => write!(out, "| {cell:<0$} ", width(column))?,
                    _ => write!(out, "| {cell:>0$} ", width(column))?,
                }
            }
            out.write_str("|\n")?;
            if number == 0 {
                write!(out, "| {:-<1$} ", "", width(0))?;
                for column in 1..columns {
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
        let mut table = Table::new(vec!["W".to_owned(), "per CPU s".to_owned()]);
        table.row(vec!["16".to_owned(), count(Some(3_490_000.0))]);
        assert_eq!(table.to_string(), "| W  | per CPU s |\n| -- | --------: |\n| 16 |    3490 k |\n\n");
    }
}
