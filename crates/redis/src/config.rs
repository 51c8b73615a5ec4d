//! How a node finds its Redis.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `broker.redis` of the configuration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The servers: for now exactly one, `redis://[user:password@]host:port[/database]`. Default: redis://127.0.0.1:6379.
    pub urls: Vec<String>,
    /// What every key and pub/sub channel begins with; clusters that share a server need different ones. Default: fanwire.
    pub prefix: String,
    /// How long anything asked of Redis may take. Default: 1s.
    #[serde(with = "fanwire_node::config::duration")]
    pub timeout: Duration,
    /// Whether `/health/ready` answers 503 while publications do not arrive; else it says "degraded", with 200. Default: false.
    pub unready_when_down: bool,
    /// How long publications may not arrive before the node hands its clients over to others; 0s for ever. Default: 0s.
    #[serde(with = "fanwire_node::config::duration")]
    pub give_up_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            prefix: "fanwire".to_owned(),
            timeout: Duration::from_secs(1),
            unready_when_down: false,
            give_up_after: Duration::ZERO,
        }
    }
}

impl Config {
    /// What contradicts itself although every key is right by itself.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        match &*self.urls {
            [url] if !url.starts_with("redis://") => mistakes.push("urls: only redis:// is known so far".to_owned()),
            [url] => mistakes.extend(redis::Client::open(&**url).err().map(|error| format!("urls: {error}"))),
            _ => mistakes.push("urls: exactly one server is possible so far".to_owned()),
        }
        if self.prefix.is_empty()
            || !self.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        {
            mistakes.push("prefix: letters, digits and -_. only".to_owned());
        }
        if self.timeout < Duration::from_millis(50) {
            mistakes.push("timeout: at least 50ms".to_owned());
        }
        // What a restart of Redis takes is nothing to move everybody for.
        if !self.give_up_after.is_zero() && self.give_up_after < Duration::from_secs(5) {
            mistakes.push("give_up_after: 0s, or at least 5s".to_owned());
        }
        mistakes
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses contain passwords.
        f.debug_struct("Config").field("prefix", &self.prefix).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
