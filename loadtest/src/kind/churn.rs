//! Subscriptions that come, and then change all the time: what one costs to make, to keep and to give up. Afterwards one message
//! to every channel must reach exactly those who are subscribed by then.

use std::time::Duration;

use super::Bench;
use crate::clock::{self, Deadline};
use crate::dialect::{Purpose, native};
use crate::error::Error;
use crate::figure::Figure;
use crate::layout::Layout;
use crate::meter;
use crate::monitor::Monitor;
use crate::mux::Idle;
use crate::outcome::Run;
use crate::scenario::Churn;
use crate::traffic::{Faults, Traffic};

/// Bytes of the last message's data.
const PAYLOAD: u32 = 64;

/// How long the servers come to rest before their memory is read.
const REST: Duration = Duration::from_millis(500);

pub(super) fn run(load: &Churn, bench: &mut Bench<'_>) -> Result<(), Error> {
    bench.native_only("churn")?;
    bench.warm()?;
    let layout = Layout::new(load.connections, load.channels, load.subscriptions, |n| {
        // A connection's channels are neighbours, so that they differ; all channels have as many subscribers.
        let first = u64::from(n) * u64::from(load.subscriptions);
        (0..load.subscriptions).map(move |place| ((first + u64::from(place)) % u64::from(load.channels)) as u32)
    });
    let prefix = bench.client.channel.clone();
    let mut traffic = bench.open_in(&prefix, layout, 1, PAYLOAD, Idle::Sleep, Purpose::Publish)?;
    let mut ids = vec![1; load.connections as usize];

    bench.progress.now(format_args!("subscribing {} times", traffic.layout().subscriptions()));
    subscribe(load, bench, &mut traffic, &mut ids)?;
    if !load.seconds.0.is_zero() {
        bench.progress.now("changing subscriptions");
        change(load, bench, &mut traffic, &mut ids)?;
    }
    bench.progress.now("one message to every channel");
    traffic.once_each(load.window)?;
    traffic.drain()?;
    let faults = traffic.faults();
    if let Some(run) = bench.runs.last_mut() {
        run.set(Figure::Lost, faults.lost as f64);
        run.set(Figure::OutOfOrder, faults.out_of_order as f64);
    }
    bench.first_fault.clone_from(&faults.first);
    Ok(())
}

fn subscribe(load: &Churn, bench: &mut Bench<'_>, traffic: &mut Traffic, ids: &mut [u64]) -> Result<(), Error> {
    let pids = &bench.servers.pids;
    let count = traffic.layout().subscriptions() as f64;
    rest(traffic)?;
    let before = meter::memory_of_all(pids)?;
    let monitor = Monitor::begin(pids);
    let (start, cpu) = (clock::now(), meter::cpu_of_all(pids)?);
    for place in 0..load.subscriptions as usize {
        for (subscriber, id) in ids.iter_mut().enumerate() {
            let channel = traffic.layout().channels_of(subscriber)[place];
            *id += 1;
            let command = native::subscribe(*id, &traffic.channel_name(channel));
            traffic.command(subscriber, &command, 1)?;
            traffic.await_replies(load.window.into())?;
        }
    }
    traffic.await_replies(0)?;
    let mut run = Run::new("subscribe");
    operations(&mut run, count, start, cpu, pids)?;
    run.series = monitor.end();
    rest(traffic)?;
    if !pids.is_empty() {
        let bytes = meter::memory_of_all(pids)?.rss as f64 - before.rss as f64;
        run.set(Figure::SubscriptionsBytes, bytes);
        run.set(Figure::SubscriptionBytes, bytes / count);
    }
    run.set_some(Figure::ServerMemory, meter::resident_of_all(pids).map(|bytes| bytes as f64));
    bench.note(run, &Faults::default());
    Ok(())
}

/// A subscription goes from its channel to the one on the other side of all channels, and later back.
fn change(load: &Churn, bench: &mut Bench<'_>, traffic: &mut Traffic, ids: &mut [u64]) -> Result<(), Error> {
    let pids = &bench.servers.pids;
    let subscriptions = traffic.layout().subscriptions();
    let monitor = Monitor::begin(pids);
    let (start, cpu) = (clock::now(), meter::cpu_of_all(pids)?);
    let end = Deadline::after(load.seconds.0);
    let mut count = 0_u64;
    while !end.passed() {
        // Each after the other, but of another connection each time.
        let turn = count as usize / 2;
        let subscriber = turn % load.connections as usize;
        let place = turn / load.connections as usize % load.subscriptions as usize;
        let channel = traffic.layout().channels_of(subscriber)[place];
        let other = (channel + load.channels / 2) % load.channels;
        if !traffic.layout().channels_of(subscriber).contains(&other) {
            ids[subscriber] += 2;
            let id = ids[subscriber];
            traffic.command(subscriber, &native::unsubscribe(id - 1, &traffic.channel_name(channel)), 1)?;
            traffic.command(subscriber, &native::subscribe(id, &traffic.channel_name(other)), 1)?;
            traffic.layout().move_to(subscriber * load.subscriptions as usize + place, other);
            traffic.await_replies(load.window.into())?;
        }
        count += 2;
    }
    traffic.await_replies(0)?;
    debug_assert_eq!(subscriptions, traffic.layout().subscriptions());
    let mut run = Run::new("churn");
    operations(&mut run, count as f64, start, cpu, pids)?;
    run.series = monitor.end();
    rest(traffic)?;
    run.set_some(Figure::ServerMemory, meter::resident_of_all(pids).map(|bytes| bytes as f64));
    bench.note(run, &Faults::default());
    Ok(())
}

fn operations(run: &mut Run, count: f64, start: u64, cpu: Option<u64>, pids: &[u32]) -> Result<(), Error> {
    let seconds = (clock::now() - start) as f64 / 1e9;
    run.set(Figure::OperationsPerSecond, count / seconds);
    if let Some((before, after)) = cpu.zip(meter::cpu_of_all(pids)?) {
        run.set(Figure::OperationCpu, (after - before) as f64 / 1e3 / count);
        run.set(Figure::ServerBusy, (after - before) as f64 / 1e9 / seconds);
    }
    Ok(())
}

fn rest(traffic: &mut Traffic) -> Result<(), Error> {
    let end = Deadline::after(REST);
    while !end.passed() {
        traffic.listen(REST)?;
    }
    Ok(())
}
