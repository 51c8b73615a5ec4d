//! A measured span of traffic: begun, warmed up, measured, and everything that was under way then has arrived.

use std::time::Duration;

use super::Bench;
use crate::clock;
use crate::error::Error;
use crate::figure::Figure;
use crate::limit::{self, warm_up};
use crate::meter;
use crate::monitor::Monitor;
use crate::outcome::Run;
use crate::sample::Figures;
use crate::traffic::{Class, Traffic};

/// How publications follow one another.
#[derive(Debug)]
pub(super) enum Pace {
    /// So many are in flight: the next is published when one has reached everybody.
    Window(u32),
    /// Each class of channels has its rate, whatever the server does. Its latencies are those of the class.
    Schedule(Vec<Class>),
}

/// The server's counters of deliveries and of the writes that carried them.
const DELIVERIES: &str = "fanwire_deliveries_total";
const WRITES: &str = "fanwire_writes_total";

/// Measures `span` of it.
pub(super) fn measure(
    traffic: &mut Traffic,
    pace: Pace,
    span: Duration,
    bench: &Bench<'_>,
) -> Result<(Run, Figures), Error> {
    let pids = &bench.servers.pids;
    let monitor = Monitor::begin(pids);
    traffic.draw(monitor.deliveries());
    let (before, counters) = (traffic.sample(pids)?, bench.servers.counters());
    match pace {
        Pace::Window(window) => traffic.fill(window)?,
        Pace::Schedule(classes) => {
            clock::wake_on_time();
            traffic.schedule(classes);
        }
    }
    traffic.run_for(warm_up(span))?;
    traffic.forget_latencies();
    let (start, published) = (traffic.sample(pids)?, traffic.published());
    traffic.run_for(span)?;
    let (end, published) = (traffic.sample(pids)?, traffic.published() - published);
    // In a closed loop what is still in flight meets less and less load.
    let latency = traffic.latency().clone();
    let late = traffic.late().clone();
    traffic.drain()?;
    let after = traffic.sample(pids)?;

    let mut run = Run::new("");
    run.series = monitor.end();
    run.counters = bench.servers.counters().since(&counters);
    run.set_latencies(&latency);
    let figures = end.since(&start).with_frames_of(&after.since(&before));
    figures.note(&mut run);
    run.set(Figure::PublicationsPerSecond, published as f64 / figures.seconds);
    if !late.is_empty() {
        run.set(Figure::LateP99, late.quantile(0.99) as f64 / 1e6);
    }
    if let (Some(deliveries), Some(writes)) = (run.counters.get(DELIVERIES), run.counters.get(WRITES)) {
        run.set(Figure::FramesPerWriteByServer, deliveries / writes);
    }
    run.set_some(Figure::ServerMemory, meter::resident_of_all(pids).map(|bytes| bytes as f64));
    Ok((run, figures))
}

/// Frames per write: as the server counts them, else by segments, in which everything else on this machine is counted, too.
pub(super) fn frames_per_write(run: &Run, figures: &Figures) -> f64 {
    let told = run.figures.get(&Figure::FramesPerWriteByServer).copied();
    told.or(figures.frames_per_write).unwrap_or(figures.frames_per_read).max(1.0)
}

/// Measures the raw limit for as many sockets, at the frames per write that a run reached, and sets the run against it.
pub(super) fn beside_limit(
    run: &mut Run,
    figures: &Figures,
    frames_per_write: f64,
    sockets: u32,
    span: Duration,
    bench: &Bench<'_>,
) -> Result<(), Error> {
    bench.progress.now(format_args!("the raw limit at {frames_per_write:.2} frames per write"));
    let plan = limit::Plan { sockets, frame_bytes: figures.bytes_per_delivery.round() as u32, frames_per_write, span };
    let limit = limit::measure(&plan, bench.server_core, bench.client.core)?.figures;
    run.set_some(Figure::LimitPerCpuSecond, limit.per_cpu_second);
    let share = figures.per_cpu_second.zip(limit.per_cpu_second).map(|(own, all)| own / all);
    run.set_some(Figure::ShareOfLimit, share);
    run.set(Figure::LimitClientBusy, limit.client_busy);
    Ok(())
}
