//! The floor under every latency across nodes: one message from PUBLISH to a subscriber of the same Redis, nothing in between.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock;
use crate::error::{Context as _, Error};
use crate::stats::Histogram;

/// Messages that are measured at most: enough for a median.
const MOST: f64 = 2_000.0;

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The median, in milliseconds, of messages of `payload` bytes at `rate` per second for about `span`.
pub(crate) fn measure(redis: SocketAddr, payload: u32, rate: f64, span: Duration) -> Result<f64, Error> {
    let mut subscriber = connect(redis)?;
    subscriber.write_all(b"SUBSCRIBE floor\r\n").context("subscribe at Redis")?;
    let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$5\r\nfloor\r\n:1\r\n";
    read_exactly(&mut subscriber, confirmation.len())?;
    let mut publisher = connect(redis)?;
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

fn connect(redis: SocketAddr) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect_timeout(&redis, PATIENCE).context("connect to Redis")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
    Ok(stream)
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> Result<(), Error> {
    let mut buffer = vec![0; count];
    stream.read_exact(&mut buffer).context("await Redis")
}
