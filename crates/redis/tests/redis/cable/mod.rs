//! A way to a server that can be cut, or hold back what is under way.

use std::net::SocketAddr;

use fanwire_redis::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::Server;

/// Carries connections to a server as long as it is whole. Ends with its owner.
pub(crate) struct Cable {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    cut: bool,
    /// Connections up to this number are held.
    held: usize,
    connections: usize,
}

impl Cable {
    pub(crate) async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = watch::Sender::<State>::default();
        let (shared, target) = (state.clone(), server.address());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if shared.borrow().cut {
                    continue;
                }
                shared.send_modify(|state| state.connections += 1);
                let (number, mut state) = (shared.borrow().connections, shared.subscribe());
                let carry = carry(near, target.clone(), number, shared.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry => {}
                        _ = state.wait_for(|state| state.cut) => {}
                    }
                });
            }
        });
        Self { address, state, task }
    }

    /// Cuts all connections, and those to come.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cut = true);
    }

    /// Holds what is sent to the server on the connections there are; later ones are free.
    pub(crate) fn hold(&self) {
        self.state.send_modify(|state| state.held = state.connections);
    }

    /// Carries again, also what was held.
    pub(crate) fn mend(&self) {
        self.state.send_modify(|state| (state.cut, state.held) = (false, 0));
    }

    /// The configuration of a node at this end.
    pub(crate) fn config(&self, prefix: &str) -> Config {
        Config { urls: vec![format!("redis://{}", self.address)], prefix: prefix.to_owned(), ..Config::default() }
    }
}

/// Carries both ways. What was sent arrives, also if the sender is gone meanwhile.
async fn carry(near: TcpStream, target: String, number: usize, mut state: watch::Receiver<State>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let ((mut requests, mut answers), (mut from, mut to)) = (near.into_split(), far.into_split());
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = requests.read(&mut buffer).await {
            let free = state.wait_for(|state| state.held < number).await.is_ok();
            if !free || to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let back = async {
        let _ = copy(&mut from, &mut answers).await;
        let _ = answers.shutdown().await;
    };
    tokio::join!(there, back);
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}
