//! Connections that come, and then all come back at once: the upgrade, `connect` with a token if there is a secret to sign one
//! with, `subscribe`. After each arrival one message must reach everybody.

use super::Bench;
use crate::error::Error;
use crate::figure::Figure;
use crate::layout::Layout;
use crate::limit::acceptor;
use crate::monitor::Monitor;
use crate::mux::Idle;
use crate::outcome::Run;
use crate::scenario::Handshake;
use crate::traffic::channel_name;
use crate::{clock, meter};

/// Bytes of the one message's data.
const PAYLOAD: u32 = 64;

/// Publications in flight while everybody gets one.
const WINDOW: u32 = 16;

pub(super) fn run(load: &Handshake, bench: &mut Bench<'_>) -> Result<(), Error> {
    bench.warm()?;
    arrive(load, "connect", bench)?;
    for _ in 0..load.storms {
        // Those of the arrival before were cut when it ended: the server works off their ends meanwhile, as it would.
        arrive(load, "storm", bench)?;
    }
    Ok(())
}

fn arrive(load: &Handshake, label: &str, bench: &mut Bench<'_>) -> Result<(), Error> {
    let pids = &bench.servers.pids;
    let monitor = Monitor::begin(pids);
    let layout = Layout::spread(load.connections, load.channels);
    let (start, cpu) = (clock::now(), meter::cpu_of_all(pids)?);
    let client_cpu = meter::cpu_nanoseconds(std::process::id())?;
    let mut traffic = bench.open(layout, bench.publishers_for(load.channels), PAYLOAD, Idle::Sleep)?;
    let (seconds, cpu_after) = ((clock::now() - start) as f64 / 1e9, meter::cpu_of_all(pids)?);
    let client_cpu = meter::cpu_nanoseconds(std::process::id())? - client_cpu;
    traffic.once_each(WINDOW)?;
    traffic.drain()?;

    let mut run = Run::new(label);
    run.series = monitor.end();
    let count = f64::from(load.connections);
    if let Some((before, after)) = cpu.zip(cpu_after) {
        let spent = (after - before) as f64;
        let own = spent / 1e3 / count;
        run.set(Figure::HandshakeCpu, own);
        run.set(Figure::ServerBusy, spent / 1e9 / seconds);
        if load.limit {
            let limit = limit(load, bench)?;
            run.set(Figure::HandshakeLimit, limit);
            run.set(Figure::HandshakeOverLimit, own / limit);
        }
    }
    run.set(Figure::ClientBusy, client_cpu as f64 / 1e9 / seconds);
    run.set(Figure::HandshakesPerSecond, count / seconds);
    run.set(Figure::AllBack, seconds);
    run.set_some(Figure::ServerMemory, meter::resident_of_all(pids).map(|bytes| bytes as f64));
    let faults = traffic.faults().clone();
    bench.note(run, &faults);
    Ok(())
}

/// The microseconds of CPU that the same takes where nothing is done but the system calls.
fn limit(load: &Handshake, bench: &Bench<'_>) -> Result<f64, Error> {
    bench.native_only("handshake.limit")?;
    bench.progress.now(format_args!("the raw limit of {} handshakes", load.connections));
    let who = |number: u32| bench.who(number, channel_name(&bench.client.channel, number % load.channels));
    acceptor::measure(load.connections, who, bench.server_core, bench.client.core)
}
