//! The sections `[[hook]]`: where backends are and how they are asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::config::duration;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

/// One `[[hook]]`: a backend, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookConfig {
    /// What `connect_hook` and the like call it. Required.
    pub name: String,
    /// `http://…` or `https://…`: a POST with JSON to this URL; `grpc://…` or `grpcs://…`: a gRPC server. Required.
    pub url: String,
    /// How long a question may take, with all that is tried. Default: 1s.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How often a question is asked again after a failure, within `timeout`. A publication or a call that may have
    /// reached the backend is not repeated. Default: 1.
    pub retries: u32,
    /// The most questions under way; more are refused at once. Default: 512.
    pub max_in_flight: usize,
    /// The headers of the client's opening request that the backend gets. Default: none.
    pub headers: Vec<String>,
    /// The headers that the backend gets of those a client tells in its own protocol, where it may say anything. The
    /// opening request has precedence. Default: none.
    pub client_headers: Vec<String>,
    /// Headers of every question. Default: none.
    pub static_headers: BTreeMap<String, String>,
    /// Whether data stands in base64 in questions over HTTP, also where it is JSON. Default: false.
    pub binary: bool,
    /// Whether the backend gets back what it attached to the connection (`meta`). Default: false.
    pub include_meta: bool,
    /// Certificates in PEM trusted in place of the system's. Default: none.
    pub ca_file: Option<PathBuf>,
    /// The name of the service over gRPC. Default: `fanwire.hooks.v1.Hooks`.
    pub grpc_service: String,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            timeout: Duration::from_secs(1),
            retries: 1,
            max_in_flight: 512,
            headers: Vec::new(),
            client_headers: Vec::new(),
            static_headers: BTreeMap::new(),
            binary: false,
            include_meta: false,
            ca_file: None,
            grpc_service: "fanwire.hooks.v1.Hooks".to_owned(),
        }
    }
}

/// The longest time a question may take: a client's other requests wait for it.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// More would only multiply the load of a backend that is not well.
const MAX_RETRIES: u32 = 5;

/// Headers that belong to one connection, or say what the gateway itself sends.
const NOT_FORWARDED: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-encoding",
];

/// What a [`HookConfig`] says, understood.
pub(crate) struct Parsed {
    pub(crate) target: Target,
    pub(crate) headers: Vec<HeaderName>,
    pub(crate) client_headers: Vec<HeaderName>,
    pub(crate) static_headers: HeaderMap,
    pub(crate) tls: Option<ClientConfig>,
    /// What `ca_file` holds.
    pub(crate) authorities: Option<Vec<u8>>,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Http(Uri),
    /// Scheme and authority, and the path of the service.
    Grpc(Uri, String),
}

impl HookConfig {
    /// Everything that is wrong with it, in words for who wrote the configuration.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        self.parse().err().unwrap_or_default()
    }

    pub(crate) fn parse(&self) -> Result<Parsed, Vec<String>> {
        let mut mistakes = Vec::new();
        if self.name.is_empty() {
            mistakes.push("name: required".to_owned());
        }
        if self.timeout.is_zero() || self.timeout > MAX_TIMEOUT {
            mistakes.push(format!("timeout: must be from 1ms to {}s", MAX_TIMEOUT.as_secs()));
        }
        if self.retries > MAX_RETRIES {
            mistakes.push(format!("retries: at most {MAX_RETRIES}"));
        }
        if self.max_in_flight == 0 || self.max_in_flight > u32::MAX as usize / 2 {
            mistakes.push("max_in_flight: must be at least 1".to_owned());
        }
        let target = self.target();
        let encrypted = matches!(&target, Ok((_, true)));
        let target = target.map(|(target, _)| target).map_err(|mistake| mistakes.push(format!("url: {mistake}")));
        if self.ca_file.is_some() && target.is_ok() && !encrypted {
            mistakes.push("ca_file: only for https and grpcs".to_owned());
        }
        let headers = names("headers", &self.headers, &mut mistakes);
        let client_headers = names("client_headers", &self.client_headers, &mut mistakes);
        let mut static_headers = HeaderMap::new();
        for (name, value) in &self.static_headers {
            let [name] = &names("static_headers", std::slice::from_ref(name), &mut mistakes)[..] else { continue };
            match HeaderValue::from_str(value) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    static_headers.insert(name.clone(), value);
                }
                Err(_) => mistakes.push(format!("static_headers: {name} has a value that no header can have")),
            }
            if headers.contains(name) || client_headers.contains(name) {
                mistakes.push(format!("static_headers: {name} would come from the client, too"));
            }
        }
        let tls = encrypted.then(|| self.tls()).transpose();
        let tls = tls.map_err(|mistake| mistakes.push(mistake));
        match (target, tls) {
            (Ok(target), Ok(tls)) if mistakes.is_empty() => {
                let (tls, authorities) = tls.unzip();
                let authorities = authorities.flatten();
                Ok(Parsed { target, headers, client_headers, static_headers, tls, authorities })
            }
            _ => Err(mistakes.into_iter().map(|mistake| format!("hook {:?}: {mistake}", self.name)).collect()),
        }
    }

    /// Where the backend is, and whether the way there is encrypted.
    fn target(&self) -> Result<(Target, bool), String> {
        let uri: Uri = self.url.parse().map_err(|error| format!("{error}"))?;
        let parts = uri.clone().into_parts();
        let authority = parts.authority.filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or("must be http://…, https://…, grpc://… or grpcs://…")?;
        if authority.as_str().contains('@') {
            return Err("no user and password here: use static_headers".to_owned());
        }
        let (scheme, encrypted) = match uri.scheme_str() {
            Some("http" | "grpc") => (Scheme::HTTP, false),
            Some("https" | "grpcs") => (Scheme::HTTPS, true),
            _ => return Err("must be http://…, https://…, grpc://… or grpcs://…".to_owned()),
        };
        if uri.scheme_str().is_some_and(|scheme| scheme.starts_with("http")) {
            return Ok((Target::Http(uri), encrypted));
        }
        if parts.path_and_query.is_some_and(|path| path != "/" && path != "") {
            return Err("a gRPC server has no path".to_owned());
        }
        format!("/{}/Connect", self.grpc_service)
            .parse::<PathAndQuery>()
            .ok()
            .filter(|_| !self.grpc_service.contains('/') && !self.grpc_service.is_empty())
            .ok_or_else(|| format!("grpc_service: {:?} names no service", self.grpc_service))?;
        Ok((Target::Grpc(origin(scheme, authority)?, format!("/{}", self.grpc_service)), encrypted))
    }

    /// TLS, and what `ca_file` holds.
    fn tls(&self) -> Result<(ClientConfig, Option<Vec<u8>>), String> {
        let mut roots = RootCertStore::empty();
        let mut authorities = None;
        if let Some(file) = &self.ca_file {
            let wrong = |error: &dyn std::fmt::Display| format!("ca_file: {}: {error}", file.display());
            let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"no certificate in it"));
            }
            authorities = Some(pem);
        } else {
            // Some of a system's certificates may be unreadable; none at all shows with the first question.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| format!("TLS: {error}"))?;
        Ok((builder.with_root_certificates(roots).with_no_client_auth(), authorities))
    }
}

fn origin(scheme: Scheme, authority: Authority) -> Result<Uri, String> {
    Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().map_err(|error| error.to_string())
}

fn names(key: &str, names: &[String], mistakes: &mut Vec<String>) -> Vec<HeaderName> {
    let mut parsed = Vec::with_capacity(names.len());
    for name in names {
        match HeaderName::try_from(name) {
            Ok(name) if NOT_FORWARDED.contains(&name.as_str()) || name.as_str().starts_with("sec-websocket-") => {
                mistakes.push(format!("{key}: {name} is about the connection it came on"));
            }
            Ok(name) => parsed.push(name),
            Err(_) => mistakes.push(format!("{key}: {name:?} is not the name of a header")),
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str) -> Result<Parsed, Vec<String>> {
        toml::from_str::<HookConfig>(&format!("name = \"a\"\n{toml}")).unwrap().parse()
    }

    fn target(url: &str) -> Target {
        parse(&format!("url = \"{url}\"")).map_err(|mistakes| mistakes.join("\n")).map(|parsed| parsed.target).unwrap()
    }

    #[test]
    fn urls_say_where_and_how() {
        assert_eq!(
            target("http://127.0.0.1:3000/hook?x=1"),
            Target::Http(Uri::from_static("http://127.0.0.1:3000/hook?x=1"))
        );
        assert_eq!(target("https://example.com"), Target::Http(Uri::from_static("https://example.com/")));
        let Target::Grpc(origin, path) = target("grpcs://example.com:9000") else { panic!("not gRPC") };
        assert_eq!((origin, &*path), (Uri::from_static("https://example.com:9000/"), "/fanwire.hooks.v1.Hooks"));
    }

    #[test]
    fn mistakes_are_told_all_at_once() {
        let mistakes = parse(
            "url = \"ftp://x\"\ntimeout = \"1h\"\nretries = 9\nmax_in_flight = 0\nheaders = [\"Host\", \"a b\"]\n\
             client_headers = [\"X-A\", \"Sec-WebSocket-Key\"]\nstatic_headers = { x-a = \"1\", x-b = \"\\n\" }\n",
        );
        let told = mistakes.err().unwrap().join("\n");
        for expected in [
            "url: must be",
            "timeout",
            "retries",
            "max_in_flight",
            "host is about",
            "a b",
            "sec-websocket-key",
            "x-a would",
            "x-b has",
        ] {
            assert!(told.contains(expected), "{expected} not in:\n{told}");
        }
        for url in ["", "/path", "http://", "http://u:p@x/", "grpc://x/path"] {
            assert!(parse(&format!("url = \"{url}\"")).is_err(), "{url}");
        }
        assert!(parse("url = \"http://x\"\nca_file = \"/etc/x\"").is_err());
        assert!(parse("url = \"https://x\"\nca_file = \"/does/not/exist\"").is_err());
        assert!(parse("url = \"grpc://x\"\ngrpc_service = \"a/b\"").is_err());
    }
}
