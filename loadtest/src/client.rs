//! Opening sessions: TCP, WebSocket upgrade, `connect`, `subscribe`.
//!
//! Blocking and in batches: each step is done for a whole batch before the next, so that the server
//! sees some concurrency and the code stays a straight line.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use crate::error::{Context as _, Error};
use crate::frames::{Scanner, Tally, client_text};
use crate::mux::Mux;

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Address of the listener.
    pub(crate) address: SocketAddr,
    /// Path and query of the WebSocket.
    pub(crate) path: String,
}

impl Endpoint {
    /// The endpoint of a `ws://` address.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = || Error::Setup(format!("{url}: not a ws://address:port/path"));
        let rest = url.strip_prefix("ws://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/connection/websocket"),
        };
        let authority = authority.replace("localhost:", "127.0.0.1:");
        Ok(Self { address: authority.parse().map_err(|_| wrong())?, path: path.to_owned() })
    }
}

/// Opens `count` sessions and adds them to `mux`, the `n`th subscribed to `channel(n)`; none is
/// subscribed to anything if that is `None`.
pub(crate) fn open(
    mux: &mut Mux,
    endpoint: &Endpoint,
    count: u32,
    channel: impl Fn(u32) -> Option<String>,
) -> Result<(), Error> {
    for start in (0..count).step_by(BATCH as usize) {
        let batch = start..count.min(start + BATCH);
        let mut streams = Vec::with_capacity(batch.len());
        for number in batch.clone() {
            let mut stream = dial(endpoint.address, number)?;
            stream.write_all(upgrade_request(endpoint).as_bytes()).context("send the upgrade")?;
            streams.push(stream);
        }
        let mut carries = Vec::with_capacity(batch.len());
        for (stream, number) in streams.iter_mut().zip(batch.clone()) {
            carries.push(read_upgrade(stream)?);
            let commands = match channel(number) {
                Some(channel) => format!("{CONNECT}\n{}", subscribe_command(&channel)),
                None => CONNECT.to_owned(),
            };
            stream.write_all(&client_text(commands.as_bytes())).context("send the first commands")?;
        }
        for ((mut stream, mut carry), number) in streams.into_iter().zip(carries).zip(batch) {
            let replies = 1 + u64::from(channel(number).is_some());
            await_replies(&mut stream, &mut carry, replies)?;
            mux.add(stream, carry)?;
        }
    }
    Ok(())
}

/// A `publish` command's frame.
pub(crate) fn publish_frame(id: u64, channel: &str, data: &str) -> Vec<u8> {
    client_text(format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{data}}}}}"#).as_bytes())
}

/// A connected socket with `TCP_NODELAY`, which resets its connection when it is closed: tens of
/// thousands of orderly closes would leave as many ports waiting, and connecting slows to a crawl.
///
/// Over loopback every ten thousandth connection leaves from another source address, because one
/// address has only some 28,000 ports.
pub(crate) fn dial(address: SocketAddr, number: u32) -> Result<TcpStream, Error> {
    let stream = match address {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => {
            let socket =
                socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).context("socket")?;
            let host = 1 + (number / 10_000 % 250) as u8;
            let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0);
            if IpAddr::V4(*source.ip()) != address.ip() {
                bind(&socket, &source).context(format!("bind to {source}"))?;
            }
            connect(&socket, &address).context(format!("connect to {address}"))?;
            TcpStream::from(socket)
        }
        _ => TcpStream::connect_timeout(&address, PATIENCE).context(format!("connect to {address}"))?,
    };
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).context("set SO_LINGER")?;
    stream.set_read_timeout(Some(PATIENCE)).context("set a read timeout")?;
    stream.set_write_timeout(Some(PATIENCE)).context("set a write timeout")?;
    Ok(stream)
}

/// Answers awaited at a time: small against a server's bound on handshakes, large enough to keep
/// both sides busy.
const BATCH: u32 = 64;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// The example key of RFC 6455, and the answer that belongs to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn subscribe_command(channel: &str) -> String {
    format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#)
}

fn upgrade_request(endpoint: &Endpoint) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        endpoint.path, endpoint.address
    )
}

/// Awaits the answer to the upgrade; the bytes that came behind it.
fn read_upgrade(stream: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut answer = Vec::new();
    let head = loop {
        let end = memchr::memmem::find(&answer, b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
        if answer.len() > 16 * 1024 || read_more(stream, &mut answer)? == 0 {
            return Err(Error::Failed(format!("no answer to the upgrade: {:?}", String::from_utf8_lossy(&answer))));
        }
    };
    let text = String::from_utf8_lossy(&answer[..head]);
    if !text.starts_with("HTTP/1.1 101 ") || !text.contains(ACCEPT) {
        return Err(Error::Failed(format!("upgrade refused: {text:?}")));
    }
    Ok(answer.split_off(head))
}

fn await_replies(stream: &mut TcpStream, carry: &mut Vec<u8>, replies: u64) -> Result<(), Error> {
    let mut scanner = Scanner::new();
    let mut tally = Tally::default();
    let mut bytes = std::mem::take(carry);
    loop {
        scanner.read(carry, &bytes, &mut tally).map_err(|fault| Error::Failed(format!("first commands: {fault}")))?;
        if tally.replies >= replies {
            return Ok(());
        }
        bytes.clear();
        if read_more(stream, &mut bytes)? == 0 {
            return Err(Error::Failed("the connection ended before its first replies".to_owned()));
        }
    }
}

fn read_more(stream: &mut TcpStream, into: &mut Vec<u8>) -> Result<usize, Error> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).context("await an answer")?;
    into.extend_from_slice(&buffer[..count]);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let endpoint = Endpoint::parse("ws://localhost:8000/connection/websocket?a=1").unwrap();
        assert_eq!(endpoint.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(endpoint.path, "/connection/websocket?a=1");
        let endpoint = Endpoint::parse("ws://[::1]:9").unwrap();
        assert_eq!(endpoint.path, "/connection/websocket");
        for wrong in ["wss://127.0.0.1:1/", "ws://127.0.0.1/", "http://x"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }
}
