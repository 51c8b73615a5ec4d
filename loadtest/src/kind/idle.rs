//! Memory per idle connection: connected, subscribed, pings answered, and provably alive afterwards.

use std::time::Duration;

use super::Bench;
use crate::clock::Deadline;
use crate::error::Error;
use crate::figure::Figure;
use crate::layout::Layout;
use crate::meter::{self, Memory};
use crate::monitor::Monitor;
use crate::mux;
use crate::outcome::Run;
use crate::scenario::Idle;

/// Bytes of the one message's data.
const PAYLOAD: u32 = 64;

/// Publications in flight while everybody gets one.
const WINDOW: u32 = 16;

pub(super) fn run(load: &Idle, bench: &mut Bench<'_>) -> Result<(), Error> {
    bench.needs_processes("idle")?;
    let pids = &bench.servers.pids;
    bench.warm()?;
    let monitor = Monitor::begin(pids);
    let (before, cpu) = (meter::memory_of_all(pids)?, meter::cpu_of_all(pids)?);
    let layout = Layout::spread(load.connections, load.channels);
    let mut traffic = bench.open(layout, bench.publishers_for(load.channels), PAYLOAD, mux::Idle::Sleep)?;
    let (connected, cpu_connected) = (meter::memory_of_all(pids)?, meter::cpu_of_all(pids)?);

    bench.progress.now(format_args!("resting for {:?}", load.rest.0));
    let end = Deadline::after(load.rest.0);
    while !end.passed() {
        traffic.listen(Duration::from_millis(50))?;
    }
    let (rested, cpu_rested) = (meter::memory_of_all(pids)?, meter::cpu_of_all(pids)?);
    let pings = traffic.mux().counters().pings;

    bench.progress.now("one message to every connection");
    traffic.draw(monitor.deliveries());
    traffic.once_each(WINDOW)?;
    traffic.drain()?;

    let mut run = Run::new(format!("{} connections", load.connections));
    run.series = monitor.end();
    let each = |memory: Memory| (memory.rss as f64 - before.rss as f64) / f64::from(load.connections);
    run.set(Figure::ConnectionBytes, each(connected));
    run.set(Figure::ConnectionBytesRested, each(rested));
    run.set(Figure::ConnectionBytesUsed, each(meter::memory_of_all(pids)?));
    let spent = |from: Option<u64>, to: Option<u64>| Some((to? - from?) as f64 / 1e3 / f64::from(load.connections));
    run.set_some(Figure::HandshakeCpu, spent(cpu, cpu_connected));
    run.set_some(Figure::IdleCpu, spent(cpu_connected, cpu_rested).map(|each| each / load.rest.0.as_secs_f64()));
    run.set(Figure::PingsAnswered, pings as f64);
    run.set_some(Figure::ServerMemory, meter::resident_of_all(pids).map(|bytes| bytes as f64));
    let faults = traffic.faults().clone();
    bench.note(run, &faults);
    Ok(())
}
