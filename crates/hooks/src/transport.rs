//! One attempt to ask a backend, over HTTP or gRPC.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::config::Target;
use crate::event::Question;

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long an idle connection is kept: shorter than the two to five seconds after which common servers close it.
const IDLE: Duration = Duration::from_millis(1500);

/// How long a connection shared by many questions may be silent before it is asked for a sign of life, and the same for that.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Why an attempt brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// There is no connection: nothing was sent.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The connection ended halfway.
    #[error("connection broke: {0}")]
    Broken(String),
    /// There was no answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The backend, or a proxy before it, says that it cannot at the moment.
    #[error("status {0}")]
    Ill(String),
    /// The backend has a fault with this question.
    #[error("status {0}")]
    Failed(String),
    /// The answer makes no sense.
    #[error("bad answer: {0}")]
    BadAnswer(String),
}

/// A way to a backend; its connections are kept and shared.
pub(crate) enum Transport {
    Http { client: Client<Connector, Full<Bytes>>, uri: Uri },
    Grpc { client: Client<Connector, tonic::body::Body>, origin: Uri, service: String },
}

type Connector = HttpsConnector<HttpConnector>;

impl Transport {
    pub(crate) fn new(target: Target, tls: Option<ClientConfig>, connect_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        let tls = tls.unwrap_or_else(|| {
            let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.expect("ring has the default versions");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        });
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let mut builder = Client::builder(TokioExecutor::new());
        tune(&mut builder);
        match target {
            Target::Http(uri) => {
                let client = builder.build(https.enable_all_versions().wrap_connector(tcp));
                Self::Http { client, uri }
            }
            Target::Grpc(origin, service) => {
                let client = builder.http2_only(true).build(https.enable_http2().wrap_connector(tcp));
                Self::Grpc { client, origin, service }
            }
        }
    }

    /// Whether data goes as it is, not in JSON.
    pub(crate) fn is_binary(&self) -> bool {
        matches!(self, Self::Grpc { .. })
    }

    /// Asks once. Whoever gives up drops the future, and with it the request.
    pub(crate) async fn ask<Q: Question>(&self, question: &Q, headers: &HeaderMap) -> Result<Q::Response, Fault> {
        match self {
            Self::Http { client, uri } => {
                let body = serde_json::to_vec(question).map_err(|error| Fault::Failed(error.to_string()))?;
                let mut request = Request::new(Full::from(body));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = uri.clone();
                *request.headers_mut() = headers.clone();
                let json = HeaderValue::from_static("application/json");
                request.headers_mut().insert(ACCEPT, json.clone());
                request.headers_mut().insert(CONTENT_TYPE, json);
                request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(NAME));
                post(client, request).await
            }
            Self::Grpc { client, origin, service } => {
                let path = format!("{service}/{}", Q::EVENT.method());
                let path = path.parse().map_err(|error| Fault::Failed(format!("{error}")))?;
                let mut request = tonic::Request::new(question.clone());
                *request.metadata_mut() = MetadataMap::from_headers(headers.clone());
                let grpc = Grpc::with_origin(client.clone(), origin.clone());
                let mut grpc = grpc.max_decoding_message_size(MAX_ANSWER);
                grpc.ready().await.map_err(|error| Fault::Broken(causes(&error)))?;
                let codec = ProstCodec::<Q, Q::Response>::default();
                let answer = grpc.unary(request, path, codec).await;
                answer.map(tonic::Response::into_inner).map_err(|status| fault_of(&status))
            }
        }
    }
}

const NAME: &str = concat!("fanwire/", env!("CARGO_PKG_VERSION"));

fn tune(builder: &mut Builder) {
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(64)
        .http1_max_headers(64)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE);
}

async fn post<A: serde::de::DeserializeOwned>(
    client: &Client<Connector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<A, Fault> {
    let response = client.request(request).await.map_err(|error| match error.is_connect() {
        true => Fault::Unreachable(causes(&error)),
        false => Fault::Broken(causes(&error)),
    })?;
    let status = response.status();
    match status.as_u16() {
        200..=299 => {}
        // What overloaded servers and proxies without a server behind them say.
        429 | 502..=504 => return Err(Fault::Ill(status.to_string())),
        _ => return Err(Fault::Failed(status.to_string())),
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Fault::BadAnswer(format!("more than {MAX_ANSWER} bytes")),
        None => Fault::Broken(causes(&*error)),
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| Fault::BadAnswer(error.to_string()))
}

fn fault_of(status: &Status) -> Fault {
    let connect = |error: &(dyn Error + 'static)| {
        error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect())
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        if connect(error) {
            return Fault::Unreachable(causes(error));
        }
        if error.is::<hyper_util::client::legacy::Error>() || error.is::<hyper::Error>() {
            return Fault::Broken(causes(error));
        }
        cause = error.source();
    }
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted => Fault::Ill(text),
        Code::DeadlineExceeded => Fault::TimedOut,
        Code::OutOfRange | Code::DataLoss => Fault::BadAnswer(text),
        _ => Fault::Failed(text),
    }
}

/// An error with its causes, on one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
