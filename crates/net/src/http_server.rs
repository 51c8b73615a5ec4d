//! Requests that are not openings of client connections.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use crate::ClientName;
use crate::server::Shared;
use crate::site::{BoxError, RpcBody, RpcHandler};

/// An answer on its way.
pub(crate) type Answer = BoxFuture<'static, Result<Response<AnswerBody>, Infallible>>;

/// How long a request may take to arrive and to be answered.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be idle between two requests. Longer than the pools of common HTTP clients keep theirs
/// busy, so that a request rarely meets a connection that is just closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long answers may still take once the connection is to end.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// The largest head of a request, in bytes, and the most headers in it.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// The requests that one connection of HTTP/2 may have under way.
const MAX_STREAMS: u32 = 256;

/// What a peer may send ahead, in bytes: on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// How long a connection of HTTP/2 may be silent before it is asked for a sign of life, and that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// hyper with bounds for HTTP/1. Whoever drives it sees to it that the head comes in time.
pub(crate) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_header_size(MAX_HEAD).max_headers(MAX_HEADERS);
    builder
}

/// The same for HTTP/1 and HTTP/2: the first bytes show which one is spoken. A head that does not come is [`Activity`]'s affair:
/// hyper would make a timer for each request. Answers are small, so head and body leave by send(2), which costs less than
/// writev(2).
fn either_version() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().header_read_timeout(None).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS).writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

/// Serves the requests of one connection until it ends, is idle for too long, or the listener stops.
pub(crate) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: SocketAddr,
    client: Option<ClientName>,
    shared: Arc<Shared>,
) {
    let activity = Arc::new(Activity::new());
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(name) = &client {
            request.extensions_mut().insert(name.clone());
        }
        let busy = Busy::new(&activity);
        let answer = answer(&shared, request, peer);
        async move { Ok::<_, Infallible>(answer.await?.map(|body| AnswerBody { _busy: Some(busy), ..body })) }
    });
    let builder = either_version();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Looked at when they have something to say, not with every request.
    let mut ends = FuturesUnordered::from_iter([activity.ceased().boxed(), shared.stopping().boxed()]);
    tokio::select! {
        biased;
        // How it ends is the peer's affair.
        _ = connection.as_mut() => return,
        _ = ends.next() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWERS, connection).await;
}

/// Whether anything is going on at a connection. HTTP/2 knows no idle timeout, and a peer may never say what it speaks.
struct Activity {
    begun: Instant,
    running: AtomicUsize,
    /// When an answer ended last, in milliseconds since the beginning.
    ended: AtomicU64,
}

/// One request that is being answered.
struct Busy(Arc<Activity>);

impl Activity {
    fn new() -> Self {
        Self { begun: Instant::now(), running: AtomicUsize::new(0), ended: AtomicU64::new(0) }
    }

    /// Waits until nothing has been going on for [`IDLE_TIMEOUT`].
    async fn ceased(&self) {
        loop {
            let ended = self.begun + Duration::from_millis(self.ended.load(Ordering::Acquire));
            let running = self.running.load(Ordering::Acquire) > 0;
            if !running && ended.elapsed() >= IDLE_TIMEOUT {
                return;
            }
            let since = if running { Instant::now() } else { ended };
            sleep_until(since + IDLE_TIMEOUT).await;
        }
    }
}

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let activity = &self.0;
        activity.ended.store(activity.begun.elapsed().as_millis() as u64, Ordering::Release);
        activity.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is answered: a page, or what a call says bit by bit.
pub(crate) struct AnswerBody {
    content: Either<Full<Bytes>, RpcBody>,
    /// Until the last byte is sent.
    _busy: Option<Busy>,
}

impl From<Full<Bytes>> for AnswerBody {
    fn from(page: Full<Bytes>) -> Self {
        Self { content: Either::Left(page), _busy: None }
    }
}

impl From<RpcBody> for AnswerBody {
    fn from(call: RpcBody) -> Self {
        Self { content: Either::Right(call), _busy: None }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.content).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// Answers one request by the page that is at its path.
pub(crate) fn answer(shared: &Arc<Shared>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    shared.metrics.http_requests.increment(1);
    let peer = shared.proxies.client(peer, request.headers());
    let shared = Arc::clone(shared);
    Box::pin(async move {
        let answered = AssertUnwindSafe(respond(&shared, request, peer)).catch_unwind().await;
        let mut response = answered.unwrap_or_else(|_| {
            shared.metrics.panics.increment(1);
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal error").map(Into::into)
        });
        // A worker's thread is for clients: one request for each connection.
        if shared.site.has_protocols() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    })
}

async fn respond(shared: &Shared, request: Request<Incoming>, peer: SocketAddr) -> Response<AnswerBody> {
    match shared.site.rpc_handler() {
        Some(handler) if is_rpc(&request) => call(handler, request, peer).await,
        _ => page(shared, request, peer).await.map(Into::into),
    }
}

/// Whether it is a call of gRPC.
fn is_rpc(request: &Request<Incoming>) -> bool {
    request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

async fn call(handler: &RpcHandler, request: Request<Incoming>, peer: SocketAddr) -> Response<AnswerBody> {
    if request.version() != Version::HTTP_2 {
        let message = "gRPC needs HTTP/2, and a listener that has no client protocols";
        return text(StatusCode::HTTP_VERSION_NOT_SUPPORTED, message).map(Into::into);
    }
    let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    request.extensions_mut().insert(peer);
    handler(request).await.map(Into::into)
}

async fn page(shared: &Shared, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
    let Some(page) = shared.site.page_at(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "there is nothing at this path");
    };
    let (head, body) = request.into_parts();
    let too_large = || text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    if body.size_hint().lower() > page.max_body as u64 {
        return too_large();
    }
    let mut collected = pin!(Limited::new(body, page.max_body).collect());
    // Most bodies came with their heads, and need no timer.
    let collected = match collected.as_mut().now_or_never() {
        Some(collected) => Ok(collected),
        None => timeout(ANSWER_TIMEOUT, collected).await,
    };
    let body = match collected {
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
