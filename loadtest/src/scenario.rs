//! A scenario file: what is measured, with which load, and what the figures must be.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::assertion::Assertion;
use crate::dialect::Dialect;
use crate::dialect::numbers::MIN_PAYLOAD;
use crate::error::{Context as _, Error};

/// What a file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The report's heading.
    pub(crate) name: String,
    /// What it shows, for the report.
    #[serde(default)]
    pub(crate) description: String,
    /// What the figures must be; nothing lost, repeated or reordered is demanded in any case.
    #[serde(default)]
    pub(crate) assert: Vec<Assertion>,
    /// What is measured.
    #[serde(default)]
    pub(crate) server: ServerPlan,
    /// How its clients present themselves.
    #[serde(default)]
    pub(crate) client: ClientPlan,
    /// What they do.
    pub(crate) load: Load,
}

/// What is measured: gateways that run already, or some to be started.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerPlan {
    /// Gateways that run already: `ws://host:port/path`. Subscribers are spread over them, publishers are at the first.
    pub(crate) url: Vec<String>,
    /// The path on them for those who publish, if it is another one.
    pub(crate) publish_path: Option<String>,
    /// What they speak.
    pub(crate) dialect: Dialect,
    /// Their processes on this machine, for CPU time and memory.
    pub(crate) pid: Vec<u32>,
    /// Their addresses for `/metrics`.
    pub(crate) ops: Vec<SocketAddr>,
    /// The gateway to start otherwise.
    pub(crate) binary: PathBuf,
    /// How many of it; more than one get a Redis.
    pub(crate) nodes: u32,
    /// Starts a `redis-server` of the run's own for them.
    pub(crate) redis: bool,
    /// The core they run on; Redis runs there too.
    pub(crate) core: usize,
    /// Their configuration, on top of what the run needs: the keys of `fanwire.toml`.
    pub(crate) config: toml::Table,
}

/// How clients present themselves.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClientPlan {
    /// What channel names begin with; a namespace's options need its name and a colon.
    pub(crate) channel: String,
    /// A secret to sign each client's own HS256 token with; empty: clients are anonymous.
    pub(crate) token_secret: String,
    /// The core of this process.
    pub(crate) core: usize,
}

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
}

/// A length of time, written in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "f64", into = "f64")]
pub(crate) struct Span(pub(crate) Duration);

impl Scenario {
    /// Reads a file; `set` are assignments `key.of.a.table=value` on top of it.
    ///
    /// # Errors
    /// All that is wrong with it, by key.
    pub(crate) fn read(path: &Path, set: &[String]) -> Result<(Self, String), Error> {
        let text = std::fs::read_to_string(path).context(format!("read {}", path.display()))?;
        let named = |error: String| Error::Setup(format!("{}: {error}", path.display()));
        // Before anything is set: only the file as it is has lines to point at.
        let scenario: Self = toml::from_str(&text).map_err(|error| named(error.to_string()))?;
        if set.is_empty() {
            scenario.check().map_err(named)?;
            return Ok((scenario, text));
        }
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| named(error.to_string()))?;
        for assignment in set {
            assign(&mut table, assignment).map_err(|error| Error::Setup(format!("--set {assignment}: {error}")))?;
        }
        let text = table.to_string();
        let scenario: Self = table.try_into().map_err(|error: toml::de::Error| named(error.to_string()))?;
        scenario.check().map_err(named)?;
        Ok((scenario, text))
    }

    /// A scenario that says nothing but its load.
    pub(crate) fn of(name: &str, load: Load) -> Self {
        Self {
            name: name.to_owned(),
            description: String::new(),
            assert: Vec::new(),
            server: ServerPlan::default(),
            client: ClientPlan::default(),
            load,
        }
    }

    /// Looks for what cannot be run.
    ///
    /// # Errors
    /// All that is wrong, by key.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        let mut within = |key: &str, value: f64, range: std::ops::RangeInclusive<f64>| {
            if !range.contains(&value) {
                wrong.push(format!("{key} is {value} and must lie between {} and {}", range.start(), range.end()));
            }
        };
        within("server.nodes", self.server.nodes.into(), 1.0..=1_000.0);
        self.load.check(&mut within);
        let fan_out_without_pace =
            matches!(&self.load, Load::FanOut(load) if load.window.is_empty() && load.rate.is_empty());
        if fan_out_without_pace {
            wrong.push("load.fan-out needs a `window` or a `rate`".to_owned());
        }
        let told = self.server.pid.len().max(self.server.ops.len());
        if self.server.url.is_empty() && told > 0 {
            wrong.push("server.pid and server.ops belong to gateways named by server.url".to_owned());
        }
        if !self.server.url.is_empty() && !self.server.config.is_empty() {
            wrong.push("server.config is for gateways started here, not for those of server.url".to_owned());
        }
        if self.server.url.is_empty() && !self.server.dialect.is_ours() {
            wrong.push("the gateway does not speak server.dialect: name another server with server.url".to_owned());
        }
        if !self.client.token_secret.is_empty() && self.server.dialect != Dialect::Native {
            wrong.push("client.token_secret needs the native protocol, server.dialect is another one".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

impl Load {
    fn check(&self, within: &mut impl FnMut(&str, f64, std::ops::RangeInclusive<f64>)) {
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

/// Sets `key.of.a.table=value`; a value that is no TOML is a string.
fn assign(table: &mut toml::Table, assignment: &str) -> Result<(), String> {
    let (path, value) = assignment.split_once('=').ok_or("not key=value")?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| value.into());
    let (folders, key) = path.trim().rsplit_once('.').map_or((None, path.trim()), |(above, key)| (Some(above), key));
    let mut table = table;
    for folder in folders.into_iter().flat_map(|folders| folders.split('.')) {
        let entry = table.entry(folder).or_insert_with(|| toml::Table::new().into());
        table = entry.as_table_mut().ok_or_else(|| format!("{folder} is no table"))?;
    }
    table.insert(key.to_owned(), value);
    Ok(())
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

impl Default for ServerPlan {
    fn default() -> Self {
        Self {
            url: Vec::new(),
            publish_path: None,
            dialect: Dialect::default(),
            pid: Vec::new(),
            ops: Vec::new(),
            binary: PathBuf::from("target/release/fanwire"),
            nodes: 1,
            redis: false,
            core: 0,
            config: toml::Table::new(),
        }
    }
}

impl Default for ClientPlan {
    fn default() -> Self {
        Self { channel: "bench".to_owned(), token_secret: String::new(), core: 1 }
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
        Self { connections: 5_000, channels: 100, storms: 3 }
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

impl Default for SlowConsumers {
    fn default() -> Self {
        Self { subscribers: 500, slow: 50, payload: 1_024, window: 16, seconds: Span(Duration::from_secs(10)) }
    }
}

impl Default for Resume {
    fn default() -> Self {
        Self { clients: 10_000, channels: 100, missed: 50, payload: 128, rounds: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, set: &[&str]) -> Result<Scenario, String> {
        let file = std::env::temp_dir().join(format!("{}-{:p}.toml", std::process::id(), text));
        std::fs::write(&file, text).unwrap();
        let set: Vec<String> = set.iter().map(|&text| text.to_owned()).collect();
        let outcome = Scenario::read(&file, &set).map(|(scenario, _)| scenario).map_err(|error| error.to_string());
        std::fs::remove_file(&file).unwrap();
        outcome
    }

    const FAN_OUT: &str = "name = \"x\"\n[load.fan-out]\nwindow = [1]\n";

    #[test]
    fn every_file_that_is_shipped_can_be_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Scenario::read(&entry.unwrap().path(), &[]).unwrap();
            count += 1;
        }
        assert!(count > 10, "{count}");
    }

    #[test]
    fn mistakes_are_said_by_key() {
        for (text, parts) in [
            ("name = \"x\"\n", &["missing field `load`"][..]),
            ("name = \"x\"\n[load.fanout]\n", &["unknown variant `fanout`", "fan-out", "line 2"]),
            ("name = \"x\"\n[load.idle]\nconections = 5\n", &["unknown field `conections`", "connections", "line 3"]),
            ("name = \"x\"\n[load.fan-out]\n", &["load.fan-out needs a `window` or a `rate`"]),
            ("name = \"x\"\nassert = [\"loss == 0\"]\n[load.idle]\n", &["there is no figure `loss`", "line 2"]),
            (
                "name = \"x\"\n[server]\npid = [1]\n[load.fan-out]\nwindow = [0]\npayload = 5\n",
                &["load.fan-out.payload is 5", "load.fan-out.window is 0", "server.pid"],
            ),
            ("name = \"x\"\n[server]\ndialect = \"nats\"\n[load.idle]\n", &["server.dialect"]),
        ] {
            let error = read(text, &[]).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part:?} is not in {error}");
            }
        }
    }

    #[test]
    fn keys_are_set_on_top() {
        let set = ["load.fan-out.seconds=0.5", "load.fan-out.window=[2, 3]", "server.binary=target/debug/fanwire"];
        let scenario = read(FAN_OUT, &set).unwrap();
        assert_eq!(scenario.server.binary, Path::new("target/debug/fanwire"));
        let Load::FanOut(load) = scenario.load else {
            panic!("another load");
        };
        assert_eq!((load.window, load.seconds), (vec![2, 3], Span(Duration::from_millis(500))));
        for (assignment, part) in [("name", "not key=value"), ("name.x=1", "name is no table"), ("load.x=1", "load")] {
            let error = read(FAN_OUT, &[assignment]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
