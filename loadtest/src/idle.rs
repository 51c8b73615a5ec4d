//! Memory per idle connection: connected, subscribed, pings answered, and provably alive afterwards.

use std::time::Duration;

use serde::Serialize;

use crate::args::IdleArgs;
use crate::client;
use crate::clock::Deadline;
use crate::dialect::Purpose;
use crate::dialect::numbers::payload;
use crate::error::Error;
use crate::meter::{self, Machine, Memory};
use crate::mux::{Idle, Mux};
use crate::report;
use crate::server::Server;

/// The `idle` command.
pub(crate) fn run(args: &IdleArgs) -> Result<(), Error> {
    meter::allow_descriptors(args.connections)?;
    let server = Server::start(&args.server, args.cores)?;
    let result = measure(&server, args).inspect_err(|_| server.show_log())?;
    report::print_idle(&result)?;
    report::write_json(args.json.as_deref(), &serde_json::json!({ "machine": Machine::this(), "idle": result }))
}

/// The readings of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct IdleRun {
    /// The gateway.
    pub(crate) server: String,
    /// Connections held.
    pub(crate) connections: u32,
    /// Channels they were spread over.
    pub(crate) channels: u32,
    /// How long they rested.
    pub(crate) settle_seconds: f64,
    /// Pings that came while they rested, all answered.
    pub(crate) pings_answered: u64,
    /// Server CPU time of connect and subscribe, per connection.
    pub(crate) connect_cpu_microseconds: f64,
    /// Before the first connection, after a warm-up.
    pub(crate) before: Memory,
    /// Right after the last one subscribed.
    pub(crate) after_connect: Memory,
    /// After the rest.
    pub(crate) after_settle: Memory,
    /// After every connection has received one message.
    pub(crate) after_message: Memory,
}

/// How long nothing may arrive while messages are awaited.
const PATIENCE: Duration = Duration::from_secs(10);

fn channel(number: u32) -> String {
    format!("idle-{number}")
}

fn measure(server: &Server, args: &IdleArgs) -> Result<IdleRun, Error> {
    let Some(pid) = server.pid else {
        return Err(Error::Setup("a gateway that runs already needs --pid to read its memory".to_owned()));
    };
    let dialect = server.endpoint.dialect;
    let mut publishers = Mux::new(dialect, Idle::Sleep)?;
    let needed = if dialect.one_channel_each() { args.channels } else { 1 };
    client::open(&mut publishers, &server.endpoint, Purpose::Publish, needed, channel)?;
    warm(server, &mut publishers)?;
    let before = meter::memory(pid)?;

    report::progress(format_args!("opening {} connections", args.connections));
    let cpu = meter::cpu_nanoseconds(pid)?;
    let mut mux = Mux::new(dialect, Idle::Sleep)?;
    let spread = |number| channel(number % args.channels);
    client::open(&mut mux, &server.endpoint, Purpose::Subscribe, args.connections, spread)?;
    let cpu = meter::cpu_nanoseconds(pid)? - cpu;
    let connected = meter::memory(pid)?;

    report::progress(format_args!("resting for {:?}", args.settle));
    let end = Deadline::after(args.settle);
    while !end.passed() {
        rest(&mut mux)?;
        rest(&mut publishers)?;
    }
    let settled = meter::memory(pid)?;

    report::progress(format_args!("one message to every connection"));
    let pings = mux.counters().pings;
    prove_alive(args, &mut mux, &mut publishers)?;

    Ok(IdleRun {
        server: server.name.clone(),
        connections: args.connections,
        channels: args.channels,
        settle_seconds: args.settle.as_secs_f64(),
        pings_answered: pings,
        connect_cpu_microseconds: cpu as f64 / 1e3 / f64::from(args.connections),
        before,
        after_connect: connected,
        after_settle: settled,
        after_message: meter::memory(pid)?,
    })
}

/// Takes a session and a publish through the server once, so that the pages of its program and what
/// it sets up at the first use are no part of the difference.
fn warm(server: &Server, publishers: &mut Mux) -> Result<(), Error> {
    let mut mux = Mux::new(server.endpoint.dialect, Idle::Sleep)?;
    client::open(&mut mux, &server.endpoint, Purpose::Subscribe, 1, |_| channel(0))?;
    publish(publishers, 0)?;
    await_deliveries(&mut mux, 1)?;
    rest(publishers)
}

fn prove_alive(args: &IdleArgs, mux: &mut Mux, publishers: &mut Mux) -> Result<(), Error> {
    for number in 0..args.channels {
        publish(publishers, number)?;
    }
    await_deliveries(mux, u64::from(args.connections))?;
    rest(publishers)
}

/// Publishes one message to a channel, on the connection that may.
fn publish(publishers: &mut Mux, number: u32) -> Result<(), Error> {
    let dialect = publishers.dialect();
    let connection = if dialect.one_channel_each() { number as usize } else { 0 };
    publishers.send(connection, &dialect.publish(u64::from(number), &channel(number), &payload(1, 64)))
}

fn await_deliveries(mux: &mut Mux, wanted: u64) -> Result<(), Error> {
    let mut count = 0;
    let deadline = Deadline::after(PATIENCE);
    while count < wanted && !deadline.passed() {
        for slot in 0..mux.wait(Duration::from_millis(100))? {
            count += mux.read(slot)?.1.publications;
        }
    }
    if count == wanted {
        Ok(())
    } else {
        Err(Error::Failed(format!("{count} deliveries of {wanted} after {PATIENCE:?}")))
    }
}

/// Answers pings for a moment.
fn rest(mux: &mut Mux) -> Result<(), Error> {
    for slot in 0..mux.wait(Duration::from_millis(50))? {
        mux.read(slot)?;
    }
    Ok(())
}
