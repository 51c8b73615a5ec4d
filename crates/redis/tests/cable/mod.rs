//! A way to a server that can be cut.

use std::net::SocketAddr;

use fanwire_redis::Config;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::Server;

/// Carries connections to a server as long as it is whole. Ends with its owner.
pub(crate) struct Cable {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Cable {
    pub(crate) async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let whole = watch::Sender::new(true);
        let (state, target) = (whole.subscribe(), server.address());
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut state, target) = (state.clone(), target.clone());
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let carry = async {
                        let mut far = TcpStream::connect(target).await?;
                        copy_bidirectional(&mut near, &mut far).await
                    };
                    // However it ends, both ends are closed.
                    tokio::select! {
                        _ = carry => {}
                        _ = state.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self { address, whole, task }
    }

    /// Cuts all connections, and those to come.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Carries again.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }

    /// The configuration of a node at this end.
    pub(crate) fn config(&self, prefix: &str) -> Config {
        Config { urls: vec![format!("redis://{}", self.address)], prefix: prefix.to_owned(), ..Config::default() }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}
