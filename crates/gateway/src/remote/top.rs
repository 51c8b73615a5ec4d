//! `fanwire top`: what a cluster does, live.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::channel::clean;
use super::{Error, Remote, finish, print, run};
use crate::config::causes;

/// Arguments of `fanwire top`.
#[derive(Args, Debug)]
pub(crate) struct Top {
    /// How often it is asked
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// End after so many times
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

/// The shortest interval: each time asks all nodes.
const SHORTEST: Duration = Duration::from_millis(500);

/// The lines of each list that are asked for.
const LINES: u32 = 20;

/// What the cluster says: the answers of `info` and of `report`.
#[derive(Clone, Debug, Default)]
struct Said {
    info: Info,
    report: Report,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Info {
    nodes: Vec<Node>,
    #[serde(default)]
    silent: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Report {
    channels: Vec<Channel>,
    clients: Vec<Slow>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Node {
    uid: String,
    name: String,
    state: String,
    num_clients: u64,
    num_subs: u64,
    publications: u64,
    deliveries: u64,
    delivered_bytes: u64,
    waiting_bytes: u64,
    median_us: u64,
    p99_us: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Channel {
    channel: String,
    num_clients: u64,
    publications_per_second: f64,
    deliveries_per_second: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Slow {
    client: String,
    user: String,
    protocol: String,
    waiting_bytes: u64,
}

/// What is shown: what was said last, and before that, to make rates of totals.
#[derive(Default)]
struct View {
    latest: Said,
    /// By node: totals, and when they were read.
    before: BTreeMap<String, (Node, Instant)>,
    rates: BTreeMap<String, Rates>,
    trouble: Option<String>,
}

/// In a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    publications: f64,
    deliveries: f64,
    bytes: f64,
}

/// Shows it until somebody presses q.
pub(crate) fn top(args: &Top) -> ExitCode {
    if args.remote.json {
        return finish(args.lines().map(|()| String::new()));
    }
    if !std::io::stdout().is_terminal() {
        return finish(Err(Error::Usage("top wants a terminal; with --json it prints lines".to_owned())));
    }
    // What is wrong at the start is said where it stays.
    finish(args.ask().and_then(|(said, _)| {
        let mut view = View::default();
        view.take(said, Instant::now());
        let shown = ratatui::run(|terminal| args.watch(terminal, &mut view));
        shown.map_err(|source| Error::Local { what: "the terminal".to_owned(), source }).map(|()| String::new())
    }))
}

impl Top {
    fn interval(&self) -> Duration {
        self.interval.max(SHORTEST)
    }

    fn times(&self) -> u64 {
        self.count.unwrap_or(u64::MAX)
    }

    /// Asks once; the second half is the same for machines.
    fn ask(&self) -> Result<(Said, String), Error> {
        let api = self.remote.connect()?;
        run(async {
            let info = self.remote.ask::<Info>(&api, "info", &json!({})).await?;
            let report = self.remote.ask::<Report>(&api, "report", &json!({ "limit": LINES })).await?;
            let line = format!("{{\"info\":{},\"report\":{}}}\n", info.raw, report.raw);
            Ok((Said { info: info.result, report: report.result }, line))
        })
    }

    /// Prints each answer on a line.
    fn lines(&self) -> Result<(), Error> {
        for time in 0..self.times() {
            if time > 0 {
                run(async {
                    tokio::time::sleep(self.interval()).await;
                    Ok(())
                })?;
            }
            print(self.ask()?.1.as_bytes())?;
        }
        Ok(())
    }

    fn watch(&self, terminal: &mut DefaultTerminal, view: &mut View) -> std::io::Result<()> {
        for _ in 0..self.times() {
            let next = Instant::now() + self.interval();
            loop {
                terminal.draw(|frame| view.draw(frame))?;
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() || !event::poll(left)? {
                    break;
                }
                // Anything else, a new size for example, is a reason to draw.
                if let Event::Key(key) = event::read()? {
                    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        return Ok(());
                    }
                }
            }
            match self.ask() {
                Ok((said, _)) => view.take(said, Instant::now()),
                Err(error) => view.trouble = Some(causes(&error)),
            }
        }
        Ok(())
    }
}

impl View {
    fn take(&mut self, said: Said, now: Instant) {
        let before = std::mem::take(&mut self.before);
        self.rates.clear();
        for node in &said.info.nodes {
            if let Some((earlier, at)) = before.get(&node.uid) {
                let seconds = (now - *at).as_secs_f64().max(0.001);
                let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
                self.rates.insert(
                    node.uid.clone(),
                    Rates {
                        publications: rate(node.publications, earlier.publications),
                        deliveries: rate(node.deliveries, earlier.deliveries),
                        bytes: rate(node.delivered_bytes, earlier.delivered_bytes),
                    },
                );
            }
            self.before.insert(node.uid.clone(), (node.clone(), now));
        }
        let silent = &said.info.silent;
        self.trouble = (!silent.is_empty()).then(|| format!("no answer from {}", silent.join(", ")));
        self.latest = said;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let nodes = self.latest.info.nodes.len() as u16 + 3;
        let [head, top, rest] =
            Layout::vertical([Constraint::Length(1), Constraint::Max(nodes), Constraint::Min(0)]).areas(frame.area());
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(rest);
        frame.render_widget(self.summary(), head);
        self.nodes(frame, top);
        self.channels(frame, left);
        self.clients(frame, right);
    }

    fn summary(&self) -> Line<'static> {
        if let Some(trouble) = &self.trouble {
            return Line::from(clean(trouble)).red().bold();
        }
        let clients: u64 = self.latest.info.nodes.iter().map(|node| node.num_clients).sum();
        let deliveries: f64 = self.rates.values().map(|rates| rates.deliveries).sum();
        let nodes = self.latest.info.nodes.len();
        Line::from(format!("{nodes} nodes, {clients} clients, {} deliveries/s        q: quit", count(deliveries)))
            .bold()
    }

    fn nodes(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.latest.info.nodes.iter().map(|node| {
            let rates = self.rates.get(&node.uid).copied().unwrap_or_default();
            let row = Row::new([
                clean(&node.name),
                node.state.clone(),
                node.num_clients.to_string(),
                node.num_subs.to_string(),
                count(rates.publications),
                count(rates.deliveries),
                bytes(rates.bytes),
                bytes(node.waiting_bytes as f64),
                millis(node.median_us),
                millis(node.p99_us),
            ]);
            if node.state == "active" { row } else { row.yellow() }
        });
        let head = ["NODE", "STATE", "CLIENTS", "SUBS", "PUB/S", "DELIV/S", "BYTES/S", "WAITING", "P50", "P99"];
        let widths = [20, 9, 9, 9, 9, 9, 9, 9, 9, 9].map(Constraint::Max);
        table(frame, area, "nodes", &head, &widths, rows);
    }

    fn channels(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.latest.report.channels.iter().map(|channel| {
            Row::new([
                clean(&channel.channel),
                channel.num_clients.to_string(),
                count(channel.publications_per_second),
                count(channel.deliveries_per_second),
            ])
        });
        let widths = [Constraint::Fill(1), Constraint::Length(8), Constraint::Length(8), Constraint::Length(9)];
        table(frame, area, "hottest channels", &["CHANNEL", "CLIENTS", "PUB/S", "DELIV/S"], &widths, rows);
    }

    fn clients(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.latest.report.clients.iter().map(|slow| {
            Row::new([clean(&slow.client), clean(&slow.user), slow.protocol.clone(), bytes(slow.waiting_bytes as f64)])
        });
        let widths = [Constraint::Fill(2), Constraint::Fill(1), Constraint::Length(9), Constraint::Length(9)];
        table(frame, area, "slowest clients", &["CLIENT", "USER", "PROTOCOL", "WAITING"], &widths, rows);
    }
}

fn table<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &'a str,
    head: &[&'a str],
    widths: &[Constraint],
    rows: impl Iterator<Item = Row<'a>>,
) {
    let head = Row::new(head.to_vec()).style(Style::new().bold());
    frame.render_widget(
        Table::new(rows, widths.iter().copied()).header(head).block(Block::bordered().title(title)),
        area,
    );
}

/// A number in few characters.
fn count(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T"])
}

fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while number >= step && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let digits = if number >= 100.0 || number.fract() < 0.05 { 0 } else { 1 };
    format!("{number:.digits$}{}", units[unit])
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn said(deliveries: u64) -> Said {
        let info = format!(
            r#"{{"nodes":[{{"uid":"u","name":"gw-1","state":"active","num_clients":3,"num_subs":4,"publications":7,
                "deliveries":{deliveries},"delivered_bytes":2048,"waiting_bytes":0,"median_us":1200,"p99_us":9900}}]}}"#
        );
        let report = r#"{"channels":[{"channel":"chat:\u001b[31m","num_clients":3,"publications_per_second":1.5,
            "deliveries_per_second":12345.0}],"clients":[{"client":"c-1","user":"ann","protocol":"native","waiting_bytes":3145728}]}"#;
        Said { info: serde_json::from_str(&info).unwrap(), report: serde_json::from_str(report).unwrap() }
    }

    #[test]
    fn rates_come_of_two_reports() {
        let mut view = View::default();
        let start = Instant::now();
        view.take(said(1000), start);
        assert!(view.rates.is_empty());
        view.take(said(3000), start + Duration::from_secs(2));
        assert_eq!(view.rates["u"].deliveries, 1000.0);

        let mut terminal = Terminal::new(TestBackend::new(120, 14)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        for seen in
            ["1 nodes, 3 clients, 1k deliveries/s", "gw-1", "9.9 ms", "12.3k", "c-1", "3 MiB", "hottest channels"]
        {
            assert!(screen.contains(seen), "{seen}: {screen}");
        }
        assert!(!screen.contains('\u{1b}'), "{screen}");
    }

    #[test]
    fn small_terminals_do_not_matter() {
        let mut view = View::default();
        view.take(said(1), Instant::now());
        for (width, height) in [(1, 1), (10, 3), (40, 5)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| view.draw(frame)).unwrap();
        }
    }

    #[test]
    fn numbers_stay_short() {
        let shown = [0.0, 1.0, 12.34, 999.0, 1000.0, 123_456.0, 2_500_000.0].map(count);
        assert_eq!(shown, ["0", "1", "12.3", "999", "1k", "123k", "2.5M"]);
        assert_eq!(bytes(1536.0), "1.5 KiB");
    }
}
