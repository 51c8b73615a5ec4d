//! One engine for everything that can be run: a scenario's servers are started, its load is run, its figures are judged.

use std::time::SystemTime;

use serde::Serialize;

use crate::args::{OutputArgs, RunArgs};
use crate::assertion::{Assertion, Verdict};
use crate::error::Error;
use crate::figure::Figure;
use crate::kind::Bench;
use crate::meter::{self, Machine};
use crate::outcome::{Row, Run, rows};
use crate::scenario::{Load, Scenario};
use crate::server::{About, Servers};
use crate::{html, report};

/// Scenarios that were run, as JSON and the HTML report have them.
#[derive(Debug, Serialize)]
pub(crate) struct Session {
    /// Where.
    pub(crate) machine: Machine,
    /// When it began, in UTC.
    pub(crate) date: String,
    /// What was typed, without its folder.
    pub(crate) command: String,
    /// What came of each.
    pub(crate) scenarios: Vec<Report>,
}

/// What came of a scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) name: String,
    /// What it shows.
    pub(crate) description: String,
    /// What was measured.
    pub(crate) server: About,
    /// Why it ended early.
    pub(crate) error: Option<String>,
    /// The first broken promise in words.
    pub(crate) first_fault: Option<String>,
    /// What was demanded, and whether it held.
    pub(crate) verdicts: Vec<Verdict>,
    /// Medians.
    pub(crate) rows: Vec<Row>,
    /// Every run.
    pub(crate) runs: Vec<Run>,
    /// The file, with what was set on top of it.
    pub(crate) scenario: String,
}

impl Report {
    /// Whether all went as promised and demanded.
    pub(crate) fn passed(&self) -> bool {
        self.error.is_none() && self.verdicts.iter().all(|verdict| verdict.held)
    }
}

/// The `run` command.
pub(crate) fn run(args: &RunArgs) -> Result<(), Error> {
    // All files are read before the first is run: a mistake in the last should not cost an hour.
    let mut scenarios = Vec::new();
    for file in &args.files {
        let (mut scenario, text) = Scenario::read(file, &args.set)?;
        args.target.apply(&mut scenario)?;
        scenarios.push((scenario, text));
    }
    run_all(&scenarios, &args.output)
}

/// A command that is short for a scenario.
pub(crate) fn run_short(scenario: Scenario, output: &OutputArgs) -> Result<(), Error> {
    run_all(&[(scenario, String::new())], output)
}

/// Runs one scenario after the other, and writes what came of all of them, even if some failed.
///
/// # Errors
/// The first that went wrong.
fn run_all(scenarios: &[(Scenario, String)], output: &OutputArgs) -> Result<(), Error> {
    let mut session = Session {
        machine: Machine::this(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command: command(),
        scenarios: Vec::new(),
    };
    let mut failed = None;
    for (scenario, text) in scenarios {
        let (report, error) = run_one(scenario, text)?;
        report::print(&report, &session.machine)?;
        if failed.is_none() {
            failed = error
                .or_else(|| (!report.passed()).then(|| Error::Failed(format!("{}: not as it should be", report.name))));
        }
        session.scenarios.push(report);
    }
    report::write_json(output.json.as_deref(), &session)?;
    if let Some(path) = &output.html {
        report::write(path, &html::page(&session))?;
    }
    failed.map_or(Ok(()), Err)
}

fn run_one(scenario: &Scenario, text: &str) -> Result<(Report, Option<Error>), Error> {
    meter::allow_descriptors(connections(&scenario.load))?;
    let servers = Servers::start(&scenario.server, &scenario.client)?;
    let mut bench = Bench::new(scenario, &servers);
    let error = bench.run(&scenario.load).err();
    if error.is_some() {
        servers.show_logs();
    }
    let Bench { runs, first_fault, .. } = bench;
    let rows = rows(&runs);
    let promises = [Figure::Lost, Figure::OutOfOrder].map(Assertion::zero);
    let report = Report {
        name: scenario.name.clone(),
        description: scenario.description.clone(),
        server: servers.about(),
        error: error.as_ref().map(ToString::to_string),
        first_fault,
        verdicts: promises.iter().chain(&scenario.assert).map(|assertion| assertion.judge(&rows)).collect(),
        rows,
        runs,
        scenario: text.to_owned(),
    };
    Ok((report, error))
}

/// Sockets that a load opens in this process.
fn connections(load: &Load) -> u32 {
    match load {
        Load::FanOut(load) => load.subscribers + load.publishers,
        Load::Mixed(load) => load.subscribers + 1,
        Load::Idle(load) => load.connections + 1,
        Load::Handshake(load) => load.connections + 1,
        Load::Churn(load) => load.connections + 1,
        Load::SlowConsumers(load) => load.subscribers + load.slow + 1,
        Load::Growth(load) => load.connections + 1,
        Load::Resume(load) => load.clients + 1,
    }
}

fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}
