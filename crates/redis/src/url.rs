//! Addresses in the configuration, taken apart.

use std::fmt;
use std::sync::Arc;

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

/// One entry of `broker.redis.urls`.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) kind: Kind,
    /// The server, the sentinels, or some nodes of the cluster. Never empty.
    pub(crate) addresses: Vec<Address>,
    /// How to introduce oneself to a server.
    pub(crate) login: RedisConnectionInfo,
    pub(crate) tls: bool,
}

/// What stands behind a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server.
    Server,
    /// The primary that sentinels know under this name.
    Sentinel { primary: String },
    /// The primaries of a cluster.
    Cluster,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

/// The most addresses in one URL.
const MAX_ADDRESSES: usize = 64;

impl Url {
    /// Reads `redis[s]://`, `redis[s]+sentinel://` and `redis[s]+cluster://`. What is wrong is told without the password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("no address: it begins with redis://")?;
        let (scheme, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err("only redis:// and rediss:// are known, with +sentinel or +cluster".to_owned()),
        };
        if rest.contains(['?', '#']) {
            return Err("nothing may follow behind ? or #".to_owned());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            return Err("a / in a user or password is written %2F".to_owned());
        }
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (kind, database) = match kind {
            "" if hosts.contains(',') => return Err("several servers are several entries of the list".to_owned()),
            "" => (Kind::Server, path),
            "sentinel" => {
                let (primary, database) = path.split_once('/').unwrap_or((path, ""));
                if primary.is_empty() {
                    return Err("the name of the primary is missing: redis+sentinel://host:port/name".to_owned());
                }
                (Kind::Sentinel { primary: primary.to_owned() }, database)
            }
            "cluster" if !path.trim_matches('/').is_empty() => return Err("a cluster has no databases".to_owned()),
            "cluster" => (Kind::Cluster, ""),
            _ => return Err("only +sentinel and +cluster are known".to_owned()),
        };
        let mut addresses = Vec::new();
        let mut login = None;
        for host in hosts.split(',') {
            // One server's URL is what the redis crate reads; credentials and escapes are its business.
            let info = format!("redis://{user}@{host}/{database}").into_connection_info();
            // What the crate says may quote a password.
            let info = info.map_err(|_| "not [user:password@]host:port, with a number behind it as the database")?;
            let ConnectionAddr::Tcp(name, mut port) = info.addr().clone() else { return Err("no host".to_owned()) };
            if kind != Kind::Server && !host.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with(':') {
                port = if kind == Kind::Cluster { 6379 } else { 26379 };
            }
            addresses.push(Address { host: name.into(), port });
            login = Some(info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3));
        }
        if addresses.len() > MAX_ADDRESSES {
            return Err(format!("at most {MAX_ADDRESSES} addresses"));
        }
        let login = login.ok_or("no address")?;
        Ok(Self { kind, addresses, login, tls })
    }
}

impl Address {
    /// Reads `host:port`, as servers of a cluster write it (IPv6 without brackets).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: host.trim_matches(['[', ']']).into(), port: port.parse().ok()? })
    }

    /// As `speaker` means it: a node that does not know its own address leaves the host to who reached it.
    pub(crate) fn said_by(self, speaker: &Self) -> Self {
        let unknown = self.host.is_empty() || &*self.host == "?";
        if unknown { Self { host: Arc::clone(&speaker.host), ..self } } else { self }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Kind, String, bool) {
        let url = Url::parse(text).unwrap();
        let addresses: Vec<_> = url.addresses.iter().map(Address::to_string).collect();
        (url.kind, addresses.join(","), url.tls)
    }

    #[test]
    fn all_forms_are_read() {
        let primary = |name: &str| Kind::Sentinel { primary: name.to_owned() };
        for (text, expected) in [
            ("redis://host", (Kind::Server, "host:6379", false)),
            ("rediss://u:p%40@host:7000/3", (Kind::Server, "host:7000", true)),
            ("redis://[::1]:7000", (Kind::Server, "::1:7000", false)),
            ("redis+sentinel://u:p@a:1,b,c:3/main/2", (primary("main"), "a:1,b:26379,c:3", false)),
            ("rediss+sentinel://a/main", (primary("main"), "a:26379", true)),
            ("redis+cluster://a:1,[::1]:2,c", (Kind::Cluster, "a:1,::1:2,c:6379", false)),
            ("rediss+cluster://:p@a", (Kind::Cluster, "a:6379", true)),
        ] {
            assert_eq!(parse(text), (expected.0, expected.1.to_owned(), expected.2), "{text}");
        }
        let login = Url::parse("rediss://u:p%40@host:7000/3").unwrap().login;
        assert_eq!((login.username(), login.password(), login.db()), (Some("u"), Some("p@"), 3));
    }

    #[test]
    fn mistakes_are_told_without_the_password() {
        for text in [
            "host:6379",
            "http://u:secret@host",
            "redis+what://u:secret@host",
            "redis://u:secret@a,b",
            "redis://u:secret@host:port",
            "redis://u:secret@host/first",
            "redis://u:12/secret@host",
            "redis://u:secret@host?db=1",
            "redis://u:secret@",
            "redis+sentinel://u:secret@a:1",
            "redis+cluster://u:secret@a:1/2",
            "redis+cluster://u:secret@a:1,,b:1",
        ] {
            let mistake = Url::parse(text).err();
            assert!(mistake.as_ref().is_some_and(|mistake| !mistake.contains("secret")), "{text}: {mistake:?}");
        }
    }

    #[test]
    fn addresses_are_read_as_servers_write_them() {
        for (text, host, port) in
            [("10.0.0.1:7000", "10.0.0.1", 7000), ("::1:7000", "::1", 7000), ("[::1]:1", "::1", 1)]
        {
            assert_eq!(Address::parse(text), Some(Address { host: host.into(), port }));
        }
        assert_eq!(Address::parse("host"), None);
    }
}
