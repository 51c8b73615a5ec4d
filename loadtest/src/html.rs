//! The report as one HTML page that needs no other file: figures, verdicts and charts of every scenario.

use std::fmt::Write as _;

use crate::chart::{self, Bars, Line, Scale, bars, escape};
use crate::engine::{Report, Session};
use crate::figure::{Figure, Unit};
use crate::outcome::{Point, Row, Run};

/// The page.
pub(crate) fn page(session: &Session) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Fanwire load test, {date}</title>\n\
         <style>{STYLE}</style>\n<body>\n<header><h1>Load test</h1>\n<p>{date} · {machine}</p>\n<pre>{command}</pre></header>\n",
        date = escape(&session.date),
        machine = escape(&session.machine.to_string()),
        command = escape(&session.command),
    );
    if session.scenarios.len() > 1 {
        page.push_str(&summary(&session.scenarios));
    }
    for (number, report) in session.scenarios.iter().enumerate() {
        page.push_str(&section(number, report));
    }
    page.push_str("</body>\n</html>\n");
    page
}

const STYLE: &str = include_str!("report.css");

/// Figures that get bars: those of a line together in one chart.
const BARS: &[&[Figure]] = &[
    &[Figure::ShareOfLimit],
    &[Figure::HandshakeCpu],
    &[Figure::HandshakesPerSecond],
    &[Figure::OperationCpu],
    &[Figure::ConnectionBytes, Figure::ConnectionBytesRested, Figure::ConnectionBytesUsed],
];

/// Figures that get lines over the publications in flight, where several numbers of them were measured, else bars, too: of
/// values that grow with each step bars would show the largest alone.
const OVER_WINDOWS: &[(&str, Unit, &[Figure])] = &[
    (
        "per CPU second, by publications in flight",
        Unit::Rate,
        &[Figure::DeliveriesPerCpuSecond, Figure::LimitPerCpuSecond],
    ),
    ("latency, by publications in flight", Unit::Milliseconds, &[Figure::LatencyP50, Figure::LatencyP99]),
];

/// The figures that come first, of which a scenario shows those that it has.
const TILES: &[Figure] = &[
    Figure::DeliveriesPerCpuSecond,
    Figure::ShareOfLimit,
    Figure::LatencyP50,
    Figure::LatencyP99,
    Figure::HandshakeCpu,
    Figure::ConnectionBytesRested,
    Figure::IdleCpu,
    Figure::SubscriptionBytes,
    Figure::OperationCpu,
    Figure::SlowBytes,
    Figure::OverFloor,
    Figure::NotRecovered,
    Figure::Lost,
];

fn summary(reports: &[Report]) -> String {
    let mut text = "<nav><ul>".to_owned();
    for (number, report) in reports.iter().enumerate() {
        put(
            &mut text,
            format_args!("<li><a href=\"#s{number}\">{}</a> {}", escape(&report.name), badge(report.passed())),
        );
    }
    text.push_str("</ul></nav>\n");
    text
}

fn section(number: usize, report: &Report) -> String {
    let mut text = format!("<section id=\"s{number}\"><h2>{} {}</h2>\n", escape(&report.name), badge(report.passed()));
    for paragraph in report.description.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        put(&mut text, format_args!("<p>{}</p>\n", escape(paragraph.trim())));
    }
    for (what, said) in [("Ended early", &report.error), ("First broken promise", &report.first_fault)] {
        if let Some(said) = said {
            put(&mut text, format_args!("<p class=\"bad\">{what}: {}</p>\n", escape(said)));
        }
    }
    text.push_str(&tiles(&report.rows));
    text.push_str(&charts(report));
    text.push_str(&verdicts(report));
    text.push_str(&table(&report.rows));
    text.push_str(&details(report));
    text.push_str("</section>\n");
    text
}

fn badge(passed: bool) -> &'static str {
    if passed { "<b class=\"ok\">passed</b>" } else { "<b class=\"no\">failed</b>" }
}

/// The best of each figure's rows would flatter: it is the first row, and where there are several, all of them stand below.
fn tiles(rows: &[Row]) -> String {
    let mut text = "<dl class=\"tiles\">".to_owned();
    for &figure in TILES {
        let found = rows.iter().filter_map(|row| Some((row, row.figures.get(&figure)?))).collect::<Vec<_>>();
        let Some((first, spread)) = found.first() else {
            continue;
        };
        let range = match found.last() {
            Some((last, other)) if found.len() > 1 && other != spread => {
                format!("{}; {}: {}", escape(&first.label), escape(&last.label), figure.unit().show(other.median))
            }
            _ => escape(&first.label),
        };
        let shown = figure.unit().show(spread.median);
        put(
            &mut text,
            format_args!("<div><dt>{}</dt><dd>{shown}</dd><small>{range}</small></div>", escape(figure.title())),
        );
    }
    text.push_str("</dl>\n");
    text
}

fn charts(report: &Report) -> String {
    let rows = &report.rows;
    let labels: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    let mut text = "<div class=\"charts\">\n".to_owned();
    for &(title, unit, figures) in OVER_WINDOWS {
        text.push_str(&over_windows(rows, title, unit, figures).unwrap_or_else(|| bar_chart(rows, figures)));
    }
    for figures in BARS {
        text.push_str(&bar_chart(rows, figures));
    }
    let firsts: Vec<&Run> =
        labels.iter().filter_map(|label| report.runs.iter().find(|run| run.label == **label)).collect();
    let latencies: Vec<Line> = firsts
        .iter()
        .filter(|run| !run.latencies.is_empty())
        .map(|run| Line {
            name: run.label.clone(),
            points: run.latencies.iter().map(|quantile| (quantile.share, quantile.ms)).collect(),
        })
        .collect();
    if !latencies.is_empty() {
        let scales = (Scale::Nines, Scale::Logarithmic);
        text.push_str(&chart::lines("latency by share of the deliveries", scales, Unit::Milliseconds, &latencies));
    }
    let curves: [(&str, Unit, Coordinate); 3] = [
        ("deliveries per second over time", Unit::Rate, |point| Some(point.deliveries)),
        ("server CPU over time, cores", Unit::Share, |point| point.cpu),
        ("server memory over time", Unit::Bytes, |point| point.memory),
    ];
    for (title, unit, value) in curves {
        let curves: Vec<Line> = firsts.iter().filter_map(|run| curve(run, value)).collect();
        if !curves.is_empty() {
            text.push_str(&chart::lines(title, (Scale::Linear, Scale::Linear), unit, &curves));
        }
    }
    text.push_str("</div>\n");
    text
}

/// `None` where fewer than three windows were measured.
fn over_windows(rows: &[Row], title: &str, unit: Unit, figures: &[Figure]) -> Option<String> {
    let line = |figure: &Figure| Line {
        name: figure.title().to_owned(),
        points: rows.iter().filter_map(|row| Some((f64::from(row.window?), row.figures.get(figure)?.median))).collect(),
    };
    let lines: Vec<Line> = figures.iter().map(line).filter(|line| line.points.len() > 2).collect();
    (!lines.is_empty()).then(|| chart::lines(title, (Scale::Doubling, Scale::Logarithmic), unit, &lines))
}

/// Bars of those figures that there are, for those rows that have one; nothing where a single bar would be left.
fn bar_chart(rows: &[Row], figures: &[Figure]) -> String {
    let has = |row: &&Row| figures.iter().any(|figure| row.figures.contains_key(figure));
    let rows: Vec<&Row> = rows.iter().filter(has).collect();
    let labels: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    let sets: Vec<Bars> = figures
        .iter()
        .filter(|figure| rows.iter().any(|row| row.figures.contains_key(figure)))
        .map(|figure| Bars {
            name: figure.title().to_owned(),
            values: rows.iter().map(|row| row.figures.get(figure).copied()).collect(),
        })
        .collect();
    if rows.len() * sets.len() < 2 {
        return String::new();
    }
    let title = sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>().join(", ");
    bars(&title, figures[0].unit(), &labels, &sets)
}

/// What a curve is made of.
type Coordinate = fn(&Point) -> Option<f64>;

fn curve(run: &Run, value: Coordinate) -> Option<Line> {
    let points: Vec<_> = run.series.iter().filter_map(|point| Some((point.at, value(point)?))).collect();
    let shows_something = points.len() > 1 && points.iter().any(|(_, value)| *value > 0.0);
    shows_something.then(|| Line { name: run.label.clone(), points })
}

fn verdicts(report: &Report) -> String {
    let mut text = "<h3>Demanded</h3>\n<ul class=\"verdicts\">".to_owned();
    for verdict in &report.verdicts {
        let (assertion, found) = (escape(&verdict.assertion), escape(&verdict.found));
        put(&mut text, format_args!("<li>{} <code>{assertion}</code> <small>{found}</small>", badge(verdict.held)));
    }
    text.push_str("</ul>\n");
    text
}

fn table(rows: &[Row]) -> String {
    let mut text = "<h3>All figures</h3>\n<div class=\"wide\"><table><tr><th>medians".to_owned();
    for row in rows {
        put(&mut text, format_args!("<th>{} <small>{}×</small>", escape(&row.label), row.runs));
    }
    for &figure in Figure::ALL {
        if !rows.iter().any(|row| row.figures.contains_key(&figure)) {
            continue;
        }
        put(&mut text, format_args!("<tr><td>{}", escape(figure.title())));
        for row in rows {
            match row.figures.get(&figure) {
                Some(spread) => {
                    put(&mut text, format_args!("<td>{}", figure.unit().show(spread.median)));
                    if spread.low < spread.high {
                        let (low, high) = (figure.unit().show(spread.low), figure.unit().show(spread.high));
                        put(&mut text, format_args!("<small>{low} – {high}</small>"));
                    }
                }
                None => text.push_str("<td>"),
            }
        }
    }
    text.push_str("</table></div>\n");
    text
}

fn details(report: &Report) -> String {
    let mut text = String::new();
    if !report.scenario.is_empty() {
        put(
            &mut text,
            format_args!("<details><summary>Scenario</summary><pre>{}</pre></details>\n", escape(&report.scenario)),
        );
    }
    let server = serde_json::to_string_pretty(&report.server).unwrap_or_default();
    put(&mut text, format_args!("<details><summary>Server</summary><pre>{}</pre></details>\n", escape(&server)));
    for run in report.runs.iter().filter(|run| !run.counters.is_empty()) {
        let label = escape(&run.label);
        put(&mut text, format_args!("<details><summary>The server's counters, {label}</summary><table>"));
        for (name, value) in &run.counters {
            put(&mut text, format_args!("<tr><td>{}<td>{}", escape(name), Unit::Count.show(*value)));
        }
        text.push_str("</table></details>\n");
    }
    text
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(what);
}
