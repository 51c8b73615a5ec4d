//! The kinds of load. Each is one file: it opens sessions, lets them do something, and notes runs with figures.

mod churn;
mod fan_out;
mod growth;
mod handshake;
mod idle;
mod measured;
mod mixed;
mod resume;
mod slow_consumers;

use crate::client::{self, Who};
use crate::dialect::{Dialect, Purpose};
use crate::error::Error;
use crate::figure::Figure;
use crate::layout::Layout;
use crate::mux::{Idle, Mux};
use crate::outcome::Run;
use crate::progress::Progress;
use crate::scenario::{ClientPlan, Load, Scenario};
use crate::server::Servers;
use crate::token::Signer;
use crate::traffic::{Faults, Traffic, channel_name};

/// What a kind works with, and what it brings.
pub(crate) struct Bench<'a> {
    /// What is measured.
    pub(crate) servers: &'a Servers,
    /// What is going on.
    pub(crate) progress: Progress,
    /// The core of what is measured.
    pub(crate) server_core: usize,
    client: &'a ClientPlan,
    signer: Option<Signer>,
    /// The runs so far, also when a later one fails.
    pub(crate) runs: Vec<Run>,
    /// The first broken promise in words.
    pub(crate) first_fault: Option<String>,
}

impl<'a> Bench<'a> {
    /// What the scenario's kind works with.
    pub(crate) fn new(scenario: &'a Scenario, servers: &'a Servers) -> Self {
        Self {
            servers,
            progress: Progress::of(&scenario.name, steps(&scenario.load)),
            server_core: scenario.server.core,
            client: &scenario.client,
            signer: Signer::new(&scenario.client.token_secret),
            runs: Vec::new(),
            first_fault: None,
        }
    }

    /// Does what the scenario says.
    pub(crate) fn run(&mut self, load: &Load) -> Result<(), Error> {
        match load {
            Load::FanOut(load) => fan_out::run(load, self),
            Load::Mixed(load) => mixed::run(load, self),
            Load::Idle(load) => idle::run(load, self),
            Load::Handshake(load) => handshake::run(load, self),
            Load::Churn(load) => churn::run(load, self),
            Load::Growth(load) => growth::run(load, self),
            Load::SlowConsumers(load) => slow_consumers::run(load, self),
            Load::Resume(load) => resume::run(load, self),
        }
    }

    /// Notes a run with the promises broken in it.
    fn note(&mut self, mut run: Run, faults: &Faults) {
        run.set(Figure::Lost, faults.lost as f64);
        run.set(Figure::OutOfOrder, faults.out_of_order as f64);
        if self.first_fault.is_none() {
            self.first_fault.clone_from(&faults.first);
        }
        if self.runs.iter().any(|earlier| earlier.label == run.label) {
            // One curve of each is enough to look at: files of results stay small.
            run.series.clear();
        }
        self.runs.push(run);
        self.progress.step();
    }

    /// Opens the layout's subscribers, each subscribed to its first channel, and publishers.
    fn open(&self, layout: Layout, publishers: u32, payload: u32, idle: Idle) -> Result<Traffic, Error> {
        self.open_in(&self.client.channel, layout, publishers, payload, idle, Purpose::Subscribe)
    }

    /// The same with a prefix of their own for channel names; they subscribe only if that is their purpose.
    fn open_in(
        &self,
        prefix: &str,
        layout: Layout,
        publishers: u32,
        payload: u32,
        idle: Idle,
        purpose: Purpose,
    ) -> Result<Traffic, Error> {
        let mut mux = Mux::new(self.dialect(), idle)?;
        let endpoints = &self.servers.endpoints;
        let subscribers = layout.subscribers() as u32;
        let first = |number: u32| channel_name(prefix, layout.channels_of(number as usize)[0]);
        self.progress.now(format_args!("opening {subscribers} connections"));
        client::open(&mut mux, endpoints, purpose, 0..subscribers, |number| self.who(number, first(number)))?;
        // At the last node: what few subscribers get has come from another one.
        let last = &endpoints[endpoints.len() - 1..];
        client::open(&mut mux, last, Purpose::Publish, 0..publishers, |number| {
            self.who(number, channel_name(prefix, number))
        })?;
        Ok(Traffic::new(mux, layout, publishers, prefix, payload))
    }

    /// How many publishers it takes for so many channels.
    fn publishers_for(&self, channels: u32) -> u32 {
        if self.dialect().one_channel_each() { channels } else { 1 }
    }

    /// Takes a session and a publish through the servers once, so that the pages of their program and what they set up at the
    /// first use are no part of a difference.
    fn warm(&self) -> Result<(), Error> {
        let layout = Layout::spread(self.servers.endpoints.len() as u32, 1);
        let prefix = format!("{}-warm", self.client.channel);
        let mut traffic = self.open_in(&prefix, layout, 1, 64, Idle::Sleep, Purpose::Subscribe)?;
        traffic.once_each(1)?;
        traffic.drain()
    }

    /// The `number`th client of a channel.
    fn who(&self, number: u32, channel: String) -> Result<Who, Error> {
        let token = self.signer.as_ref().map(|signer| signer.token(number)).transpose()?;
        Ok(Who { channel, token })
    }

    /// What the servers speak.
    fn dialect(&self) -> Dialect {
        self.servers.endpoints[0].dialect
    }

    /// Fails a kind that needs commands only the native protocol has.
    fn native_only(&self, kind: &str) -> Result<(), Error> {
        if self.dialect() == Dialect::Native {
            return Ok(());
        }
        Err(Error::Setup(format!("load.{kind} needs the native protocol, server.dialect is another one")))
    }

    /// Fails a kind that measures what only a process tells.
    fn needs_processes(&self, kind: &str) -> Result<(), Error> {
        if self.servers.pids.is_empty() {
            return Err(Error::Setup(format!(
                "load.{kind} reads the servers' memory and CPU time: it needs server.pid"
            )));
        }
        Ok(())
    }
}

/// How many runs a load has.
fn steps(load: &Load) -> u64 {
    match load {
        Load::FanOut(load) => u64::from(load.rounds) * (load.window.len() + load.rate.len()) as u64,
        Load::Mixed(load) => 4 * u64::from(load.rounds),
        Load::Handshake(load) => 1 + u64::from(load.storms),
        Load::Resume(load) => u64::from(load.rounds),
        Load::Churn(_) => 2,
        Load::Growth(load) => 2 * u64::from(load.rounds) * load.channels.len() as u64,
        Load::Idle(_) | Load::SlowConsumers(_) => 1,
    }
}
