//! Listening and accepting.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Node;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::arrival::Arrival;
use crate::metrics::Metrics;
use crate::{Limits, Proxies, Site, Tls};

/// A bound socket: connections wait in it until [`serve`] accepts them.
#[derive(Debug)]
pub struct Listener {
    listener: std::net::TcpListener,
    addr: SocketAddr,
    tls: Option<Arc<Tls>>,
    proxies: Proxies,
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The listener cannot be waited for.
    #[error("cannot wait for connections")]
    Wait(#[source] io::Error),
}

impl Listener {
    /// Listens on `addr`; port 0 is a free one.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`].
    pub fn bind(addr: SocketAddr) -> Result<Self, Error> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            // Both are inherited by every connection. A small buffer, so that the kernel hides little behind a client that does not
            // read; and what is written leaves at once.
            socket.set_send_buffer_size(64 * 1024)?;
            socket.set_tcp_nodelay(true)?;
            socket.bind(&addr.into())?;
            socket.listen(4096)?;
            socket.set_nonblocking(true)?;
            let listener = std::net::TcpListener::from(socket);
            let addr = listener.local_addr()?;
            Ok(Self { listener, addr, tls: None, proxies: Proxies::default() })
        };
        bind().map_err(|source| Error::Bind { addr, source })
    }

    /// Expects TLS of every connection.
    #[must_use]
    pub fn tls(self, tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Stands behind these balancers.
    #[must_use]
    pub fn behind(self, proxies: Proxies) -> Self {
        Self { proxies, ..self }
    }

    /// The address listened on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

/// What the connections of one listener share.
pub(crate) struct Shared {
    pub(crate) site: Site,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) proxies: Proxies,
    stopping: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the listener stops.
    pub(crate) async fn stopping(&self) {
        // Fails when the listener is gone, which is the same.
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }
}

/// Serves `site` on `listener` until `shutdown` is ready; then waits a little for requests that are being answered.
/// Client connections go on: [`Node::shut_down`] ends them.
///
/// # Errors
///
/// [`Error::Wait`].
pub async fn serve(
    listener: Listener,
    node: Arc<Node>,
    site: Site,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let default_limits = || {
        let mut limits = Limits { max_message_size: node.config().client.max_message_size, ..Limits::default() };
        limits.max_handshakes += node.handshakes_in_line();
        limits
    };
    let limits = site.own_limits().unwrap_or_else(default_limits);
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        site,
        limits,
        metrics: Metrics::new(),
        tls: listener.tls,
        proxies: listener.proxies,
        stopping,
    });
    let mut door = Door {
        listener: TcpListener::from_std(listener.listener).map_err(Error::Wait)?,
        permits: Arc::new(Semaphore::new(shared.limits.max_handshakes)),
        shared: Arc::clone(&shared),
        failing: false,
    };
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, permit) = tokio::select! {
            biased;
            () = shutdown.as_mut() => break,
            accepted = door.accept() => accepted,
        };
        let arrival = Arrival { stream, peer, permit, shared: Arc::clone(&shared), node: Arc::clone(&node) };
        if arrival.is_for_a_worker() {
            arrival.hand_over().await;
        } else {
            tokio::spawn(arrival.run());
        }
    }

    let Door { listener, permits, .. } = door;
    drop(listener);
    stop.send_replace(true);
    let all = u32::try_from(shared.limits.max_handshakes).unwrap_or(u32::MAX);
    if timeout(GRACE, permits.acquire_many(all)).await.is_err() {
        tracing::warn!("requests were still being answered at the end");
    }
    Ok(())
}

/// How long requests that are being answered may take once the listener stops.
const GRACE: Duration = Duration::from_secs(3);

/// Where connections come in, a bounded number at the same time.
struct Door {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
    failing: bool,
}

impl Door {
    /// Waits for room, then for a connection.
    async fn accept(&mut self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.failing = false;
                    return (stream, peer, permit);
                }
                // The peer left before its turn came.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => self.back_off(&error).await,
            }
        }
    }

    /// Waits a moment: most likely the process has no descriptor left, and asking again at once would only spin.
    async fn back_off(&mut self, error: &io::Error) {
        self.shared.metrics.accept_errors.increment(1);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "cannot accept connections");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connections_have_what_the_listener_was_given() {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let _peer = TcpStream::connect(listener.local_addr()).unwrap();
        listener.listener.set_nonblocking(false).unwrap();
        let (stream, _) = listener.listener.accept().unwrap();
        assert!(stream.nodelay().unwrap());
    }
}
