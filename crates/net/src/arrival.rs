//! An accepted connection on its way to a worker, or to HTTP alone.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use fanwire_node::Node;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::server::Shared;
use crate::tls::{self, Failure, Tls};
use crate::{handshake, http_server, proxies};

/// An accepted connection. Whatever comes before HTTP happens in a task of its own, not on a worker, whose clients a flood of
/// TLS handshakes would keep waiting.
pub(crate) struct Arrival {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: Arc<Node>,
}

impl Arrival {
    /// Whether a worker can have it as it is.
    pub(crate) fn is_for_a_worker(&self) -> bool {
        let shared = &self.shared;
        shared.site.has_protocols() && shared.tls.is_none() && !shared.proxies.speak_the_protocol()
    }

    /// Gives it to a worker.
    pub(crate) async fn hand_over(self) {
        self.give(None).await;
    }

    /// Does what comes before HTTP, and passes it on.
    pub(crate) async fn run(mut self) {
        let Some(peer) = self.introduced().await else { return };
        self.peer = peer;
        let has_protocols = self.shared.site.has_protocols();
        match self.shared.tls.clone() {
            None if has_protocols => self.give(None).await,
            None => http_server::run(self.stream, self.peer, None, self.shared).await,
            Some(tls) if has_protocols => self.secure(&tls).await,
            Some(tls) => self.secure_http(&tls).await,
        }
    }

    /// Where the connection comes from, if a balancer says so as it should. A header from anybody else is no beginning of
    /// anything, and fails as such.
    async fn introduced(&self) -> Option<SocketAddr> {
        let (shared, peer) = (&self.shared, self.peer);
        if !shared.proxies.speak_the_protocol() || !shared.proxies.trust(peer.ip()) {
            return Some(peer);
        }
        match timeout(shared.limits.handshake_timeout, proxies::read_header(&self.stream)).await {
            Ok(Ok(client)) => Some(client.unwrap_or(peer)),
            _ => {
                shared.metrics.proxy_headers_refused.increment(1);
                tracing::debug!(%peer, "no PROXY header from a balancer");
                None
            }
        }
    }

    async fn secure(self, tls: &Tls) {
        let limit = self.shared.limits.handshake_timeout;
        let accepted = timeout(limit, tls::accept(&self.stream, tls.for_workers())).await;
        if let Some(session) = tell(&self.shared, self.peer, accepted.unwrap_or(Err(Failure::Timeout))) {
            self.give(Some(Box::new(session))).await;
        }
    }

    async fn secure_http(self, tls: &Tls) {
        let Self { stream, peer, shared, permit, .. } = self;
        let limit = shared.limits.handshake_timeout;
        let accepted = timeout(limit, tls::accept_http(stream, tls.for_http())).await;
        if let Some((stream, client)) = tell(&shared, peer, accepted.unwrap_or(Err(Failure::Timeout))) {
            http_server::run(stream, peer, client, shared).await;
        }
        drop(permit);
    }

    async fn give(self, session: Option<Box<tls::Session>>) {
        let Self { stream, peer, permit, shared, node } = self;
        let Ok(stream) = stream.into_std() else { return };
        let serve = move |worker: &_, seat| {
            let worker = Rc::clone(worker);
            tokio::task::spawn_local(handshake::run((stream, session), peer, worker, (seat, permit), shared));
        };
        node.take_seat().run(serve).await;
    }
}

/// Counts a handshake.
fn tell<T>(shared: &Shared, peer: SocketAddr, outcome: Result<T, Failure>) -> Option<T> {
    match outcome {
        Ok(accepted) => {
            shared.metrics.tls.done();
            Some(accepted)
        }
        Err(failure) => {
            shared.metrics.tls.failed(&failure);
            tracing::debug!(%peer, error = %failure, "no TLS connection");
            None
        }
    }
}
