//! Clients: each on one channel, with a foreign WebSocket library. They write down what they see, recover, and go to another
//! node when a connection ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire_testkit::oracle::{At, Event};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::publisher::Nodes;

/// A client that ends with its owner.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) name: String,
    pub(crate) channel: String,
    notes: Arc<Mutex<Notes>>,
    /// Set when the client is to leave.
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What a client wrote down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// All it saw, in order.
    pub(crate) events: Vec<(Instant, Event)>,
    /// The last publication.
    pub(crate) last: Option<u64>,
    /// Where it is subscribed.
    pub(crate) node: Option<SocketAddr>,
    /// Why it has given up: what an SDK would take for the end.
    pub(crate) dead: Option<String>,
}

/// How clients behave: restless ones leave and come back now and then, half of the times the channel, half of the times
/// the node. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners(Arc<AtomicBool>);

impl Manners {
    /// Makes them restless, or calm again.
    pub(crate) fn restless(&self, restless: bool) {
        self.0.store(restless, Ordering::Relaxed);
    }
}

impl Subscriber {
    /// Lets a client connect, at first to a certain node.
    pub(crate) fn start(name: String, channel: String, nodes: &Nodes, first: SocketAddr, manners: &Manners) -> Self {
        let notes = Arc::<Mutex<Notes>>::default();
        let (leave, leaving) = watch::channel(false);
        let client = Client {
            channel: channel.clone(),
            notes: Arc::clone(&notes),
            nodes: nodes.clone(),
            manners: manners.clone(),
            leaving,
            position: None,
            requests: 0,
            failures: 0,
            retry_after: None,
            again: None,
            live: false,
        };
        Self { name, channel, notes, leave, task: tokio::spawn(client.run(first)) }
    }

    /// Whether it is subscribed.
    pub(crate) fn is_live(&self) -> bool {
        self.notes.lock().node.is_some()
    }

    /// What it wrote down.
    pub(crate) fn notes<T>(&self, look: impl FnOnce(&Notes) -> T) -> T {
        look(&self.notes.lock())
    }

    /// How it is, for whoever has to find out what is wrong.
    pub(crate) fn state(&self) -> String {
        let Self { name, channel, .. } = self;
        self.notes(|Notes { events, last, node, dead }| {
            let now = Instant::now();
            let ago = |(at, event): &(Instant, Event)| format!("{:?} ago {event:?}", now - *at);
            let latest: Vec<_> = events.iter().rev().take(4).map(ago).collect();
            format!("{name} on {channel}: at {node:?}, last {last:?}, dead {dead:?}, {latest:?}")
        })
    }

    /// Tells it to leave, and waits until it has.
    pub(crate) async fn stop(mut self) -> (String, String, Notes) {
        self.leave.send_replace(true);
        let _ = timeout(Duration::from_secs(10), &mut self.task).await;
        let notes = std::mem::take(&mut *self.notes.lock());
        (std::mem::take(&mut self.name), std::mem::take(&mut self.channel), notes)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Client {
    channel: String,
    notes: Arc<Mutex<Notes>>,
    nodes: Nodes,
    manners: Manners,
    leaving: watch::Receiver<bool>,
    position: Option<At>,
    requests: u32,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// The node has said when to come back.
    retry_after: Option<Duration>,
    /// When to ask for the subscription again.
    again: Option<Instant>,
    /// The node has confirmed the subscription. What comes without is left over from the one before.
    live: bool,
}

/// A message of the node.
#[derive(Deserialize)]
struct Reply {
    error: Option<Refused>,
    subscribe: Option<Subscribed>,
    push: Option<Push>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    temporary: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subscribed {
    epoch: String,
    offset: u64,
    positioned: bool,
    recovered: bool,
    was_recovering: bool,
    publications: Vec<Publication>,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "pub")]
    publication: Option<Publication>,
    unsubscribe: Option<Unsubscribed>,
}

#[derive(Deserialize)]
struct Publication {
    data: Data,
    #[serde(default)]
    offset: u64,
}

#[derive(Deserialize)]
struct Data {
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Unsubscribed {
    code: u32,
}

/// How long a step of the opening may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a node may be silent: it pings every 25 s.
const SILENCE: Duration = Duration::from_secs(35);

/// The time between two attempts is random, from nothing to a ceiling that grows from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long restless clients stay, on the average.
const UNREST: Duration = Duration::from_secs(5);

/// The code of a connection that ended without one.
const ABNORMAL: u32 = 1006;

impl Client {
    async fn run(mut self, first: SocketAddr) {
        let mut node = first;
        let mut leaving = self.leaving.clone();
        loop {
            let connected = select! {
                code = self.connection(node) => code,
                _ = leaving.wait_for(|leave| *leave) => return,
            };
            let code = connected.unwrap_or(ABNORMAL);
            if self.live {
                self.ended(Event::Disconnected { code });
            }
            if self.notes.lock().dead.is_some() {
                return;
            }
            let pause = self.pause();
            sleep(self.retry_after.take().unwrap_or(pause)).await;
            node = self.nodes.pick(Some(node)).public;
        }
    }

    /// Lives on one connection; returns the code of its end.
    async fn connection(&mut self, node: SocketAddr) -> Option<u32> {
        let stream = timeout(PATIENCE, TcpStream::connect(node)).await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        let opened = client_async(format!("ws://{node}/connection/websocket"), stream);
        let (mut socket, _) = match timeout(PATIENCE, opened).await.ok()? {
            Ok(opened) => opened,
            Err(Error::Http(answer)) => {
                let after = answer.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
                self.retry_after = Some(Duration::from_secs(after));
                return None;
            }
            Err(_) => return None,
        };
        self.again = None;
        let connect = format!("{}\n{}", json!({ "id": 1, "connect": {} }), self.subscribe());
        socket.send(Message::text(connect)).await.ok()?;
        loop {
            let (again, restless) = (self.again, self.restless());
            select! {
                message = timeout(SILENCE, socket.next()) => match message.ok()?? {
                    Ok(Message::Text(text)) => {
                        for line in text.lines() {
                            self.take(line, node, &mut socket).await?;
                        }
                    }
                    Ok(Message::Close(frame)) => return frame.map(|frame| u16::from(frame.code).into()),
                    Ok(_) => {}
                    Err(_) => return None,
                },
                () = sleep_until(again.unwrap_or_else(far_away)), if again.is_some() => {
                    self.again = None;
                    let subscribe = self.subscribe();
                    socket.send(Message::text(subscribe)).await.ok()?;
                }
                () = sleep_until(restless.unwrap_or_else(far_away)), if restless.is_some() => {
                    if self.restless().is_none() {
                        continue;
                    }
                    if fastrand::bool() {
                        return None;
                    }
                    self.requests += 1;
                    let leave = json!({ "id": self.requests + 1, "unsubscribe": { "channel": self.channel } });
                    self.ended(Event::Unsubscribed { code: 0 });
                    let subscribe = self.subscribe();
                    socket.send(Message::text(format!("{leave}\n{subscribe}"))).await.ok()?;
                }
            }
        }
    }

    /// Takes one message. `None`: the connection is of no more use.
    async fn take(&mut self, line: &str, node: SocketAddr, socket: &mut WebSocketStream<TcpStream>) -> Option<()> {
        if line == "{}" {
            return socket.send(Message::text("{}")).await.ok();
        }
        let reply: Reply = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        match reply {
            Reply { push: Some(Push { publication: Some(publication), .. }), .. } if self.live => {
                self.publication(&publication);
            }
            // It may cross the client's own request to begin anew, and then is about the subscription before: SDKs pass over it.
            Reply { push: Some(Push { unsubscribe: Some(Unsubscribed { code }), .. }), .. } if self.live => {
                self.ended(Event::Unsubscribed { code });
                if code < 2500 {
                    self.give_up(format!("unsubscribed: {code}"));
                    return None;
                }
                let subscribe = self.subscribe();
                socket.send(Message::text(subscribe)).await.ok()?;
            }
            Reply { subscribe: Some(subscribed), .. } => self.subscribed(subscribed, node),
            Reply { error: Some(Refused { temporary }), .. } => {
                if !temporary {
                    self.give_up(format!("refused: {line}"));
                    return None;
                }
                self.again = Some(Instant::now() + self.pause());
            }
            _ => {}
        }
        Some(())
    }

    fn subscribe(&mut self) -> String {
        self.requests += 1;
        let mut request = json!({ "channel": self.channel });
        if let Some(At { epoch, offset }) = &self.position {
            request["recover"] = true.into();
            request["epoch"] = epoch.as_str().into();
            request["offset"] = (*offset).into();
        }
        json!({ "id": self.requests + 1, "subscribe": request }).to_string()
    }

    fn subscribed(&mut self, subscribed: Subscribed, node: SocketAddr) {
        let Subscribed { epoch, offset, positioned, recovered, was_recovering, publications } = subscribed;
        let at = positioned.then_some(At { epoch, offset });
        self.failures = 0;
        self.position.clone_from(&at);
        self.note(Event::Subscribed { recovered, was_recovering, at });
        for publication in publications {
            self.publication(&publication);
        }
        self.live = true;
        self.notes.lock().node = Some(node);
    }

    fn ended(&mut self, event: Event) {
        self.live = false;
        self.note(event);
        self.notes.lock().node = None;
    }

    fn publication(&mut self, Publication { data: Data { id }, offset }: &Publication) {
        if let Some(position) = &mut self.position {
            position.offset = *offset;
        }
        self.note(Event::Publication { at: self.position.clone(), pub_id: *id });
        self.notes.lock().last = *id;
    }

    fn note(&self, event: Event) {
        self.notes.lock().events.push((Instant::now(), event));
    }

    fn give_up(&mut self, why: String) {
        self.notes.lock().dead = Some(why);
    }

    fn pause(&mut self) -> Duration {
        let ceiling = (BACKOFF.0 * 2_u32.saturating_pow(self.failures)).min(BACKOFF.1);
        self.failures += 1;
        ceiling.mul_f64(fastrand::f64())
    }

    /// When the client gets restless, seen from the last thing that happened to it.
    fn restless(&self) -> Option<Instant> {
        if !self.live || !self.manners.0.load(Ordering::Relaxed) {
            return None;
        }
        // Drawn anew after each message: a memoryless distribution does not mind.
        Some(Instant::now() + UNREST.mul_f64(-(1.0 - fastrand::f64()).ln()))
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86400)
}
