//! Fan-out in a closed loop: one publisher, one channel, W messages in flight.
//!
//! A next message is published when one has reached all subscribers. Every subscriber must see every
//! message once and in order; anything else fails the run. Each measurement opens its own sessions, so
//! that none depends on the one before it, and is followed by the raw limit at the frames per write
//! that the server reached.

use serde::Serialize;

use crate::args::FanoutArgs;
use crate::client;
use crate::closed_loop::{CHANNEL, ClosedLoop};
use crate::dialect::Purpose;
use crate::error::Error;
use crate::limit::{self, LimitRun, warm_up};
use crate::meter::{self, Machine};
use crate::mux::{Idle, Mux};
use crate::report;
use crate::sample::Figures;
use crate::server::Server;

/// The `fanout` command.
pub(crate) fn run(args: &FanoutArgs) -> Result<(), Error> {
    meter::allow_descriptors(args.subscribers)?;
    let server = Server::start(&args.server, args.cores)?;
    let pairs = measure_all(&server, args).inspect_err(|_| server.show_log())?;
    report::print_fanout(args, &server.name, &pairs)?;
    report::write_json(
        args.json.as_deref(),
        &serde_json::json!({
            "machine": Machine::this(),
            "server": server.name,
            "dialect": server.endpoint.dialect,
            "subscribers": args.subscribers,
            "payload": args.payload,
            "rows": report::rows(&args.window, &pairs),
            "runs": pairs,
        }),
    )
}

/// A measurement of the server and, right after it, of the limit.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pair {
    /// The server.
    pub(crate) run: FanoutRun,
    /// The limit at the same number of frames per write.
    pub(crate) limit: Option<LimitRun>,
}

impl Pair {
    /// Deliveries per CPU second, server over limit.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(self.run.figures.per_cpu_second? / self.limit?.figures.per_cpu_second?)
    }
}

/// What the server reached with one window.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FanoutRun {
    /// Messages in flight.
    pub(crate) window: u32,
    /// What was measured.
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Frames per write by the server's own counters, if it has them.
    pub(crate) frames_per_write_by_server: Option<f64>,
    /// Half of the deliveries were parsed within this time of their publish.
    pub(crate) latency_p50_ms: f64,
    /// 99 of 100 were.
    pub(crate) latency_p99_ms: f64,
}

impl FanoutRun {
    /// Frames per write by the kernel's count, which no late reader can embellish; else per read.
    pub(crate) fn frames_per_write(&self) -> f64 {
        self.figures.frames_per_write.unwrap_or(self.figures.frames_per_read).max(1.0)
    }
}

/// The server's counters of deliveries and of the writes that carried them.
const DELIVERIES: &str = "fanwire_deliveries_total";
const WRITES: &str = "fanwire_writes_total";

fn measure_all(server: &Server, args: &FanoutArgs) -> Result<Vec<Pair>, Error> {
    let mut pairs = Vec::new();
    for round in 1..=args.rounds {
        for &window in &args.window {
            let what = format!("round {round} of {}, W = {window}", args.rounds);
            report::progress(format_args!("{what}: server"));
            let run = measure(server, args, window)?;
            let mut limit = None;
            if !args.skip_limit && server.pid.is_some() {
                let frames = run.frames_per_write();
                report::progress(format_args!("{what}: limit at {frames:.2} frames per write"));
                limit = Some(limit::measure(&limit_plan(args, &run), args.cores)?);
            }
            pairs.push(Pair { run, limit });
        }
    }
    Ok(pairs)
}

fn limit_plan(args: &FanoutArgs, run: &FanoutRun) -> limit::Plan {
    limit::Plan {
        sockets: args.subscribers,
        frame_bytes: run.figures.bytes_per_delivery.round() as u32,
        frames_per_write: run.frames_per_write(),
        span: args.seconds,
    }
}

fn measure(server: &Server, args: &FanoutArgs, window: u32) -> Result<FanoutRun, Error> {
    let channel = |_| CHANNEL.to_owned();
    let mut mux = Mux::new(server.endpoint.dialect, Idle::Spin)?;
    client::open(&mut mux, &server.endpoint, Purpose::Subscribe, args.subscribers, channel)?;
    client::open(&mut mux, &server.endpoint, Purpose::Publish, 1, channel)?;
    let mut circle = ClosedLoop::new(mux, args.subscribers, args.payload, window);

    let (before, metrics_before) = (circle.sample(server.pid)?, server.metrics());
    circle.fill()?;
    circle.run_for(warm_up(args.seconds))?;
    circle.forget_latencies();
    let start = circle.sample(server.pid)?;
    circle.run_for(args.seconds)?;
    let end = circle.sample(server.pid)?;
    let latency = |share| circle.latency(share) as f64 / 1e6;
    let (latency_p50_ms, latency_p99_ms) = (latency(0.5), latency(0.99));
    circle.drain()?;
    let (after, metrics_after) = (circle.sample(server.pid)?, server.metrics());

    let grown = |name| Some(metrics_after.as_ref()?.sum(name)? - metrics_before.as_ref()?.sum(name)?);
    Ok(FanoutRun {
        window,
        figures: end.since(&start).with_frames_of(&after.since(&before)),
        frames_per_write_by_server: match (grown(DELIVERIES), grown(WRITES)) {
            (Some(deliveries), Some(writes)) if writes > 0.0 => Some(deliveries / writes),
            _ => None,
        },
        latency_p50_ms,
        latency_p99_ms,
    })
}
