//! A TCP proxy between two servers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on, and from some moment on holds back what the target sends.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    held: Arc<watch::Sender<bool>>,
    _task: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let held = Arc::new(watch::Sender::new(false));
        let mut task = JoinSet::new();
        let gate = Arc::clone(&held);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let address = SocketAddr::from(([127, 0, 0, 1], target));
                let Ok(server) = TcpStream::connect(address).await else { continue };
                connections.spawn(pass(client, server, gate.subscribe()));
            }
        });
        Self { port, held, _task: task }
    }

    /// From now on nothing of the target gets through.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }
}

async fn pass(client: TcpStream, server: TcpStream, mut held: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 || held.wait_for(|held| !held).await.is_err() {
                return Ok(());
            }
            to_client.write_all(&buffer[..count]).await?;
        }
    };
    let _: Result<(), std::io::Error> = tokio::select! { end = up => end, end = down => end };
}
