//! Requests that are not openings of client connections.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::server::Shared;

/// An answer on its way.
pub(crate) type Answer = BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>>;

/// How long a request may take to arrive and to be answered.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be idle between two requests. Longer than the pools of common HTTP clients keep theirs
/// busy, so that a request rarely meets a connection that is just closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// hyper with bounds: 8 KiB and 64 headers for a request's head, which must come in time.
pub(crate) fn builder(head_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(8 * 1024)
        .max_header_size(8 * 1024)
        .max_headers(64);
    builder
}

/// Serves the requests of one connection until it ends, or the listener does.
pub(crate) async fn run(stream: TcpStream, peer: SocketAddr, _permit: OwnedSemaphorePermit, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(&shared, request, peer));
    let mut connection = pin!(builder(IDLE_TIMEOUT).serve_connection(TokioIo::new(stream), service));
    // How it ends is the peer's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shared.stopping() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Answers one request by the page that is at its path.
pub(crate) fn answer(shared: &Arc<Shared>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    shared.metrics.http_requests.increment(1);
    let shared = Arc::clone(shared);
    Box::pin(async move {
        let answered = AssertUnwindSafe(respond(&shared, request, peer)).catch_unwind().await;
        let mut response = answered.unwrap_or_else(|_| {
            shared.metrics.panics.increment(1);
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        });
        // A worker's thread is for clients: one request for each connection.
        if shared.site.has_protocols() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    })
}

async fn respond(shared: &Shared, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
    let Some(page) = shared.site.page_at(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "there is nothing at this path");
    };
    let (head, body) = request.into_parts();
    let too_large = || text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    if body.size_hint().lower() > page.max_body as u64 {
        return too_large();
    }
    let body = match timeout(ANSWER_TIMEOUT, Limited::new(body, page.max_body).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the body is incomplete"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let mut request = Request::from_parts(head, body);
    request.extensions_mut().insert(peer);
    (page.handler)(request).await.map(Full::new)
}

/// A short answer for people.
pub(crate) fn text(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(message.into().into_owned() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
