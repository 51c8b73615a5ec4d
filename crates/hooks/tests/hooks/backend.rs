//! A backend of the test's own, on a free port of the loopback.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// What a backend was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("questions are JSON")
    }
}

/// What a backend does with the n-th question.
pub(crate) type Answer = Arc<dyn Fn(usize) -> BoxFuture<'static, Said> + Send + Sync>;

/// What a backend says.
pub(crate) enum Said {
    Json(&'static str),
    Status(u16, &'static str),
    Body(Bytes),
    Redirect(String),
    /// A gRPC message.
    Message(Vec<u8>),
    /// A gRPC status.
    Code(u8),
}

/// A backend; ends with its value.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    serving: AbortHandle,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One that says the same to every question.
pub(crate) async fn saying(json: &'static str) -> Backend {
    serve(Arc::new(move |_| Box::pin(std::future::ready(Said::Json(json))))).await
}

/// One that speaks HTTP/1 and HTTP/2.
pub(crate) async fn serve(answer: Answer) -> Backend {
    listen(answer, None).await
}

/// The same over TLS, where the client chooses the version.
pub(crate) async fn serve_secure(answer: Answer, tls: TlsAcceptor) -> Backend {
    listen(answer, Some(tls)).await
}

async fn listen(answer: Answer, tls: Option<TlsAcceptor>) -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    let (asked, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let serving = tokio::spawn(accept(listener, tls, answer, Arc::clone(&asked), Arc::clone(&connections)));
    Backend { address, asked, connections, serving: serving.abort_handle() }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    answer: Answer,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.fetch_add(1, Ordering::Relaxed);
        let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
        let service =
            service_fn(move |request: Request<Incoming>| respond(request, Arc::clone(&answer), Arc::clone(&asked)));
        let tls = tls.clone();
        tasks.spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            let _ = match tls {
                None => builder.serve_connection(TokioIo::new(stream), service).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => return,
                },
            };
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Answer,
    asked: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let number = {
        let mut asked = asked.lock();
        asked.push(Asked { path: head.uri.path().to_owned(), headers, body });
        asked.len() - 1
    };
    let full = |body: Bytes| Full::new(body).boxed();
    let mut response = Response::new(full(Bytes::new()));
    match answer(number).await {
        Said::Json(json) => *response.body_mut() = full(json.into()),
        Said::Body(body) => *response.body_mut() = full(body),
        Said::Status(status, body) => {
            *response.status_mut() = StatusCode::from_u16(status).expect("the test names a status");
            *response.body_mut() = full(body.into());
        }
        Said::Redirect(to) => {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert("location", to.parse().expect("the test names a URL"));
        }
        Said::Message(message) => {
            let mut data = BytesMut::new();
            data.put_u8(0);
            data.put_u32(message.len() as u32);
            data.put_slice(&message);
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
            let frames = [Ok(Frame::data(data.freeze())), Ok(Frame::trailers(trailers))];
            *response.body_mut() = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        Said::Code(code) => {
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            response.headers_mut().insert("grpc-status", HeaderValue::from(u16::from(code)));
        }
    }
    Ok(response)
}
