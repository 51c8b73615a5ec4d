//! Thousands of schedules of a cluster, each decided by a seed: nothing is lost in silence, comes twice or out of order,
//! and nobody is told without need. And the same with mistakes in the gateway, each of which must be found.
//!
//! `FANWIRE_SIM=17` plays the schedule of one seed and prints what happened; `FANWIRE_SIM=3000..100000` plays as many. A seed
//! that fails goes into `simulation.seeds`, whose schedules are played first.

#![allow(clippy::print_stdout, reason = "figures are for people")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fanwire_testkit::oracle::{Record, Report};
use fanwire_testkit::sim::{self, Mutant};
use parking_lot::Mutex;

/// The schedules played when nothing else is asked for.
const SCHEDULES: Range<u64> = 0..2000;

/// The schedules in which a mutant must be found.
const PATIENCE: u64 = 200;

#[test]
fn schedules() {
    let mut seeds = kept_seeds();
    match asked() {
        Asked::One(seed) => return show(seed),
        Asked::Range(range) => seeds.extend(range),
    }
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let totals = Mutex::new(Report::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match play(*seed, None) {
                        Some(report) if report.is_clean() => add(&mut totals.lock(), &report),
                        report => {
                            failed.lock().push((*seed, report.and_then(|report| report.violations.first().cloned())))
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort_unstable_by_key(|(seed, _)| *seed);
    println!("{} schedules: {}", seeds.len(), totals.into_inner());
    for (seed, violation) in &failed {
        println!("seed {seed}: {violation:?}");
    }
    if let Some((seed, _)) = failed.first() {
        show(*seed);
    }
    assert!(failed.is_empty(), "{} of {} schedules failed", failed.len(), seeds.len());
}

#[test]
fn a_seed_is_one_schedule() {
    for seed in 0..20 {
        let (one, other) = (sim::run(seed, None), sim::run(seed, None));
        assert_eq!(one.faults, other.faults, "seed {seed}");
        assert!(one.log == other.log, "seed {seed}: the same faults, and something else was seen");
    }
}

#[test]
fn every_mutant_is_found() {
    let found = Mutant::ALL.map(|mutant| {
        let mut reports = (0..PATIENCE).map(|seed| (seed, play(seed, Some(mutant))));
        let found =
            reports.find_map(|(seed, report)| report.filter(|report| !report.is_clean()).map(|report| (seed, report)));
        match &found {
            Some((seed, report)) => println!("{mutant:?}: found with seed {seed} by {:?}", report.violations[0]),
            None => println!("{mutant:?}: NOT FOUND in {PATIENCE} schedules"),
        }
        found.is_some()
    });
    let score = found.iter().filter(|found| **found).count();
    println!("mutation score: {score} of {}", found.len());
    assert_eq!(score, found.len(), "a mistake that the oracle does not find");
}

/// Plays a schedule on a thread with a name that says which; `None` if it panics.
fn play(seed: u64, mutant: Option<Mutant>) -> Option<Report> {
    let thread = thread::Builder::new().name(format!("seed {seed} {mutant:?}"));
    let playing = thread.spawn(move || sim::run(seed, mutant).report).expect("there is room for a thread");
    playing.join().ok()
}

fn add(totals: &mut Report, report: &Report) {
    totals.acked += report.acked;
    totals.delivered += report.delivered;
    totals.lost += report.lost;
    totals.duplicated += report.duplicated;
    totals.reordered += report.reordered;
    totals.phantom += report.phantom;
    totals.told += report.told;
    totals.told_without_need += report.told_without_need;
    totals.recovered += report.recovered;
    totals.failed_recoveries += report.failed_recoveries;
    totals.acked_but_lost += report.acked_but_lost;
    totals.lost_plain += report.lost_plain;
    totals.unseen_plain += report.unseen_plain;
    totals.live += report.live;
}

/// Plays a schedule and prints it.
fn show(seed: u64) {
    println!("seed {seed}");
    let run = sim::run(seed, None);
    let faults = run.faults.iter().map(|(time, what)| (time, what.clone()));
    let records = run.times.iter().zip(&run.log.records).map(|(time, record)| (time, json(record)));
    let mut events: Vec<_> = faults.chain(records).collect();
    events.sort_by_key(|(time, _)| **time);
    for (time, what) in events {
        println!("{:8.3} {what}", time.as_secs_f64());
    }
    println!("{}", run.report);
    run.report.assert_clean();
}

fn json(record: &Record) -> String {
    serde_json::to_string(record).expect("records are JSON")
}

enum Asked {
    One(u64),
    Range(Range<u64>),
}

fn asked() -> Asked {
    #[allow(clippy::disallowed_methods, reason = "how much to play is not part of the product's configuration")]
    let Ok(asked) = std::env::var("FANWIRE_SIM") else { return Asked::Range(SCHEDULES) };
    let number = |text: &str| text.parse().expect("FANWIRE_SIM is a seed, or two with .. between");
    match asked.split_once("..") {
        Some((from, to)) => Asked::Range(number(from)..number(to)),
        None => Asked::One(number(&asked)),
    }
}

/// The seeds that failed once: one in each line, with what it was.
fn kept_seeds() -> Vec<u64> {
    let lines = include_str!("simulation.seeds").lines();
    let seeds = lines.map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|seed| !seed.is_empty());
    seeds.map(|seed| seed.parse().expect("a seed")).collect()
}
