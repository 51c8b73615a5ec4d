//! What is measured: gateways started for this run, with a Redis of their own if there are several, or some that run already.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::client::Endpoint;
use crate::error::{Context as _, Error};
use crate::http;
use crate::meter;
use crate::metrics::Counters;
use crate::process::{Folder, Process, free_addresses};
use crate::scenario::{ClientPlan, ServerPlan};

/// Servers that are ready for clients.
#[derive(Debug)]
pub(crate) struct Servers {
    /// Where clients connect; never empty.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Their processes; none if they were not told.
    pub(crate) pids: Vec<u32>,
    /// What they are called.
    pub(crate) name: String,
    /// The Redis started for them.
    pub(crate) redis: Option<SocketAddr>,
    ops: Vec<SocketAddr>,
    /// They end with this value: nodes before their Redis.
    nodes: Vec<Process>,
    redis_process: Option<Process>,
}

/// What a report says about them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    name: String,
    nodes: usize,
    redis: bool,
    dialect: crate::dialect::Dialect,
}

impl Servers {
    /// Starts gateways on the server's core, or takes those that were named, and binds this process to the client's core.
    pub(crate) fn start(plan: &ServerPlan, client: &ClientPlan) -> Result<Self, Error> {
        let servers = if plan.url.is_empty() { Self::spawn(plan, client)? } else { Self::named(plan)? };
        meter::pin(client.core)?;
        Ok(servers)
    }

    /// What a report says about them.
    pub(crate) fn about(&self) -> About {
        About {
            name: self.name.clone(),
            nodes: self.endpoints.len(),
            redis: self.redis.is_some(),
            dialect: self.endpoints[0].dialect,
        }
    }

    /// Their counters, where they tell any.
    pub(crate) fn counters(&self) -> Counters {
        Counters::scrape(&self.ops)
    }

    /// Shows the ends of the logs of those that were started here.
    pub(crate) fn show_logs(&self) {
        for node in &self.nodes {
            eprintln!("the end of the server's log:\n{}", node.log_end());
        }
    }

    fn named(plan: &ServerPlan) -> Result<Self, Error> {
        let mut endpoints = Vec::new();
        for url in &plan.url {
            let mut endpoint = Endpoint::parse(url, plan.dialect)?;
            if let Some(path) = &plan.publish_path {
                endpoint.publish_path.clone_from(path);
            }
            endpoints.push(endpoint);
        }
        Ok(Self {
            endpoints,
            pids: plan.pid.clone(),
            name: plan.url.join(", "),
            redis: None,
            ops: plan.ops.clone(),
            nodes: Vec::new(),
            redis_process: None,
        })
    }

    fn spawn(plan: &ServerPlan, client: &ClientPlan) -> Result<Self, Error> {
        let binary = plan.binary.canonicalize().ok().filter(|path| path.is_file()).ok_or_else(|| {
            Error::Setup(format!("{}: not there; build it with `cargo build --release`", plan.binary.display()))
        })?;
        let mut servers = Self {
            endpoints: Vec::new(),
            pids: Vec::new(),
            name: plan.binary.display().to_string(),
            redis: None,
            ops: Vec::new(),
            nodes: Vec::new(),
            redis_process: None,
        };
        if plan.redis || plan.nodes > 1 {
            let (address, process) = start_redis(plan.core)?;
            servers.redis = Some(address);
            servers.redis_process = Some(process);
        }
        for _ in 0..plan.nodes {
            servers.add_node(&binary, plan, client)?;
        }
        Ok(servers)
    }

    fn add_node(&mut self, binary: &Path, plan: &ServerPlan, client: &ClientPlan) -> Result<(), Error> {
        let [public, control, ops] = free_addresses()?;
        let folder = Folder::create()?;
        let mut config = usual_configuration([public, control, ops], self.redis, client);
        merge(&mut config, &plan.config);
        fs::write(folder.0.join("fanwire.toml"), config.to_string()).context("write a configuration")?;
        let mut node = Process::start(binary, &["serve", "--config", "fanwire.toml"], folder, plan.core)?;
        node.await_ready(|| matches!(http::get(ops, "/health/ready"), Ok((200, _))))?;
        self.endpoints.push(Endpoint::usual(public, plan.dialect));
        self.pids.push(node.pid());
        self.ops.push(ops);
        self.nodes.push(node);
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.nodes.clear();
        self.redis_process = None;
    }
}

/// What a gateway of a run needs: its addresses, everything permitted, one worker for its one core, and no bound on what comes
/// in a second, because that is what is measured.
fn usual_configuration(
    [public, control, ops]: [SocketAddr; 3],
    redis: Option<SocketAddr>,
    client: &ClientPlan,
) -> toml::Table {
    let kind = if redis.is_some() { "redis" } else { "memory" };
    let mut config = toml::toml! {
        [node]
        workers = 1
        [drain]
        grace = "0s"
        [admission]
        handshakes = 0
        connects = 0
        subscribes = 0
        recoveries = 0
        [client]
        insecure = true
        anonymous = true
    };
    let mut set = |section: &str, key: &str, value: toml::Value| {
        let section = config.entry(section).or_insert_with(|| toml::Table::new().into());
        if let Some(section) = section.as_table_mut() {
            section.insert(key.to_owned(), value);
        }
    };
    set("listen", "public", public.to_string().into());
    set("listen", "control", control.to_string().into());
    set("listen", "ops", ops.to_string().into());
    set("broker", "kind", kind.into());
    if let Some(address) = redis {
        let urls = toml::Table::from_iter([("urls".to_owned(), vec![format!("redis://{address}")].into())]);
        set("broker", "redis", urls.into());
    }
    if !client.token_secret.is_empty() {
        set("token", "hmac_secret", client.token_secret.clone().into());
        // A client whose token is not looked at would show nothing.
        set("client", "insecure", false.into());
        set("client", "anonymous", false.into());
    }
    config
}

/// Puts `over` on top of `config`, table by table.
fn merge(config: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (config.get_mut(key).and_then(toml::Value::as_table_mut), value) {
            (Some(below), toml::Value::Table(value)) => merge(below, value),
            _ => {
                config.insert(key.clone(), value.clone());
            }
        }
    }
}

fn start_redis(core: usize) -> Result<(SocketAddr, Process), Error> {
    let [address] = free_addresses()?;
    let port = address.port().to_string();
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let mut process = Process::start(Path::new("redis-server"), &arguments, Folder::create()?, core)?;
    process.await_ready(|| redis_answers(address).unwrap_or(false))?;
    Ok((address, process))
}

fn redis_answers(address: SocketAddr) -> std::io::Result<bool> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"+PONG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_said() {
        let plan = ServerPlan { binary: "/nonexistent/fanwire".into(), ..ServerPlan::default() };
        let error = Servers::start(&plan, &ClientPlan::default()).unwrap_err();
        assert!(error.to_string().contains("not there"), "{error}");
    }

    #[test]
    fn a_scenario_s_configuration_lies_on_top() {
        let addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(|text| text.parse().unwrap());
        let client = ClientPlan { token_secret: "s".repeat(32), ..ClientPlan::default() };
        let mut config = usual_configuration(addresses, Some(addresses[0]), &client);
        assert_eq!(config["client"]["insecure"], false.into());
        assert_eq!(config["broker"]["redis"]["urls"][0], "redis://127.0.0.1:1".into());
        merge(
            &mut config,
            &toml::toml! {
                [node]
                workers = 2
                [[namespace]]
                name = "bench"
            },
        );
        assert_eq!(config["node"]["workers"], 2.into());
        assert_eq!(config["listen"]["ops"], "127.0.0.1:3".into());
        assert_eq!(config["namespace"][0]["name"], "bench".into());
    }
}
