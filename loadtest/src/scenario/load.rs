//! What clients do: the tables below `load` in a scenario file, their defaults and bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialect::numbers::MIN_PAYLOAD;

/// What the clients do: the key below `load` says which kind it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Load {
    /// Publications to subscribers, in a closed loop or at fixed rates.
    FanOut(FanOut),
    /// Broadcast, group and direct channels at once.
    Mixed(Mixed),
    /// Connections that rest.
    Idle(Idle),
    /// Connections that come, and all come back at once.
    Handshake(Handshake),
    /// Subscriptions that change all the time.
    Churn(Churn),
    /// The same traffic among more and more channels.
    Growth(Growth),
    /// Subscribers of which some do not read.
    SlowConsumers(SlowConsumers),
    /// Clients that come back and ask for what they missed.
    Resume(Resume),
}

/// `load.fan-out`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FanOut {
    /// Connections, each subscribed to one channel.
    pub(crate) subscribers: u32,
    /// Channels they are spread over; publications take them in turn.
    pub(crate) channels: u32,
    /// Connections that publish; a channel belongs to one of them.
    pub(crate) publishers: u32,
    /// Bytes of a publication's data.
    pub(crate) payload: u32,
    /// Publications in flight: each value is a measurement in a closed loop.
    pub(crate) window: Vec<u32>,
    /// Publications per second: each value is a measurement on a schedule.
    pub(crate) rate: Vec<f64>,
    /// Length of one measurement, without its warm-up.
    pub(crate) seconds: Span,
    /// Repetitions; medians are reported.
    pub(crate) rounds: u32,
    /// Measures the raw limit after each measurement in a closed loop.
    pub(crate) limit: bool,
}

/// `load.mixed`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mixed {
    /// Connections: each is in the broadcast channel, in one group and in a channel of its own.
    pub(crate) subscribers: u32,
    /// Group channels.
    pub(crate) groups: u32,
    /// Bytes of a publication's data.
    pub(crate) payload: u32,
    /// Publications per second to everybody.
    pub(crate) broadcast_rate: f64,
    /// Publications per second to groups, in turn.
    pub(crate) group_rate: f64,
    /// Publications per second to single connections, in turn.
    pub(crate) direct_rate: f64,
    /// Length of one measurement, without its warm-up.
    pub(crate) seconds: Span,
    /// Repetitions; medians are reported.
    pub(crate) rounds: u32,
}

/// `load.idle`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Idle {
    /// Connections to hold, each with one subscription.
    pub(crate) connections: u32,
    /// Channels that they are spread over.
    pub(crate) channels: u32,
    /// How long they rest; pings are answered meanwhile, so it should exceed the server's ping interval.
    pub(crate) rest: Span,
}

/// `load.handshake`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Handshake {
    /// Connections to hold, each with one subscription.
    pub(crate) connections: u32,
    /// Channels that they are spread over.
    pub(crate) channels: u32,
    /// How often all are cut and come back.
    pub(crate) storms: u32,
    /// Measures after each arrival what a bare accept, read, write and close cost for the same.
    pub(crate) limit: bool,
}

/// `load.churn`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Churn {
    /// Connections.
    pub(crate) connections: u32,
    /// Subscriptions of each.
    pub(crate) subscriptions: u32,
    /// Channels that they are spread over.
    pub(crate) channels: u32,
    /// Subscribes and unsubscribes in flight.
    pub(crate) window: u32,
    /// How long subscriptions change; 0: they only come.
    pub(crate) seconds: Span,
}

/// `load.growth`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Growth {
    /// Connections.
    pub(crate) connections: u32,
    /// Subscribers of each channel.
    pub(crate) audience: u32,
    /// How many channels there are, from step to step; each a multiple of connections / audience.
    pub(crate) channels: Vec<u32>,
    /// Bytes of a publication's data.
    pub(crate) payload: u32,
    /// Publications in flight.
    pub(crate) window: u32,
    /// Length of one measurement, without its warm-up.
    pub(crate) seconds: Span,
    /// Repetitions of each; medians are reported.
    pub(crate) rounds: u32,
}

impl Growth {
    /// The channels that take one subscription of each connection.
    pub(crate) fn layer(&self) -> u32 {
        (self.connections / self.audience.max(1)).max(1)
    }
}

/// `load.slow-consumers`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SlowConsumers {
    /// Connections that read.
    pub(crate) subscribers: u32,
    /// Connections that do not.
    pub(crate) slow: u32,
    /// Bytes of a publication's data.
    pub(crate) payload: u32,
    /// Publications in flight to those that read.
    pub(crate) window: u32,
    /// Length of the measurement.
    pub(crate) seconds: Span,
}

/// `load.resume`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Resume {
    /// Connections, each with one subscription.
    pub(crate) clients: u32,
    /// Channels that they are spread over; they need history and recovery.
    pub(crate) channels: u32,
    /// Publications that each client misses.
    pub(crate) missed: u32,
    /// Bytes of a publication's data.
    pub(crate) payload: u32,
    /// Repetitions; medians are reported.
    pub(crate) rounds: u32,
    /// Measures the raw limit after each round.
    pub(crate) limit: bool,
}

/// A length of time, written in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "f64", into = "f64")]
pub(crate) struct Span(pub(crate) Duration);

impl Load {
    /// Looks for values out of their bounds; `within` is told each with its key.
    pub(super) fn check(&self, within: &mut impl FnMut(&str, f64, std::ops::RangeInclusive<f64>)) {
        let some = 1.0..=1_000_000.0;
        let sizes = f64::from(MIN_PAYLOAD)..=60_000.0;
        let spans = 0.1..=600.0;
        let rates = 0.1..=10_000_000.0;
        match self {
            Self::FanOut(load) => {
                within("load.fan-out.subscribers", load.subscribers.into(), some);
                within("load.fan-out.channels", load.channels.into(), 1.0..=f64::from(load.subscribers));
                within("load.fan-out.publishers", load.publishers.into(), 1.0..=1_000.0);
                within("load.fan-out.payload", load.payload.into(), sizes);
                within("load.fan-out.seconds", load.seconds.0.as_secs_f64(), spans);
                within("load.fan-out.rounds", load.rounds.into(), 1.0..=100.0);
                for window in &load.window {
                    within("load.fan-out.window", (*window).into(), 1.0..=4_096.0);
                }
                for rate in &load.rate {
                    within("load.fan-out.rate", *rate, rates.clone());
                }
            }
            Self::Mixed(load) => {
                within("load.mixed.subscribers", load.subscribers.into(), some);
                within("load.mixed.groups", load.groups.into(), 1.0..=f64::from(load.subscribers));
                within("load.mixed.payload", load.payload.into(), sizes);
                within("load.mixed.broadcast_rate", load.broadcast_rate, rates.clone());
                within("load.mixed.group_rate", load.group_rate, rates.clone());
                within("load.mixed.direct_rate", load.direct_rate, rates);
                within("load.mixed.seconds", load.seconds.0.as_secs_f64(), spans);
                within("load.mixed.rounds", load.rounds.into(), 1.0..=100.0);
            }
            Self::Idle(load) => {
                within("load.idle.connections", load.connections.into(), some);
                within("load.idle.channels", load.channels.into(), 1.0..=f64::from(load.connections));
                within("load.idle.rest", load.rest.0.as_secs_f64(), spans);
            }
            Self::Handshake(load) => {
                within("load.handshake.connections", load.connections.into(), some);
                within("load.handshake.channels", load.channels.into(), 1.0..=f64::from(load.connections));
                within("load.handshake.storms", load.storms.into(), 1.0..=100.0);
            }
            Self::Churn(load) => {
                within("load.churn.connections", load.connections.into(), some);
                within("load.churn.subscriptions", load.subscriptions.into(), 1.0..=10_000.0);
                let subscriptions = f64::from(load.connections) * f64::from(load.subscriptions);
                within("load.churn.channels", load.channels.into(), f64::from(load.subscriptions)..=subscriptions);
                within("load.churn.window", load.window.into(), 1.0..=4_096.0);
                within("load.churn.seconds", load.seconds.0.as_secs_f64(), 0.0..=600.0);
            }
            Self::Growth(load) => {
                within("load.growth.connections", load.connections.into(), some);
                within("load.growth.audience", load.audience.into(), 1.0..=f64::from(load.connections));
                let layer = load.layer();
                let mut before = 1;
                for &channels in &load.channels {
                    within("load.growth.channels", channels.into(), f64::from(before)..=1_000_000.0);
                    // A part of a layer is no channel with its whole audience.
                    within("load.growth.channels above a multiple of a layer", (channels % layer).into(), 0.0..=0.0);
                    before = channels;
                }
                within("load.growth.payload", load.payload.into(), sizes);
                within("load.growth.window", load.window.into(), 1.0..=4_096.0);
                within("load.growth.seconds", load.seconds.0.as_secs_f64(), spans);
                within("load.growth.rounds", load.rounds.into(), 1.0..=100.0);
            }
            Self::SlowConsumers(load) => {
                within("load.slow-consumers.subscribers", load.subscribers.into(), some);
                within("load.slow-consumers.slow", load.slow.into(), 1.0..=10_000.0);
                within("load.slow-consumers.payload", load.payload.into(), sizes);
                within("load.slow-consumers.window", load.window.into(), 1.0..=4_096.0);
                within("load.slow-consumers.seconds", load.seconds.0.as_secs_f64(), spans);
            }
            Self::Resume(load) => {
                within("load.resume.clients", load.clients.into(), some);
                within("load.resume.channels", load.channels.into(), 1.0..=f64::from(load.clients));
                within("load.resume.missed", load.missed.into(), 1.0..=10_000.0);
                within("load.resume.payload", load.payload.into(), sizes);
                within("load.resume.rounds", load.rounds.into(), 1.0..=100.0);
            }
        }
    }
}

impl TryFrom<f64> for Span {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Self, String> {
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| format!("{seconds} is no length of time"))
    }
}

impl From<Span> for f64 {
    fn from(span: Span) -> Self {
        span.0.as_secs_f64()
    }
}

impl Default for FanOut {
    fn default() -> Self {
        Self {
            subscribers: 1_000,
            channels: 1,
            publishers: 1,
            payload: 128,
            window: Vec::new(),
            rate: Vec::new(),
            seconds: Span(Duration::from_secs(5)),
            rounds: 3,
            limit: false,
        }
    }
}

impl Default for Mixed {
    fn default() -> Self {
        Self {
            subscribers: 1_000,
            groups: 50,
            payload: 128,
            broadcast_rate: 10.0,
            group_rate: 500.0,
            direct_rate: 5_000.0,
            seconds: Span(Duration::from_secs(10)),
            rounds: 1,
        }
    }
}

impl Default for Idle {
    fn default() -> Self {
        Self { connections: 10_000, channels: 100, rest: Span(Duration::from_secs(30)) }
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Self { connections: 5_000, channels: 100, storms: 3, limit: false }
    }
}

impl Default for Churn {
    fn default() -> Self {
        Self {
            connections: 10_000,
            subscriptions: 100,
            channels: 100_000,
            window: 64,
            seconds: Span(Duration::from_secs(10)),
        }
    }
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            connections: 1_000,
            audience: 10,
            channels: vec![100, 1_000, 10_000, 100_000],
            payload: 128,
            window: 16,
            seconds: Span(Duration::from_secs(1)),
            rounds: 3,
        }
    }
}

impl Default for SlowConsumers {
    fn default() -> Self {
        Self { subscribers: 500, slow: 50, payload: 1_024, window: 16, seconds: Span(Duration::from_secs(10)) }
    }
}

impl Default for Resume {
    fn default() -> Self {
        Self { clients: 10_000, channels: 100, missed: 50, payload: 128, rounds: 3, limit: false }
    }
}
