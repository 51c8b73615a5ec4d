//! The floor under every latency across nodes: one message from PUBLISH to a subscriber of the same Redis, with nothing in
//! between; and the same where publisher and subscriber reach Redis through a process each that only passes bytes on, as
//! clients reach it through two nodes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock;
use crate::error::{Context as _, Error};
use crate::limit::relay::Relay;
use crate::stats::Histogram;

/// Messages that are measured at most: enough for a median.
const MOST: f64 = 2_000.0;

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What messages are like: their bytes, how many in a second, for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    pub(crate) payload: u32,
    pub(crate) rate: f64,
    pub(crate) span: Duration,
}

/// The median, in milliseconds, with nothing between the two and Redis.
pub(crate) fn bare(redis: SocketAddr, messages: Messages) -> Result<f64, Error> {
    measure(redis, redis, messages)
}

/// The median, in milliseconds, with a relay for each of the two.
pub(crate) fn relayed(
    redis: SocketAddr,
    messages: Messages,
    server_core: usize,
    client_core: usize,
) -> Result<f64, Error> {
    let relay = || Relay::start(redis, server_core, client_core);
    let (publisher, subscriber) = (relay()?, relay()?);
    measure(publisher.address(), subscriber.address(), messages)
}

fn measure(publisher: SocketAddr, subscriber: SocketAddr, messages: Messages) -> Result<f64, Error> {
    let Messages { payload, rate, span } = messages;
    let mut subscriber = connect(subscriber)?;
    subscriber.write_all(b"SUBSCRIBE floor\r\n").context("subscribe at Redis")?;
    let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$5\r\nfloor\r\n:1\r\n";
    read_exactly(&mut subscriber, confirmation.len())?;
    let mut publisher = connect(publisher)?;
    let data = "x".repeat(payload as usize);
    let command = format!("*3\r\n$7\r\nPUBLISH\r\n$5\r\nfloor\r\n${}\r\n{data}\r\n", data.len());
    let message = format!("*3\r\n$7\r\nmessage\r\n$5\r\nfloor\r\n${}\r\n{data}\r\n", data.len());
    let count = (span.as_secs_f64() * rate).clamp(20.0, MOST) as usize;
    let mut latency = Histogram::new();
    for _ in 0..count {
        let start = clock::now();
        publisher.write_all(command.as_bytes()).context("publish at Redis")?;
        read_exactly(&mut subscriber, message.len())?;
        latency.record(clock::now() - start);
        read_exactly(&mut publisher, b":1\r\n".len())?;
        // As idle between two as the gateways are between theirs.
        clock::pause(Duration::from_secs_f64((1.0 / rate).min(0.1)));
    }
    Ok(latency.quantile(0.5) as f64 / 1e6)
}

fn connect(address: SocketAddr) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect to Redis")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
    Ok(stream)
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> Result<(), Error> {
    let mut buffer = vec![0; count];
    stream.read_exact(&mut buffer).context("await Redis")
}
