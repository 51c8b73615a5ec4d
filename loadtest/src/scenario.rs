//! A scenario file: what is measured, with which load, and what the figures must be.

mod load;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub(crate) use load::{Churn, FanOut, Growth, Handshake, Idle, Load, Mixed, Resume, SlowConsumers, Span};
use serde::Deserialize;

use crate::assertion::Assertion;
use crate::dialect::Dialect;
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
    /// Gateways that run already: `ws://host:port/path`. Subscribers are spread over them, publishers are at the last.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
