//! Publications to subscribers: in a closed loop with W in flight, or at fixed rates.
//!
//! Each measurement opens its own sessions, so that none depends on the one before it. In a closed loop it may be followed by
//! the raw limit at the frames per write that the server reached.

use super::Bench;
use super::measured::{Pace, beside_limit, frames_per_write, measure};
use crate::error::Error;
use crate::figure::Figure;
use crate::floor::{self, Messages};
use crate::layout::Layout;
use crate::mux::Idle;
use crate::scenario::FanOut;
use crate::traffic::Class;

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

fn closed(load: &FanOut, window: u32, bench: &mut Bench<'_>) -> Result<(), Error> {
    let layout = Layout::spread(load.subscribers, load.channels);
    let mut traffic = bench.open(layout, load.publishers, load.payload, Idle::Spin)?;
    let (mut run, figures) = measure(&mut traffic, Pace::Window(window), load.seconds.0, bench)?;
    run.label = format!("W = {window}");
    run.window = Some(window);
    let faults = traffic.faults().clone();
    // Its sockets make room for those of the limit.
    drop(traffic);
    if load.limit && !bench.servers.pids.is_empty() {
        let frames = frames_per_write(&run, &figures);
        beside_limit(&mut run, &figures, frames, load.subscribers, load.seconds.0, bench)?;
    }
    bench.note(run, &faults);
    Ok(())
}

fn scheduled(load: &FanOut, rate: f64, bench: &mut Bench<'_>) -> Result<(), Error> {
    let layout = Layout::spread(load.subscribers, load.channels);
    // A client that never sleeps would find publications earlier than any real one.
    let mut traffic = bench.open(layout, load.publishers, load.payload, Idle::Sleep)?;
    let class = Class::new("all", 0..load.channels, rate);
    let (mut run, _) = measure(&mut traffic, Pace::Schedule(vec![class]), load.seconds.0, bench)?;
    run.label = format!("{rate}/s");
    if let Some(class) = traffic.classes().first() {
        run.set_latencies(&class.latency);
    }
    if let Some(redis) = bench.servers.redis {
        let messages = Messages { payload: load.payload, rate, span: load.seconds.0 };
        let bare = floor::bare(redis, messages)?;
        let relayed = floor::relayed(redis, messages, bench.server_core, bench.client.core)?;
        run.set(Figure::FloorP50, bare);
        run.set(Figure::RelayedFloorP50, relayed);
        if let Some(p50) = run.figures.get(&Figure::LatencyP50).copied() {
            run.set(Figure::OverFloor, p50 / bare);
            run.set(Figure::OverRelayedFloor, p50 / relayed);
        }
    }
    bench.note(run, traffic.faults());
    Ok(())
}
