//! The configuration: defaults < file < environment, all mistakes reported at once.

pub(crate) mod changes;
mod load;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fanwire_auth::Verifier;
use fanwire_control::{Audit, Keys};
use fanwire_net::TlsFiles;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub(crate) use load::{Mistakes, load};

/// Everything that can be configured; `deploy/fanwire.toml` is its commented form.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Config {
    /// `[listen]`
    pub listen: Listen,
    /// `[control]`
    pub control: Control,
    /// `[tls]`
    pub tls: Tls,
    /// `[proxy]`
    pub proxy: Proxy,
    /// `[node]`
    pub node: Node,
    /// `[broker]`
    pub broker: Broker,
    /// `[client]`
    pub client: fanwire_node::ClientConfig,
    /// `[admission]`
    pub admission: fanwire_node::AdmissionConfig,
    /// `[shedding]`
    pub shedding: fanwire_node::SheddingConfig,
    /// `[drain]`
    pub drain: fanwire_node::DrainConfig,
    /// `[token]`
    #[serde(skip)]
    pub token: fanwire_auth::Config,
    /// `[log]`
    pub log: Log,
    /// `[trace]`
    pub trace: Trace,
    /// `[[api_key]]`
    #[serde(skip)]
    pub api_key: Vec<fanwire_control::ApiKey>,
    /// `[[namespace]]`
    #[serde(skip)]
    pub namespace: Vec<fanwire_node::Namespace>,
    /// `[[hook]]`
    #[serde(skip)]
    pub hook: Vec<fanwire_hooks::HookConfig>,
}

/// Where the node listens. Listeners given the same address share it, by path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    /// Client protocols. Default: 0.0.0.0:8000.
    pub public: SocketAddr,
    /// The control plane. Default: 127.0.0.1:8010.
    pub control: SocketAddr,
    /// Metrics and health. Default: 127.0.0.1:8020.
    pub ops: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            public: (Ipv4Addr::UNSPECIFIED, 8000).into(),
            control: (loopback, 8010).into(),
            ops: (loopback, 8020).into(),
        }
    }
}

/// The control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Control {
    /// It describes its services to callers of gRPC's reflection. Default: false.
    pub reflection: bool,
}

/// The certificates of the listeners; one without is plain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// Of the public listener, and of those that share its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<TlsFiles>,
    /// Of the control listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<TlsFiles>,
}

/// The balancers in front of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Proxy {
    /// Whose word about a client's address is taken: addresses and ranges. Default: nobody's.
    pub trusted: Vec<String>,
    /// They begin every connection to the public listener with a PROXY header. Default: false.
    pub protocol: bool,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Node {
    /// What people call the node; empty for the name of its host. Default: empty.
    pub name: String,
    /// Threads that own connections; 0 for one per core. Default: 0.
    pub workers: usize,
}

/// What carries publications between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Broker {
    /// Which one. Default: "memory".
    pub kind: BrokerKind,
    /// Where Redis is, for that kind.
    pub redis: fanwire_redis::Config,
}

/// The kinds of broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BrokerKind {
    /// The node's own memory: one node alone.
    #[default]
    Memory,
    /// Redis: many nodes as one.
    Redis,
}

/// What is logged, to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// The least level logged, or directives like `info,fanwire_net=debug`. Default: "info".
    pub level: String,
    /// How a line looks. Default: "text".
    pub format: LogFormat,
    /// Which calls of the control plane are logged, as target `fanwire::audit`, whatever `level` says. Default: "changes".
    pub audit: Audit,
}

/// Traces of requests to the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Trace {
    /// Where an OpenTelemetry collector takes them (OTLP over HTTP); empty: there are none. Default: "".
    pub endpoint: String,
    /// The share of requests that are traced, from 0 to 1, unless whoever asks has decided. Default: 1.
    pub sample: f64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { endpoint: String::new(), sample: 1.0 }
    }
}

impl Trace {
    fn mistakes(&self) -> Vec<&'static str> {
        let mut mistakes = Vec::new();
        let uri = self.endpoint.parse::<http::Uri>();
        let good = uri.is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
        if !self.endpoint.is_empty() && !good {
            mistakes.push("endpoint: must be like http://127.0.0.1:4318/v1/traces");
        }
        if !(0.0..=1.0).contains(&self.sample) {
            mistakes.push("sample: must be from 0 to 1");
        }
        mistakes
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object, for programs.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default(), audit: Audit::default() }
    }
}

impl Log {
    /// What is logged.
    ///
    /// # Errors
    ///
    /// Says what is wrong with `level`.
    pub(crate) fn filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        let audit = if self.audit == Audit::Off { LevelFilter::OFF } else { LevelFilter::INFO };
        let directive = format!("fanwire::audit={audit}").parse()?;
        Ok(EnvFilter::try_new(&self.level)?.add_directive(directive))
    }
}

/// The longest name of a node, in bytes.
const MAX_NAME: usize = 255;

impl Config {
    /// What `fanwire dev` runs: loopback only, everything allowed to everyone, every feature on.
    pub(crate) fn dev() -> Self {
        Self {
            listen: Listen { public: (Ipv4Addr::LOCALHOST, 8000).into(), ..Listen::default() },
            control: Control { reflection: true },
            client: fanwire_node::ClientConfig {
                anonymous: true,
                insecure: true,
                personal_channel: true,
                ..fanwire_node::ClientConfig::default()
            },
            drain: fanwire_node::DrainConfig::at_once(),
            log: Log { level: "warn".to_owned(), audit: Audit::Off, ..Log::default() },
            namespace: vec![fanwire_node::Namespace::open("")],
            ..Self::default()
        }
    }

    /// What people call the node.
    pub(crate) fn node_name(&self) -> String {
        match &*self.node.name {
            "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            name => name.to_owned(),
        }
    }

    /// The node's part.
    pub(crate) fn of_node(&self) -> fanwire_node::Config {
        fanwire_node::Config { name: self.node_name(), client: self.client.clone(), namespaces: self.namespace.clone() }
    }

    /// The threads that own connections.
    pub(crate) fn workers(&self) -> usize {
        match self.node.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
        .min(fanwire_node::Dispatcher::MAX_WORKERS)
    }

    /// Whether two listeners are to share a socket. Port 0 means a free port each.
    pub(crate) fn share(one: SocketAddr, other: SocketAddr) -> bool {
        one == other && one.port() != 0
    }

    /// Reads the keys it names.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn secrets(&self) -> Result<(Verifier, Keys), Vec<String>> {
        let mut mistakes = Vec::new();
        let verifier = Verifier::new(&self.token);
        if let Err(error) = &verifier {
            mistakes.extend(error.mistakes.iter().map(|mistake| causes(mistake)));
        }
        let keys = if self.api_key.is_empty() { Ok(Keys::open()) } else { Keys::load(&self.api_key) };
        if let Err(error) = &keys {
            mistakes.push(causes(error));
        }
        match (verifier, keys) {
            (Ok(verifier), Ok(keys)) => Ok((verifier, keys)),
            _ => Err(mistakes),
        }
    }

    /// What is wrong although every key is right by itself: contradictions, and files that cannot be read.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (index, namespace) in self.namespace.iter().enumerate() {
            mistakes.extend(namespace.mistakes());
            if self.namespace[..index].iter().any(|earlier| earlier.name == namespace.name) {
                mistakes.push(format!("namespace {:?}: defined twice", namespace.name));
            }
        }
        mistakes.extend(self.hook_mistakes());
        if self.client.personal_channel && !self.namespace.iter().any(|namespace| namespace.name.is_empty()) {
            mistakes.push("client.personal_channel: needs a [[namespace]] with name = \"\"".to_owned());
        }
        if self.node.name.len() > MAX_NAME || self.node.name.chars().any(char::is_control) {
            mistakes.push(format!("node.name: at most {MAX_NAME} bytes, on one line"));
        }
        if self.node.workers > fanwire_node::Dispatcher::MAX_WORKERS {
            mistakes.push(format!("node.workers: at most {}", fanwire_node::Dispatcher::MAX_WORKERS));
        }
        for (key, value) in [
            ("max_message_size", self.client.max_message_size),
            ("queue_size", self.client.queue_size),
            ("max_channels", self.client.max_channels),
            ("history_limit", self.client.history_limit),
        ] {
            if value == 0 || value > u32::MAX as usize {
                mistakes.push(format!("client.{key}: must be from 1 to {}", u32::MAX));
            }
        }
        if self.broker.kind == BrokerKind::Redis {
            mistakes.extend(self.broker.redis.mistakes().into_iter().map(|mistake| format!("broker.redis.{mistake}")));
        }
        mistakes.extend(self.trace.mistakes().into_iter().map(|mistake| format!("trace.{mistake}")));
        mistakes.extend(self.admission.mistakes().into_iter().map(|mistake| format!("admission.{mistake}")));
        mistakes.extend(self.shedding.mistakes().into_iter().map(|mistake| format!("shedding.{mistake}")));
        mistakes.extend(self.drain.mistakes().into_iter().map(|mistake| format!("drain.{mistake}")));
        if self.client.pong_timeout >= self.client.ping_interval {
            mistakes.push("client.pong_timeout: must be shorter than client.ping_interval".to_owned());
        }
        for (listener, files) in [("public", &self.tls.public), ("control", &self.tls.control)] {
            let read = files.clone().map(|files| fanwire_net::Tls::load(listener, files)).transpose();
            mistakes.extend(read.err().map(|error| format!("tls.{listener}: {}", causes(&error))));
        }
        let wrong = fanwire_net::Proxies::new(&self.proxy.trusted).err().unwrap_or_default();
        mistakes.extend(wrong.into_iter().map(|mistake| format!("proxy.trusted: {mistake}")));
        if self.proxy.protocol && self.proxy.trusted.is_empty() {
            mistakes.push("proxy.protocol: needs the addresses of the balancers in proxy.trusted".to_owned());
        }
        let shared = Self::share(self.listen.control, self.listen.public);
        if shared && self.tls.control.is_some() {
            mistakes.push("tls.control: the control listener is the public one, whose TLS is tls.public".to_owned());
        }
        if self.api_key.is_empty() && (shared || !self.listen.control.ip().is_loopback()) {
            mistakes.push(format!(
                "listen.control: {} is reachable from outside{} and needs an [[api_key]]",
                self.listen.control,
                if shared { " (it is the public listener)" } else { "" }
            ));
        }
        if let Err(error) = self.log.filter() {
            mistakes.push(format!("log.level: {error}"));
        }
        mistakes.extend(self.secrets().err().into_iter().flatten());
        mistakes
    }

    /// What is wrong with the hooks, and with those who name them.
    fn hook_mistakes(&self) -> Vec<String> {
        let mut mistakes: Vec<_> = self.hook.iter().flat_map(fanwire_hooks::HookConfig::mistakes).collect();
        for (index, hook) in self.hook.iter().enumerate() {
            if self.hook[..index].iter().any(|earlier| earlier.name == hook.name) {
                mistakes.push(format!("hook {:?}: defined twice", hook.name));
            }
        }
        let client = &self.client;
        let of_client = [
            ("connect_hook", &client.connect_hook),
            ("refresh_hook", &client.refresh_hook),
            ("rpc_hook", &client.rpc_hook),
        ];
        let mut named: Vec<_> =
            of_client.into_iter().map(|(key, hook)| (format!("client.{key}"), hook.as_str())).collect();
        for namespace in &self.namespace {
            let hooks = namespace.hooks().into_iter();
            named.extend(hooks.map(|(key, hook)| (format!("namespace {:?}: {key}", namespace.name), hook)));
        }
        for (key, name) in named {
            if !name.is_empty() && !self.hook.iter().any(|hook| hook.name == name) {
                mistakes.push(format!("{key}: there is no [[hook]] with name = {name:?}"));
            }
        }
        let slow =
            self.hook.iter().any(|hook| hook.name == client.connect_hook && hook.timeout >= client.connect_timeout);
        if slow {
            mistakes.push("client.connect_timeout: must be longer than the timeout of connect_hook".to_owned());
        }
        mistakes
    }
}

/// An error with its causes, on one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
