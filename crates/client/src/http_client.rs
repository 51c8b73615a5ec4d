//! HTTP requests, over connections that are used again.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::builderstates::WantsProtocols1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use tokio::time::timeout;

use crate::{BoxError, Error, Roots, tls};

/// How long an answer may take. The gateway gives silent nodes a second, and publishing some.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept: less than the 75 s after which the gateway ends it.
const IDLE: Duration = Duration::from_secs(60);

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Posts JSON. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    /// For a server at `base`; the authorities are only loaded if it is an `https` address.
    pub(crate) fn new(base: &Uri, roots: &Roots) -> Result<Self, Error> {
        let (builder, tcp) = connector(base, roots)?;
        let connector = builder.enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { client })
    }

    /// Posts a body, and reads the whole answer.
    pub(crate) async fn post(
        &self,
        url: &str,
        key: Option<&HeaderValue>,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let unreachable = |source: BoxError| Error::Unreachable { url: url.to_owned(), source };
        let mut request = Request::post(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let request = request.body(Full::from(body)).map_err(|error| Error::Usage(format!("{url}: {error}")))?;
        let answered = timeout(PATIENCE, async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
            Ok((status, body))
        });
        match answered.await {
            Ok(answer) => answer.map_err(unreachable),
            Err(late) => Err(unreachable(late.into())),
        }
    }
}

/// Connects to `base`, with TLS if it is an `https` address; the version of HTTP is still to be chosen.
pub(crate) fn connector(
    base: &Uri,
    roots: &Roots,
) -> Result<(HttpsConnectorBuilder<WantsProtocols1>, HttpConnector), Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    let tls = if base.scheme_str() == Some("https") { roots.client() } else { tls::trusting(RootCertStore::empty()) };
    Ok((HttpsConnectorBuilder::new().with_tls_config(tls?).https_or_http(), tcp))
}

/// Reads the address of a control API: without `/api` and without a slash at the end.
pub(crate) fn base(url: &str) -> Result<(String, Uri), Error> {
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix("/api").unwrap_or(base).to_owned();
    let uri = base.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    let uri = uri.ok_or_else(|| Error::Usage(format!("{url:?} is no http:// or https:// address")))?;
    Ok((base, uri))
}

/// Reads an API key.
pub(crate) fn key(key: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(key).map_err(|_| Error::Usage("this is no API key".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
