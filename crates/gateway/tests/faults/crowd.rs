//! Clients that nobody judges: many, on one gateway, who stay until they are sent away.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::within;

/// How they treat what they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    /// They read everything, and answer pings.
    Full,
    /// They read nothing.
    None,
}

/// Clients that end with their owner.
#[derive(Debug)]
pub(crate) struct Crowd(Vec<Member>);

#[derive(Debug)]
struct Member {
    port: u16,
    task: JoinHandle<()>,
}

/// How many connect at the same moment.
const AT_ONCE: usize = 64;

/// How long all of that may take for one of them.
const PATIENCE: Duration = Duration::from_secs(30);

impl Crowd {
    /// Waits until so many are subscribed, each to the channel of its number.
    pub(crate) async fn gather(
        gateway: SocketAddr,
        size: usize,
        connect: Value,
        channel: impl Fn(usize) -> String,
        attention: Attention,
    ) -> Self {
        let members = stream::iter((0..size).map(|number| {
            let (connect, channel) = (connect.clone(), channel(number));
            async move { Member::join(gateway, &connect, &channel, attention).await }
        }));
        Self(members.buffered(AT_ONCE).collect().await)
    }

    /// How many of them are not there any more.
    pub(crate) fn left(&self) -> usize {
        self.0.iter().filter(|member| member.task.is_finished()).count()
    }

    /// The ports they come from, as a set of nftables.
    pub(crate) fn ports(&self) -> String {
        let ports: Vec<_> = self.0.iter().map(|member| member.port.to_string()).collect();
        format!("{{ {} }}", ports.join(", "))
    }
}

/// Connects, and returns the answer too. `buffer`: the bytes that the kernel may keep for whoever does not read.
pub(crate) async fn open(gateway: SocketAddr, connect: &Value, buffer: Option<u32>) -> (Socket, Value) {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).expect("a small buffer");
    }
    let stream = within(PATIENCE, "a connection", socket.connect(gateway)).await.expect("connected");
    let opened = client_async(format!("ws://{gateway}/connection/websocket"), stream);
    let (mut socket, _) = within(PATIENCE, "the opening", opened).await.expect("opened");
    socket.send(Message::text(json!({ "id": 1, "connect": connect }).to_string())).await.expect("sent");
    let answer = reply(&mut socket, 1).await;
    (socket, answer)
}

type Socket = WebSocketStream<TcpStream>;

/// The answer to a request.
async fn reply(socket: &mut Socket, id: u64) -> Value {
    within(PATIENCE, "an answer", async {
        while let Some(Ok(message)) = socket.next().await {
            let lines = message.to_text().unwrap_or_default().lines().map(serde_json::from_str::<Value>);
            if let Some(reply) = lines.flatten().find(|reply| reply["id"] == id) {
                return reply;
            }
        }
        panic!("the connection has ended");
    })
    .await
}

impl Member {
    async fn join(gateway: SocketAddr, connect: &Value, channel: &str, attention: Attention) -> Self {
        let small = (attention == Attention::None).then_some(4096);
        let (mut socket, answer) = open(gateway, connect, small).await;
        assert!(answer["connect"].is_object(), "{answer}");
        let subscribe = json!({ "id": 2, "subscribe": { "channel": channel } }).to_string();
        socket.send(Message::text(subscribe)).await.expect("sent");
        let answer = reply(&mut socket, 2).await;
        assert!(answer["subscribe"].is_object(), "{answer}");
        let port = socket.get_ref().local_addr().expect("an address").port();
        let task = tokio::spawn(async move {
            if attention == Attention::None {
                std::future::pending::<()>().await;
            }
            while let Some(Ok(message)) = socket.next().await {
                let pinged = message.to_text().is_ok_and(|text| text.lines().any(|line| line == "{}"));
                if pinged && socket.send(Message::text("{}")).await.is_err() {
                    return;
                }
            }
        });
        Self { port, task }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}
