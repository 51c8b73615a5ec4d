//! Clients that come back and ask for what they missed. Each must get all of it in order, and go on without a hole.
//!
//! Connecting is not counted: what is compared is the work of the recovery.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde::Deserialize;

use super::Bench;
use super::measured::beside_limit;
use crate::client;
use crate::clock;
use crate::dialect::{Purpose, native};
use crate::error::{Context as _, Error};
use crate::figure::Figure;
use crate::frames::{Carry, frame_header};
use crate::layout::Layout;
use crate::meter;
use crate::monitor::Monitor;
use crate::mux::Idle;
use crate::outcome::Run;
use crate::scenario::Resume;
use crate::traffic::{Traffic, channel_name};

/// Publications in flight while everybody gets one more.
const WINDOW: u32 = 16;

/// How long the raw limit is measured: what it is set against lasts about as long.
const LIMIT: Duration = Duration::from_secs(1);

pub(super) fn run(load: &Resume, bench: &mut Bench<'_>) -> Result<(), Error> {
    bench.native_only("resume")?;
    for round in 1..=load.rounds {
        bench.progress.now(format_args!("round {round} of {}", load.rounds));
        // Channels of its own, so that every round begins at the beginning.
        let prefix = format!("{}-{round}", bench.client.channel);
        measure(load, &prefix, bench)?;
    }
    Ok(())
}

fn measure(load: &Resume, prefix: &str, bench: &mut Bench<'_>) -> Result<(), Error> {
    let pids = &bench.servers.pids;
    let positions = positions(load, prefix, bench)?;
    let layout = Layout::spread(load.clients, load.channels);
    let mut traffic = bench.open_in(prefix, layout, 1, load.payload, Idle::Sleep, Purpose::Publish)?;
    publish_missed(load, &mut traffic)?;

    bench.progress.now("all come back");
    let monitor = Monitor::begin(pids);
    traffic.draw(monitor.deliveries());
    let counters = bench.servers.counters();
    let start = traffic.sample(pids)?;
    for client in 0..load.clients as usize {
        let channel = traffic.layout().channels_of(client)[0];
        let Position { epoch, offset } = &positions[channel as usize];
        let command = native::recover(2, &traffic.channel_name(channel), epoch, *offset);
        traffic.command(client, &command, 1)?;
        // All at once, but answers are read meanwhile: a client of its own each would.
        if client % 64 == 63 {
            traffic.listen(Duration::ZERO)?;
        }
    }
    traffic.await_replies(0)?;
    traffic.await_arrivals()?;
    let end = traffic.sample(pids)?;
    let (_, recovered) = traffic.replies();
    let missing = u64::from(load.clients) - recovered;
    traffic.once_each(WINDOW)?;
    traffic.drain()?;

    let mut run = Run::new("resume");
    run.series = monitor.end();
    run.counters = bench.servers.counters().since(&counters);
    let figures = end.since(&start);
    figures.note(&mut run);
    run.set(Figure::RecoveredPerSecond, recovered as f64 / figures.seconds);
    run.set(Figure::NotRecovered, missing as f64);
    run.set_some(Figure::ServerMemory, meter::resident_of_all(pids).map(|bytes| bytes as f64));
    let faults = traffic.faults().clone();
    // Its sockets make room for those of the limit.
    drop(traffic);
    if load.limit && !pids.is_empty() {
        // Each client gets one answer, in one write, and reads it at once.
        let frames = figures.frames_per_read.max(1.0);
        beside_limit(&mut run, &figures, frames, load.clients, LIMIT, bench)?;
    }
    bench.note(run, &faults);
    Ok(())
}

fn publish_missed(load: &Resume, traffic: &mut Traffic) -> Result<(), Error> {
    for _ in 0..load.missed {
        for channel in 0..load.channels {
            traffic.publish(channel, clock::now());
        }
        traffic.flush()?;
        traffic.await_publishers()?;
    }
    Ok(())
}

/// Where a client stands in a channel.
#[derive(Debug)]
struct Position {
    epoch: String,
    offset: u64,
}

#[derive(Deserialize)]
struct Reply {
    subscribe: Option<Subscribed>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Subscribed {
    recoverable: bool,
    epoch: String,
    offset: u64,
}

/// Subscribes to every channel once, as the clients did before they went.
fn positions(load: &Resume, prefix: &str, bench: &Bench<'_>) -> Result<Vec<Position>, Error> {
    let mut positions = Vec::new();
    client::open_each(
        &bench.servers.endpoints[..1],
        Purpose::Publish,
        0..load.channels,
        |number| bench.who(number, channel_name(prefix, number)),
        |mut stream, _: Carry| {
            let channel = channel_name(prefix, positions.len() as u32);
            stream.write_all(&native::subscribe(2, &channel)).context("subscribe")?;
            let reply: Reply = serde_json::from_slice(&read_text(&mut stream)?)
                .map_err(|error| Error::Failed(format!("the answer to a subscribe: {error}")))?;
            let subscribed = reply.subscribe.unwrap_or_default();
            if !subscribed.recoverable {
                return Err(Error::Setup(format!(
                    "{channel} is not recoverable: its namespace needs history_size, history_ttl and recovery"
                )));
            }
            positions.push(Position { epoch: subscribed.epoch, offset: subscribed.offset });
            Ok(())
        },
    )?;
    Ok(positions)
}

/// The text of the next frame.
fn read_text(stream: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    loop {
        let complete = frame_header(&bytes).map_err(|fault| Error::Failed(fault.to_string()))?;
        if let Some((_, head, length)) = complete
            && let Some(text) = bytes[head..].get(..length)
        {
            return Ok(text.to_vec());
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).context("await an answer")?;
        if count == 0 {
            return Err(Error::Failed("the connection ended before its answer".to_owned()));
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
}
