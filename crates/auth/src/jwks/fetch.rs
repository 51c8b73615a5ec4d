//! One request for a key set: bounded in time and size, to the configured address and nowhere else.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::timeout;

use super::KeySet;

/// Fetches one set.
pub(crate) struct Fetcher {
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// A set, and for how long it need not be asked for again.
pub(crate) struct Fetched {
    pub(crate) keys: KeySet,
    pub(crate) lifetime: Duration,
}

/// How long a request may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The largest set, in bytes.
const MAX_SIZE: usize = 64 * 1024;

/// The lifetime of a set, and between what its server may choose one.
const LIFETIME: Duration = Duration::from_secs(3600);
const MIN_LIFETIME: Duration = Duration::from_secs(300);
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

impl Fetcher {
    /// Reads an address: `https`, or `http` on this machine.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "url is not a URL".to_owned())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("url has no host")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("url has a user; a key set is public".to_owned());
        }
        let mut roots = RootCertStore::empty();
        match uri.scheme_str() {
            Some("https") => {
                let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if added == 0 {
                    return Err("the system trusts no certificates (SSL_CERT_FILE names others)".to_owned());
                }
            }
            // Keys that come unprotected over a network are anybody's.
            Some("http") if is_loopback(host) => {}
            _ => return Err("url is neither https, nor http on this machine".to_owned()),
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // Once an hour: no connection is worth keeping.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { uri, client })
    }

    /// Fetches the set. Redirections are not followed: they would lead elsewhere.
    pub(crate) async fn fetch(&self) -> Result<Fetched, String> {
        let fetched = timeout(TIMEOUT, self.request()).await;
        fetched.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    async fn request(&self) -> Result<Fetched, String> {
        let request = Request::get(self.uri.clone()).header(ACCEPT, "application/json").body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| causes(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer is {}", response.status()));
        }
        let lifetime = lifetime(response.headers());
        let body = Limited::new(response.into_body(), MAX_SIZE).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Fetched { keys: KeySet::parse(&body)?, lifetime })
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What the server says (`max-age`), within bounds.
fn lifetime(headers: &HeaderMap) -> Duration {
    let text = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let age = text.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok());
    age.map_or(LIFETIME, Duration::from_secs).clamp(MIN_LIFETIME, MAX_LIFETIME)
}

/// An error with its causes, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl fmt::Display for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uri, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_safe_ones() {
        for good in ["http://127.0.0.1:1/keys", "http://localhost/keys", "http://[::1]:8080/"] {
            assert!(Fetcher::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "keys.json",
            "/keys",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "http://example.com/keys",
            "http://10.0.0.1/",
            "http://127.0.0.1.example.com/",
            "http://user:password@127.0.0.1/",
            "http://localhost.example.com/",
        ] {
            assert!(Fetcher::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lifetimes_are_bounded() {
        let of = |value: &str| lifetime(&HeaderMap::from_iter([(CACHE_CONTROL, value.parse().unwrap())])).as_secs();
        assert_eq!(lifetime(&HeaderMap::new()), LIFETIME);
        let cases =
            [("public, max-age=600", 600), ("max-age=1", 300), ("max-age=99999999", 86_400), ("no-store", 3600)];
        for (value, seconds) in cases {
            assert_eq!(of(value), seconds, "{value}");
        }
    }
}
