//! Subscribers of which some do not read: the others must not notice, and what waits for the slow ones must stay bounded.
//!
//! A slow consumer either is disconnected or loses nothing: what it got must be all publications up to some point.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt;

use super::Bench;
use super::measured::{Pace, measure};
use crate::client;
use crate::clock;
use crate::dialect::{Dialect, Purpose};
use crate::error::{Context as _, Error};
use crate::figure::Figure;
use crate::frames::{Carry, Scanner, Tally};
use crate::layout::Layout;
use crate::meter;
use crate::mux::Idle;
use crate::scenario::SlowConsumers;
use crate::traffic::{Faults, channel_name};

/// A small receive buffer, so that it is the server that has to keep what is not read.
const RECEIVE_BUFFER: usize = 4 * 1024;

/// And a large one for when they read at last.
const RECEIVE_BUFFER_AT_LAST: usize = 1024 * 1024;

/// How long slow consumers that read at last wait for more: a window that was closed opens late.
const SILENCE: Duration = Duration::from_secs(2);

pub(super) fn run(load: &SlowConsumers, bench: &mut Bench<'_>) -> Result<(), Error> {
    let pids = &bench.servers.pids;
    let mut traffic = bench.open(Layout::spread(load.subscribers, 1), 1, load.payload, Idle::Spin)?;
    let slow = open_slow(load, bench)?;
    bench.progress.now(format_args!("{} of {} do not read", load.slow, load.slow + load.subscribers));
    // From before the warm-up: the slow ones are slow from the first publication on.
    let before = meter::resident_of_all(pids).map(|bytes| bytes as f64);
    let (mut run, _) = measure(&mut traffic, Pace::Window(load.window), load.seconds.0, bench)?;
    run.label = format!("{} slow", load.slow);
    if let Some(before) = before {
        let most = run.series.iter().filter_map(|point| point.memory).fold(before, f64::max);
        run.set(Figure::SlowBytes, (most - before) / f64::from(load.slow));
        run.set(Figure::ServerMemory, most);
    }

    bench.progress.now("the slow ones read at last");
    let mut faults = traffic.faults().clone();
    let disconnected = read_at_last(slow, bench.dialect(), traffic.published(), &mut faults)?;
    run.set(Figure::SlowDisconnected, disconnected as f64);
    run.set(Figure::SlowStalled, f64::from(load.slow) - disconnected as f64);
    bench.note(run, &faults);
    Ok(())
}

fn open_slow(load: &SlowConsumers, bench: &Bench<'_>) -> Result<Vec<(TcpStream, Carry)>, Error> {
    let mut slow = Vec::new();
    let numbers = load.subscribers..load.subscribers + load.slow;
    let channel = channel_name(&bench.client.channel, 0);
    client::open_each(
        &bench.servers.endpoints,
        Purpose::Subscribe,
        numbers,
        |number| bench.who(number, channel.clone()),
        |stream, carry| {
            sockopt::set_socket_recv_buffer_size(&stream, RECEIVE_BUFFER).context("set SO_RCVBUF")?;
            slow.push((stream, carry));
            Ok(())
        },
    )?;
    Ok(slow)
}

/// Reads what the slow consumers got; how many were disconnected.
fn read_at_last(
    slow: Vec<(TcpStream, Carry)>,
    dialect: Dialect,
    published: u64,
    faults: &mut Faults,
) -> Result<usize, Error> {
    let count = slow.len();
    let mut open = Vec::new();
    for (stream, carry) in slow {
        stream.set_nonblocking(true).context("read at last")?;
        sockopt::set_socket_recv_buffer_size(&stream, RECEIVE_BUFFER_AT_LAST).context("set SO_RCVBUF")?;
        open.push((stream, carry, Tally::default()));
    }
    let mut scanner = Scanner::new(dialect);
    let mut buffer = vec![0; 64 * 1024];
    let mut silent_from = clock::now();
    while !open.is_empty() && clock::now() - silent_from < clock::nanoseconds(SILENCE) {
        open.retain_mut(|(stream, carry, tally)| match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Ok(length) if length > 0 => {
                silent_from = clock::now();
                scanner.read(carry, &buffer[..length], tally).is_ok() || over(tally, faults)
            }
            // Reset is an end, too: a server that gives a connection up need not wait for its last bytes to be read.
            Ok(_) | Err(_) => over(tally, faults),
        });
        clock::pause(Duration::from_millis(1));
    }
    for (_, _, tally) in &open {
        over(tally, faults);
        faults.lost += published.saturating_sub(tally.publications());
    }
    Ok(count - open.len())
}

/// Judges what a slow consumer got in all: publications from the first on without a hole. Always false: it is not kept.
fn over(tally: &Tally, faults: &mut Faults) -> bool {
    if tally.runs.len() > 1 || tally.runs.first().is_some_and(|run| run.first != 1) {
        faults.out_of_order += 1;
        faults.first.get_or_insert_with(|| format!("a slow consumer got {:?}", tally.runs));
    }
    false
}
