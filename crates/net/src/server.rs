//! Listening and accepting.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Node;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::arrival::Arrival;
use crate::metrics::Metrics;
use crate::{Limits, Proxies, Site, Tls};

/// A bound socket: connections wait in it until [`serve`] accepts them.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
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
            let listener = TcpListener::from(socket);
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
        listener: wait_with_tokio(listener.listener).map_err(Error::Wait)?,
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
    listener: AsyncFd<TcpListener>,
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
            match self.listener.async_io(Interest::READABLE, accept).await {
                Ok((stream, peer)) => {
                    self.failing = false;
                    return (stream, peer, permit);
                }
                // The peer left before its turn came.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
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

#[expect(deprecated, reason = "it is unsound for types that do not keep their descriptor, which this one does")]
fn wait_with_tokio(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::with_interest(listener, Interest::READABLE)
}

/// Accepts a connection without telling tokio: the worker that gets it does, and once is enough.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| peer.try_into().ok()).ok_or(ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), peer))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn connections_have_what_the_listener_was_given() {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let peer = TcpStream::connect(listener.local_addr()).unwrap();
        listener.listener.set_nonblocking(false).unwrap();
        let (mut stream, from) = accept(&listener.listener).unwrap();
        assert_eq!(from, peer.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
