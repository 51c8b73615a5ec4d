//! Publications to subscribers: in a closed loop with W in flight, or at fixed rates.
//!
//! Each measurement opens its own sessions, so that none depends on the one before it. In a closed loop it may be followed by
//! the raw limit at the frames per write that the server reached.

use std::time::Duration;

use super::Bench;
use crate::error::Error;
use crate::figure::Figure;
use crate::layout::Layout;
use crate::limit::{self, warm_up};
use crate::meter;
use crate::monitor::Monitor;
use crate::mux::Idle;
use crate::outcome::Run;
use crate::sample::Sample;
use crate::scenario::FanOut;
use crate::traffic::{Class, Rates, Traffic};
use crate::{clock, floor};

pub(super) fn run(load: &FanOut, bench: &mut Bench<'_>) -> Result<(), Error> {
    if load.channels > load.publishers && bench.dialect().one_channel_each() {
        return Err(Error::Setup(
            "with this dialect a connection publishes to one channel: as many publishers as channels".to_owned(),
        ));
    }
    for round in 1..=load.rounds {
        let of = format!("round {round} of {}", load.rounds);
        for &window in &load.window {
            bench.progress.now(format_args!("{of}, {window} in flight"));
            closed(load, window, bench)?;
        }
        for &rate in &load.rate {
            bench.progress.now(format_args!("{of}, {rate} a second"));
            scheduled(load, rate, bench)?;
        }
    }
    Ok(())
}

/// The server's counters of deliveries and of the writes that carried them.
const DELIVERIES: &str = "fanwire_deliveries_total";
const WRITES: &str = "fanwire_writes_total";

fn closed(load: &FanOut, window: u32, bench: &mut Bench<'_>) -> Result<(), Error> {
    let pids = &bench.servers.pids;
    let layout = Layout::spread(load.subscribers, load.channels);
    let mut traffic = bench.open(layout, load.publishers, load.payload, Idle::Spin)?;
    let monitor = Monitor::begin(pids);
    traffic.draw(monitor.deliveries());
    let (before, counters) = (traffic.sample(pids)?, bench.servers.counters());
    traffic.fill(window)?;
    traffic.run_for(warm_up(load.seconds.0))?;
    traffic.forget_latencies();
    let (start, published) = (traffic.sample(pids)?, traffic.published());
    traffic.run_for(load.seconds.0)?;
    let (end, published) = (traffic.sample(pids)?, traffic.published() - published);
    let latency = traffic.latency().clone();
    traffic.drain()?;
    let after = traffic.sample(pids)?;

    let mut run = Run::new(format!("W = {window}"));
    run.series = monitor.end();
    run.set_latencies(&latency);
    run.counters = bench.servers.counters().since(&counters);
    let figures = end.since(&start).with_frames_of(&after.since(&before));
    figures.note(&mut run);
    run.set(Figure::PublicationsPerSecond, published as f64 / figures.seconds);
    frames_by_server(&mut run);
    let faults = traffic.faults().clone();
    drop(traffic);
    if load.limit && !pids.is_empty() {
        let frames = figures.frames_per_write.unwrap_or(figures.frames_per_read).max(1.0);
        bench.progress.now(format_args!("the raw limit at {frames:.2} frames per write"));
        let plan = limit::Plan {
            sockets: load.subscribers,
            frame_bytes: figures.bytes_per_delivery.round() as u32,
            frames_per_write: frames,
            span: load.seconds.0,
        };
        let limit = limit::measure(&plan, bench.server_core, bench.client.core)?.figures;
        run.set_some(Figure::LimitPerCpuSecond, limit.per_cpu_second);
        run.set_some(
            Figure::ShareOfLimit,
            figures.per_cpu_second.zip(limit.per_cpu_second).map(|(own, all)| own / all),
        );
        run.set(Figure::LimitClientBusy, limit.client_busy);
    }
    bench.note(run, &faults);
    Ok(())
}

fn scheduled(load: &FanOut, rate: f64, bench: &mut Bench<'_>) -> Result<(), Error> {
    let layout = Layout::spread(load.subscribers, load.channels);
    // A client that never sleeps would find publications earlier than any real one.
    let traffic = bench.open(layout, load.publishers, load.payload, Idle::Sleep)?;
    let class = Class::new("all", 0..load.channels, rate);
    let (mut run, traffic) = on_schedule(traffic, vec![class], load.seconds.0, bench)?;
    run.label = format!("{rate}/s");
    if let Some(class) = traffic.classes().first() {
        run.set_latencies(&class.latency);
    }
    if let Some(redis) = bench.servers.redis {
        let floor = floor::measure(redis, load.payload, rate, load.seconds.0)?;
        run.set(Figure::FloorP50, floor);
        if let Some(p50) = run.figures.get(&Figure::LatencyP50).copied() {
            run.set(Figure::OverFloor, p50 / floor);
        }
    }
    bench.note(run, traffic.faults());
    Ok(())
}

/// Lets classes of channels be published to at their rates: everything but their latencies.
pub(super) fn on_schedule(
    mut traffic: Traffic,
    classes: Vec<Class>,
    span: Duration,
    bench: &Bench<'_>,
) -> Result<(Run, Traffic), Error> {
    let pids = &bench.servers.pids;
    clock::wake_on_time();
    let monitor = Monitor::begin(pids);
    traffic.draw(monitor.deliveries());
    let counters = bench.servers.counters();
    let before = traffic.sample(pids)?;
    traffic.schedule(classes);
    traffic.run_on_schedule(warm_up(span), &mut Rates::new())?;
    traffic.forget_latencies();
    let (start, published) = (traffic.sample(pids)?, traffic.published());
    let mut rates = Rates::new();
    traffic.run_on_schedule(span, &mut rates)?;
    let (end, published) = (traffic.sample(pids)?, traffic.published() - published);
    traffic.drain()?;
    let after: Sample = traffic.sample(pids)?;
    let mut run = Run::new("");
    run.series = monitor.end();
    run.counters = bench.servers.counters().since(&counters);
    let figures = end.since(&start).with_frames_of(&after.since(&before));
    figures.note(&mut run);
    run.set(Figure::PublicationsPerSecond, published as f64 / figures.seconds);
    run.set(Figure::LateP99, rates.late.quantile(0.99) as f64 / 1e6);
    run.set_some(Figure::ServerMemory, meter::resident_of_all(pids).map(|bytes| bytes as f64));
    frames_by_server(&mut run);
    Ok((run, traffic))
}

fn frames_by_server(run: &mut Run) {
    if let (Some(deliveries), Some(writes)) = (run.counters.get(DELIVERIES), run.counters.get(WRITES)) {
        run.set(Figure::FramesPerWriteByServer, deliveries / writes);
    }
}
