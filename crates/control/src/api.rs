//! From a request to a response: routes and keys.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::{Node, Phase};
use fanwire_wire::Refusal;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio::sync::mpsc;
use tonic_health::pb::health_server::HealthServer;

use crate::audit::{Audit, Entry};
use crate::caller::{Caller, CertificateName, Ring};
use crate::document;
use crate::health::{Health, Ready};
use crate::keys::Keys;
use crate::methods::{Method, Reload, write};
use crate::metrics::Metrics;
use crate::reflection::{self, Reflection};
use crate::types::{Fault, Reply};

/// The control plane of one node. It serves everything under `/api`.
pub struct Api {
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: Metrics,
    pub(crate) audit: Audit,
    ring: Ring,
    /// Who reads the configuration again.
    pub(crate) reader: Option<mpsc::Sender<Reload>>,
    pub(crate) health: HealthServer<Health>,
    pub(crate) reflection: Option<Reflection>,
}

/// What a path stands for.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// `/api/<method>`
    Method(Method),
    /// `/api`, where the body names the methods: some server libraries know nothing else.
    Pipeline,
}

impl Api {
    /// Makes the control plane of a node.
    #[must_use]
    pub fn new(node: Arc<Node>, keys: &Keys, audit: Audit) -> Self {
        let of_node = Arc::clone(&node);
        let ready: Ready = Arc::new(move || of_node.phase() == Phase::Active && of_node.is_open());
        let health = Health::service(Arc::clone(&node), ready);
        Self { node, metrics: Metrics::new(), audit, ring: Ring::new(keys), reader: None, health, reflection: None }
    }

    /// Lets `ready` say whether new clients are welcome, for gRPC's health checks. Without it that is what the node itself says.
    #[must_use]
    pub fn with_readiness(self, ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { health: Health::service(Arc::clone(&self.node), Arc::new(ready)), ..self }
    }

    /// Describes the services to callers of gRPC's reflection that have a key.
    #[must_use]
    pub fn with_reflection(self) -> Self {
        Self { reflection: Some(reflection::service()), ..self }
    }

    /// Lets `reader` answer the calls of `reload`.
    #[must_use]
    pub fn with_reader(self, reader: mpsc::Sender<Reload>) -> Self {
        Self { reader: Some(reader), ..self }
    }

    /// Takes other keys from now on. Those that are the same go on, with what they used of their rate.
    pub fn replace_keys(&self, keys: &Keys) {
        self.ring.replace(keys);
    }

    /// Answers one request. How large its body may be is for the listener to say.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        if head.method == http::Method::GET && head.uri.path() == document::PATH {
            return respond(Ok(document::DOCUMENT.as_bytes().to_vec()));
        }
        let answer = match self.admit(&head) {
            Ok((caller, Route::Method(Method::Batch))) => Box::pin(self.run_batch_json(&caller, &body)).await,
            Ok((caller, Route::Method(method))) => self
                .call_json(&caller, method, &body)
                .await
                .map(|result| [RESULT, result.get().as_bytes(), b"}"].concat()),
            Ok((caller, Route::Pipeline)) => Box::pin(self.pipeline(&caller, &body)).await,
            Err(fault) => Err(fault),
        };
        respond(answer)
    }

    /// Decides whether a request leads to a call, by whom, and to which.
    fn admit(&self, head: &Parts) -> Result<(Caller, Route), Fault> {
        let route = Route::find(head.uri.path());
        let admitted = self.authenticate(head).and_then(|caller| {
            let route =
                route.ok_or_else(|| Fault::transport(StatusCode::NOT_FOUND, Refusal::MethodNotFound, METHODS))?;
            if head.method != http::Method::POST {
                return Err(Fault::transport(StatusCode::METHOD_NOT_ALLOWED, Refusal::BadRequest, "use POST"));
            }
            Ok((caller, route))
        });
        admitted.inspect_err(|fault| {
            let method = route.and_then(|route| if let Route::Method(method) = route { Some(method) } else { None });
            self.metrics.turned_away(method, fault);
        })
    }

    /// Finds on whose behalf a request is made.
    pub(crate) fn authenticate(&self, head: &Parts) -> Result<Caller, Fault> {
        let peer = head.extensions.get::<SocketAddr>().copied();
        // Any page a developer looks at can post to a loopback address; its browser then says whose page it is.
        if self.ring.is_open() && head.headers.contains_key(header::ORIGIN) {
            let detail = "without API keys, pages in a browser have no access";
            return Err(Fault::transport(StatusCode::FORBIDDEN, Refusal::PermissionDenied, detail));
        }
        let certificate = head.extensions.get::<CertificateName>().cloned();
        match self.ring.caller(secret(head).as_deref(), peer) {
            Ok(caller) => Ok(caller.with_certificate(certificate)),
            Err(fault) => {
                if self.audit != Audit::Off {
                    let stranger = Caller::stranger(peer).with_certificate(certificate);
                    Entry::default().write(&stranger, "", Some(&fault), Duration::ZERO);
                }
                Err(fault)
            }
        }
    }
}

/// What stands before the result of a call, as [`Reply::Result`] writes it.
const RESULT: &[u8] = br#"{"result":"#;

/// Who asked for another method is told which there are.
const METHODS: &str = "expected /api/ and publish, broadcast, subscribe, unsubscribe, disconnect, refresh, revoke, presence, \
                       presence_stats, history, history_remove, channels, connections, nodes, info, report, drain, rebalance, reload or batch";

impl Route {
    fn find(path: &str) -> Option<Self> {
        match path.strip_prefix("/api")? {
            "" | "/" => Some(Self::Pipeline),
            rest => Method::find(rest.strip_prefix('/')?).map(Self::Method),
        }
    }
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Takes the secret from where a request may carry it: `X-API-Key`, `Authorization: apikey …`, or `?api_key=…`.
fn secret(head: &Parts) -> Option<Vec<u8>> {
    if let Some(value) = head.headers.get(X_API_KEY) {
        return Some(value.as_bytes().to_vec());
    }
    if let Some(value) = head.headers.get(header::AUTHORIZATION) {
        let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("apikey").then(|| secret.trim().as_bytes().to_vec());
    }
    let mut pairs = head.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == "api_key").map(|(_, value)| percent_decoded(value))
}

/// Undoes the escapes of a query string.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let escaped = behind.get(..2).filter(|_| *first == b'%').and_then(|hex| str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &behind[2..];
            }
            None => {
                decoded.push(*first);
                rest = behind;
            }
        }
    }
    decoded
}

fn respond(answer: Result<Vec<u8>, Fault>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match answer {
        Ok(body) => *response.body_mut() = body.into(),
        Err(fault) => {
            match fault.status {
                StatusCode::UNAUTHORIZED => {
                    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("apikey"));
                }
                StatusCode::METHOD_NOT_ALLOWED => {
                    headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
                }
                _ => {}
            }
            if let Some(after) = fault.retry_after {
                headers.insert(header::RETRY_AFTER, (after.as_millis().div_ceil(1000) as u64).into());
            }
            *response.status_mut() = fault.status;
            *response.body_mut() = write(&Reply::<()>::Error(fault)).unwrap_or_default().into();
        }
    }
    response
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("node", &self.node).field("ring", &self.ring).finish_non_exhaustive()
    }
}
