//! From a connection on its worker to an open client connection, or to an HTTP answer.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_node::{Node, Protocol, Seat, Session, Worker};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::connection::Connection;
use crate::http_io::HttpIo;
use crate::http_server::{self, ANSWER_TIMEOUT, AnswerBody};
use crate::metrics::Handshake;
use crate::server::Shared;
use crate::socket::{Duplex, TcpSocket};
use crate::tls::{Session as TlsSession, TlsSocket};
use crate::upgrade::{self, Refused};

/// Answers the one request of a connection, on the worker's thread. If it opens a client connection, that goes on in a
/// task of its own: this one's future holds all of the HTTP machinery.
///
/// The seat and the permit are held until then.
pub(crate) async fn run(
    (stream, tls): (TcpStream, Option<Box<TlsSession>>),
    peer: SocketAddr,
    worker: Rc<Worker>,
    (_seat, _permit): (Seat, OwnedSemaphorePermit),
    shared: Arc<Shared>,
) {
    let answering = async {
        let tcp = TcpSocket::new(tokio::net::TcpStream::from_std(stream).ok()?);
        match tls {
            None => answer(tcp, peer, &worker, &shared).await,
            Some(session) => answer(TlsSocket::new(tcp, session), peer, &worker, &shared).await,
        }
    };
    let outcome = match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => {
            shared.metrics.panics.increment(1);
            Some(Handshake::Error)
        }
    };
    if let Some(outcome) = outcome {
        shared.metrics.handshake(outcome);
    }
}

/// What the service tells the task that drives it.
struct Exchange {
    deadline: Cell<Instant>,
    /// What became of the request; `None` if it is for an HTTP endpoint.
    outcome: Cell<Option<Handshake>>,
    opened: RefCell<Option<Opening>>,
}

/// A connection about to open.
struct Opening {
    protocol: &'static str,
    session: Box<dyn Session>,
    /// Those headers of the request that the node has a use for.
    headers: Vec<(String, String)>,
}

async fn answer<S: Duplex + Unpin>(
    socket: S,
    peer: SocketAddr,
    worker: &Rc<Worker>,
    shared: &Arc<Shared>,
) -> Option<Handshake> {
    let exchange = Rc::new(Exchange {
        deadline: Cell::new(Instant::now() + shared.limits.handshake_timeout),
        outcome: Cell::new(Some(Handshake::Error)),
        opened: RefCell::default(),
    });
    let service = service_fn({
        let (exchange, shared, node) = (Rc::clone(&exchange), Arc::clone(shared), Arc::clone(worker.node()));
        move |request| {
            let (exchange, shared, node) = (Rc::clone(&exchange), Arc::clone(&shared), Arc::clone(&node));
            async move { exchange.serve(request, peer, &shared, &node).await }.boxed_local()
        }
    });
    let http = http_server::builder();
    let mut connection = http.serve_connection(HttpIo::new(socket), service);
    loop {
        let served = timeout_at(exchange.deadline.get(), poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
        match served {
            Ok(Ok(())) => break,
            Ok(Err(_)) => return Some(Handshake::Error),
            // An HTTP endpoint has more time.
            Err(_) if exchange.deadline.get() > Instant::now() => {}
            Err(_) => return exchange.outcome.get().map(|_| Handshake::Timeout),
        }
    }
    let parts = connection.into_parts();
    let HttpIo { socket, rest } = parts.io;
    if let Some(Opening { protocol, session, headers }) = exchange.opened.take() {
        // A copy: even an empty slice of it would keep hyper's whole read buffer.
        let early = [&parts.read_buf[..], &rest].concat().into();
        let client = worker.open(protocol, session, socket.clone());
        client.introduce(headers);
        tokio::task::spawn_local(Connection::new(client, socket, early, Arc::clone(shared)).run());
    } else {
        socket.shutdown(Shutdown::Write);
    }
    exchange.outcome.get()
}

impl Exchange {
    async fn serve(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        shared: &Arc<Shared>,
        node: &Node,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let Some(protocol) = shared.site.protocol_at(request.uri().path()) else {
            self.outcome.set(None);
            self.deadline.set(Instant::now() + ANSWER_TIMEOUT);
            return http_server::answer(shared, request, peer).await;
        };
        let (head, _) = request.into_parts();
        let response: Response<Full<Bytes>> = match self.open(&head, peer, protocol, shared, node).await {
            Ok(response) => {
                self.outcome.set(Some(Handshake::Accepted));
                response
            }
            Err(refused) => {
                self.outcome.set(Some(Handshake::Rejected));
                refused.into()
            }
        };
        Ok(response.map(Into::into))
    }

    async fn open(
        &self,
        head: &Parts,
        peer: SocketAddr,
        protocol: &Arc<dyn Protocol>,
        shared: &Shared,
        node: &Node,
    ) -> Result<Response<Full<Bytes>>, Refused> {
        // Before anything that costs more: a storm is answered, and does not keep the clients from being served.
        node.admit_handshake().await.map_err(Refused::too_many)?;
        if shared.is_stopping() {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "this node is going down"));
        }
        if !node.is_open() {
            let message = "this node hands its clients over to others";
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        let (session, response) = upgrade::open(
            head,
            shared.proxies.client(peer, &head.headers),
            &**protocol,
            &node.config().client.origins,
        )?;
        let headers = node.hooks().map(|hooks| kept(&head.headers, &hooks.keeps().headers));
        let headers = headers.unwrap_or_default();
        *self.opened.borrow_mut() = Some(Opening { protocol: protocol.name(), session, headers });
        Ok(response)
    }
}

/// The headers of these names, as far as they are text.
fn kept(headers: &HeaderMap, names: &[String]) -> Vec<(String, String)> {
    let mut kept = Vec::new();
    for name in names {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        kept.extend(values.map(|value| (name.clone(), value.to_owned())));
    }
    kept
}
