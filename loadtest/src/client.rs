//! Opening sessions: TCP, WebSocket upgrade, and what the dialect says before a session is ready.
//!
//! Blocking and in batches: each step is done for a whole batch before the next, so that the server
//! sees some concurrency and the code stays a straight line.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, ToSocketAddrs as _};
use std::ops::Range;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, recv, socket_with, sockopt};

use crate::clock::Deadline;
use crate::dialect::{Dialect, Purpose, Step};
use crate::error::{Context as _, Error};
use crate::frames::{Carry, Scanner, Tally};
use crate::mux::Mux;

/// Where clients connect to, and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Address of the listener.
    pub(crate) address: SocketAddr,
    /// Path and query of the WebSocket; `{channel}` stands for the session's channel.
    pub(crate) path: String,
    /// The same for those who publish.
    pub(crate) publish_path: String,
    /// The protocol over it.
    pub(crate) dialect: Dialect,
}

impl Endpoint {
    /// The usual paths of a dialect at an address.
    pub(crate) fn usual(address: SocketAddr, dialect: Dialect) -> Self {
        let path = dialect.path().to_owned();
        Self { address, publish_path: path.clone(), path, dialect }
    }

    /// The endpoint of a `ws://` address; a path that it lacks is the dialect's usual one.
    pub(crate) fn parse(url: &str, dialect: Dialect) -> Result<Self, Error> {
        let wrong = || Error::Setup(format!("{url}: not a ws://host:port/path, or its host is not known"));
        let rest = url.strip_prefix("ws://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, dialect.path()),
        };
        // Of a name's addresses the first: a balancer has one, and a node is named by itself.
        let named = authority.replace("localhost:", "127.0.0.1:");
        let address = named.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong)?;
        Ok(Self { address, path: path.to_owned(), publish_path: path.to_owned(), dialect })
    }
}

/// Who a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// Its channel.
    pub(crate) channel: String,
    /// What it proves who it is with; only the native protocol has a place for it.
    pub(crate) token: Option<String>,
}

/// Opens the sessions of `numbers`, the `n`th for `who(n)`, and adds them to `mux`. The endpoints take them in turn.
pub(crate) fn open(
    mux: &mut Mux,
    endpoints: &[Endpoint],
    purpose: Purpose,
    numbers: Range<u32>,
    who: impl Fn(u32) -> Result<Who, Error>,
) -> Result<(), Error> {
    open_each(endpoints, purpose, numbers, who, |stream, carry| mux.add(stream, carry).map(|_| ()))
}

/// Opens sessions as [`open`] does, and hands them to `take`.
pub(crate) fn open_each(
    endpoints: &[Endpoint],
    purpose: Purpose,
    numbers: Range<u32>,
    who: impl Fn(u32) -> Result<Who, Error>,
    mut take: impl FnMut(TcpStream, Carry) -> Result<(), Error>,
) -> Result<(), Error> {
    for start in numbers.clone().step_by(BATCH as usize) {
        let mut sessions = Vec::new();
        for number in start..numbers.end.min(start + BATCH) {
            let endpoint = &endpoints[number as usize % endpoints.len()];
            let who = who(number)?;
            let mut stream = dial(endpoint.address, number)?;
            stream
                .write_all(upgrade_request(endpoint, purpose, &who.channel).as_bytes())
                .context("send the upgrade")?;
            sessions.push((stream, Carry::default(), endpoint.dialect, endpoint.dialect.opening(purpose, &who)));
        }
        for (stream, carry, _, _) in &mut sessions {
            *carry = Carry::of(read_upgrade(stream)?);
        }
        let steps = sessions.iter().map(|(_, _, _, steps)| steps.len()).max().unwrap_or_default();
        for number in 0..steps {
            for (stream, _, _, steps) in &mut sessions {
                let send = steps.get(number).map(|step| step.send.as_slice()).unwrap_or_default();
                stream.write_all(send).context("send the first commands")?;
            }
            for (stream, carry, dialect, steps) in &mut sessions {
                if let Some(step) = steps.get(number) {
                    await_replies(*dialect, stream, carry, step)?;
                }
            }
        }
        for (stream, carry, _, _) in sessions {
            take(stream, carry)?;
        }
    }
    Ok(())
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

/// The example key of RFC 6455, and the answer that belongs to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn upgrade_request(endpoint: &Endpoint, purpose: Purpose, channel: &str) -> String {
    let path = match purpose {
        Purpose::Subscribe => &endpoint.path,
        Purpose::Publish => &endpoint.publish_path,
    };
    let subprotocol = endpoint.dialect.subprotocol();
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
        path.replace("{channel}", channel),
        endpoint.address,
        subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default(),
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

/// Awaits the replies that end a step. Pings are answered: an opening that waits for many others may take long.
fn await_replies(dialect: Dialect, stream: &mut TcpStream, carry: &mut Carry, step: &Step) -> Result<(), Error> {
    let mut scanner = Scanner::new(dialect);
    let mut tally = Tally::default();
    let mut bytes = Vec::new();
    loop {
        scanner.read(carry, &bytes, &mut tally).map_err(|fault| Error::Failed(format!("first commands: {fault}")))?;
        for _ in 0..std::mem::take(&mut tally.pings) {
            stream.write_all(&dialect.pong()).context("answer a ping")?;
        }
        if tally.replies >= step.replies {
            return Ok(());
        }
        bytes.clear();
        if read_more(stream, &mut bytes)? == 0 {
            return Err(Error::Failed("the connection ended before its first replies".to_owned()));
        }
    }
}

/// Reads what there is, and does not sleep until there is something: over loopback the server would pay for waking this end,
/// which is on another machine elsewhere.
fn read_more(stream: &TcpStream, into: &mut Vec<u8>) -> Result<usize, Error> {
    let mut buffer = [0; 4096];
    let deadline = Deadline::after(PATIENCE);
    loop {
        for _ in 0..1_000 {
            match recv(stream, &mut buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => std::hint::spin_loop(),
                came => {
                    let (_, count) = came.context("await an answer")?;
                    into.extend_from_slice(&buffer[..count]);
                    return Ok(count);
                }
            }
        }
        if deadline.passed() {
            return Err(Error::Failed(format!("no answer within {} s", PATIENCE.as_secs())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let native = |url| Endpoint::parse(url, Dialect::Native);
        let endpoint = native("ws://localhost:8000/connection/websocket?a=1").unwrap();
        assert_eq!(endpoint.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(endpoint.path, "/connection/websocket?a=1");
        assert_eq!(native("ws://[::1]:9").unwrap(), Endpoint::usual("[::1]:9".parse().unwrap(), Dialect::Native));
        for wrong in ["wss://127.0.0.1:1/", "ws://127.0.0.1/", "http://x"] {
            assert!(native(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_upgrade_has_the_channel_and_the_subprotocol() {
        let mut endpoint = Endpoint::parse("ws://127.0.0.1:1/sub/{channel}", Dialect::Mqtt).unwrap();
        endpoint.publish_path = "/pub/{channel}".to_owned();
        let request = upgrade_request(&endpoint, Purpose::Subscribe, "news");
        assert!(request.starts_with("GET /sub/news HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"), "{request}");
        assert!(upgrade_request(&endpoint, Purpose::Publish, "news").starts_with("GET /pub/news "));
    }
}
