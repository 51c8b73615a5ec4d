//! How a node finds its Redis.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{ClientTlsConfig, TlsCertificates};
use serde::{Deserialize, Serialize};

use crate::url::{Kind, Url};

/// `broker.redis` of the configuration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// One server, several that divide the channels among them, or one cluster:
    /// `redis://[user:password@]host:port[/database]`, `redis+sentinel://…host:port,host:port/name[/database]`,
    /// `redis+cluster://…host:port,host:port`; with TLS `rediss`. Default: redis://127.0.0.1:6379.
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
    /// A file with the password of the servers, for URLs without one. Default: none.
    pub password_file: Option<PathBuf>,
    /// A file with the password of the sentinels. Default: none.
    pub sentinel_password_file: Option<PathBuf>,
    /// A PEM file with the certificates that are trusted, instead of those of the system. Default: none.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate the node shows, together with `key_file`. Default: none.
    pub cert_file: Option<PathBuf>,
    /// A PEM file with its private key. Default: none.
    pub key_file: Option<PathBuf>,
}

/// A configuration that was read, with its files.
pub(crate) struct Settings {
    pub(crate) urls: Vec<Url>,
    pub(crate) sentinel_password: Option<String>,
    pub(crate) certificates: TlsCertificates,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: vec!["redis://127.0.0.1:6379".to_owned()],
            prefix: "fanwire".to_owned(),
            timeout: Duration::from_secs(1),
            unready_when_down: false,
            give_up_after: Duration::ZERO,
            password_file: None,
            sentinel_password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

impl Config {
    /// What contradicts itself although every key is right by itself, and files that cannot be read.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        self.read().err().unwrap_or_default()
    }

    /// Reads the URLs and the files.
    pub(crate) fn read(&self) -> Result<Settings, Vec<String>> {
        let mut mistakes = Vec::new();
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
        let mut urls: Vec<Url> = Vec::new();
        for (index, text) in self.urls.iter().enumerate() {
            match Url::parse(text) {
                Ok(url) => urls.push(url),
                Err(mistake) => mistakes.push(format!("urls[{index}]: {mistake}")),
            }
        }
        if self.urls.is_empty() || self.urls.len() > MAX_SERVERS {
            mistakes.push(format!("urls: 1 to {MAX_SERVERS}"));
        }
        if urls.len() > 1 && urls.iter().any(|url| url.kind == Kind::Cluster) {
            mistakes.push("urls: a cluster stands alone; its nodes are one entry, separated by commas".to_owned());
        }
        let mut secret = |key: &str, path: &Option<PathBuf>| {
            let text = file(key, path, &mut mistakes)?;
            let text = String::from_utf8_lossy(&text).trim_end_matches(['\r', '\n']).to_owned();
            if text.is_empty() {
                mistakes.push(format!("{key}: is empty"));
            }
            Some(text)
        };
        let password = secret("password_file", &self.password_file);
        let sentinel_password = secret("sentinel_password_file", &self.sentinel_password_file);
        if let Some(password) = password {
            for url in urls.iter_mut().filter(|url| url.login.password().is_none()) {
                url.login = url.login.clone().set_password(&password);
            }
        }
        let root_cert = file("ca_file", &self.ca_file, &mut mistakes);
        let cert = file("cert_file", &self.cert_file, &mut mistakes);
        let key = file("key_file", &self.key_file, &mut mistakes);
        if self.cert_file.is_some() != self.key_file.is_some() {
            mistakes.push("cert_file: goes together with key_file".to_owned());
        }
        let client_tls = cert.zip(key).map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert };
        // The redis crate reads certificates when a client is made of them.
        if let Err(error) = redis::Client::build_with_tls("rediss://localhost", certificates.clone()) {
            mistakes.push(format!("ca_file, cert_file, key_file: {error}"));
        }
        if mistakes.is_empty() { Ok(Settings { urls, sentinel_password, certificates }) } else { Err(mistakes) }
    }
}

/// The most servers that divide the channels among them: each costs every node two connections.
const MAX_SERVERS: usize = 64;

fn file(key: &str, path: &Option<PathBuf>, mistakes: &mut Vec<String>) -> Option<Vec<u8>> {
    let path: &Path = path.as_deref()?;
    let read = std::fs::read(path);
    read.inspect_err(|error| mistakes.push(format!("{key}: {}: {error}", path.display()))).ok()
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses contain passwords.
        f.debug_struct("Config").field("prefix", &self.prefix).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
