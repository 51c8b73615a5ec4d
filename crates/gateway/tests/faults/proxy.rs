//! The way from a gateway to Redis, in the hands of the test.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::resp;

/// A proxy that ends with its owner. It knows subscriber connections by their first SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// Subscriber connections made before this many cuts are closed.
    cuts: u32,
    /// Subscriber connections are closed as soon as they show themselves.
    closed: bool,
    /// The subscriber connections of the moment lead to this server.
    strangers: Option<(u32, SocketAddr)>,
}

impl Proxy {
    /// Starts a proxy to a server.
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let orders = watch::Sender::new(Orders::default());
        let subscribed = orders.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // How a connection ends is the gateway's affair.
                tokio::spawn(carry(client, server, subscribed.subscribe()));
            }
        });
        Self { address, orders, task }
    }

    /// Where the gateway is to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the subscriber connections, and each new one until [`Self::open`].
    pub(crate) fn close(&self) {
        self.orders.send_modify(|orders| {
            orders.cuts += 1;
            orders.closed = true;
        });
    }

    /// Lets subscriber connections through again.
    pub(crate) fn open(&self) {
        self.orders.send_modify(|orders| orders.closed = false);
    }

    /// Leads the subscriber connections of the moment to another server: they live on there, and carry nothing.
    pub(crate) fn mislead(&self, server: SocketAddr) {
        self.orders.send_modify(|orders| {
            let number = orders.strangers.map_or(0, |(number, _)| number);
            orders.strangers = Some((number + 1, server));
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.close();
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut orders: watch::Receiver<Orders>) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let at_first = *orders.borrow_and_update();
    let mut strangers = at_first.strangers.map_or(0, |(number, _)| number);
    let mut subscriber = false;
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 64 * 1024]);
    loop {
        select! {
            read = client.read(&mut up) => {
                let read = &up[..read?];
                if read.is_empty() {
                    return Ok(());
                }
                subscriber |= read.windows(9).any(|word| word.eq_ignore_ascii_case(b"SUBSCRIBE"));
                if subscriber && orders.borrow().closed {
                    return Ok(());
                }
                server.write_all(read).await?;
            }
            read = server.read(&mut down) => {
                let read = &down[..read?];
                if read.is_empty() {
                    return Ok(());
                }
                client.write_all(read).await?;
            }
            changed = orders.changed() => {
                changed.map_err(io::Error::other)?;
                let orders = *orders.borrow_and_update();
                if subscriber && orders.cuts > at_first.cuts {
                    return Ok(());
                }
                if let Some((number, address)) = orders.strangers.filter(|(number, _)| *number > strangers) {
                    strangers = number;
                    if subscriber {
                        server = stranger(address).await?;
                    }
                }
            }
        }
    }
}

/// A connection to another server, past its greeting.
async fn stranger(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&resp::encode(&["HELLO", "3"])).await?;
    // The answer is a list of a known end.
    let mut answer = Vec::new();
    while !answer.ends_with(b"modules\r\n*0\r\n") {
        answer.push(stream.read_u8().await?);
    }
    Ok(stream)
}
