//! HTTP requests, over connections that are used again.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
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
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let tls =
            if base.scheme_str() == Some("https") { roots.client() } else { tls::trusting(RootCertStore::empty()) };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls?).https_or_http().enable_http1().wrap_connector(tcp);
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
