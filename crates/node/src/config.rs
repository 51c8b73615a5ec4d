//! The node's part of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::namespace::Namespace;

/// Limits and rules of a node. Each field says its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What people call the node; empty for its id. Default: empty.
    pub name: String,
    /// What clients may do and how much of it.
    pub client: ClientConfig,
    /// The channel namespaces; channels of no listed namespace are unknown (error 102).
    pub namespaces: Vec<Namespace>,
}

/// The section `[client]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Origins whose pages may connect, as `scheme://host[:port]`, `scheme://*.host` or `*`; empty for the gateway's own
    /// only. Checked by the transports. Default: none.
    pub origins: Vec<String>,
    /// Whether a client without a token may connect. Default: false.
    pub anonymous: bool,
    /// Development and tests: everything is allowed to everyone. Default: false.
    pub insecure: bool,
    /// Whether the server subscribes each client with a user id to its own channel `#<user>`. Default: false.
    pub personal_channel: bool,
    /// The largest message taken from a client, in bytes. Default: 65536.
    pub max_message_size: usize,
    /// The most bytes that may wait for one client; more end its connection (3008). A recovery of more than half of it
    /// fails. Default: 1048576.
    pub queue_size: usize,
    /// The most subscriptions of one client. Default: 128.
    pub max_channels: usize,
    /// The most publications one history call returns. Default: 300.
    pub history_limit: usize,
    /// The longest silence before a client is pinged. Default: 25s.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping. Default: 8s.
    #[serde(with = "duration")]
    pub pong_timeout: Duration,
    /// How long an open connection may take to authenticate. Default: 10s.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long after its expiry a connection or subscription may still be renewed. Default: 25s.
    #[serde(with = "duration")]
    pub expiry_grace: Duration,
    /// How long a connection lives at most before it is asked to come back (3011); each for a random time between three
    /// quarters of this and all of it. 0 for ever. Default: 0s.
    #[serde(with = "duration")]
    pub lifetime: Duration,
    /// How long it is remembered that a user's tokens were revoked: as long as tokens live. Default: 7days.
    #[serde(with = "duration")]
    pub revocation_ttl: Duration,
    /// The hook that says who a client without a token is; empty for none. Default: empty.
    pub connect_hook: String,
    /// The hook that renews connections whose term is over; empty for none. Default: empty.
    pub refresh_hook: String,
    /// The hook that has remote calls; empty for none. Default: empty.
    pub rpc_hook: String,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            anonymous: false,
            insecure: false,
            personal_channel: false,
            max_message_size: 64 * 1024,
            queue_size: 1024 * 1024,
            max_channels: 128,
            history_limit: 300,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(10),
            expiry_grace: Duration::from_secs(25),
            lifetime: Duration::ZERO,
            revocation_ttl: Duration::from_secs(7 * 24 * 3600),
            connect_hook: String::new(),
            refresh_hook: String::new(),
            rpc_hook: String::new(),
        }
    }
}

/// Durations as people write them: `"300ms"`, `"25s"`, `"5m"`, `"1h 30m"`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads a duration.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("duration {text:?}: {error}")))
    }

    /// Writes a duration.
    ///
    /// # Errors
    ///
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }
}
