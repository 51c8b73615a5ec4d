//! Balancers in front of a listener, and what they say about where a client is.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use tokio::net::TcpStream;

/// The balancers in front of a listener, whose word about a client's address is taken. By default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    trusted: Vec<Range>,
    protocol: bool,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    base: IpAddr,
    bits: u32,
}

impl Proxies {
    /// `trusted` are addresses or ranges: `192.0.2.7`, `10.0.0.0/8`, `fd00::/8`. What they send in `X-Forwarded-For` counts.
    ///
    /// # Errors
    ///
    /// The ones that are neither.
    pub fn new(trusted: &[String]) -> Result<Self, Vec<String>> {
        let (mut ranges, mut mistakes) = (Vec::new(), Vec::new());
        for text in trusted {
            match Range::parse(text) {
                Some(range) => ranges.push(range),
                None => mistakes.push(format!("{text:?} is no address and no range like \"10.0.0.0/8\"")),
            }
        }
        if mistakes.is_empty() { Ok(Self { trusted: ranges, protocol: false }) } else { Err(mistakes) }
    }

    /// Expects a PROXY header (version 1 or 2) at the beginning of every connection from them.
    #[must_use]
    pub fn with_protocol(self) -> Self {
        Self { protocol: true, ..self }
    }

    /// Whether a connection may begin with a PROXY header.
    pub(crate) fn speak_the_protocol(&self) -> bool {
        self.protocol
    }

    pub(crate) fn trust(&self, addr: IpAddr) -> bool {
        self.trusted.iter().any(|range| range.contains(addr))
    }

    /// Where the client of a request is: the nearest address in `X-Forwarded-For` that is no balancer's. What a client
    /// itself wrote there stands behind, and does not count.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trust(peer.ip()) {
            return peer;
        }
        let mut client = peer;
        let lines = headers.get_all("x-forwarded-for").into_iter();
        let hops = lines.rev().flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        for hop in hops {
            if !self.trust(client.ip()) {
                break;
            }
            let Some(addr) = hop_address(hop.trim()) else { break };
            client = addr;
        }
        client
    }
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let Some((base, bits)) = text.split_once('/') else {
            let base = text.parse::<IpAddr>().ok()?.to_canonical();
            return Some(Self { base, bits: width(base) });
        };
        let base: IpAddr = base.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        (bits <= width(base)).then_some(Self { base, bits })
    }

    fn contains(&self, addr: IpAddr) -> bool {
        let (base, addr) = (self.base, addr.to_canonical());
        let differing = match (base, addr) {
            (IpAddr::V4(base), IpAddr::V4(addr)) => (base.to_bits() ^ addr.to_bits()).leading_zeros(),
            (IpAddr::V6(base), IpAddr::V6(addr)) => (base.to_bits() ^ addr.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= self.bits
    }
}

fn width(addr: IpAddr) -> u32 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// An address as balancers write it: with a port or without, IPv6 in brackets or without.
fn hop_address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()
}

/// What every header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with its line end.
const MAX_LINE: usize = 107;

/// The most bytes of addresses and additions that a header of version 2 may have.
const MAX_BODY: usize = 2048;

/// Reads the PROXY header that a connection begins with, and no byte more. `None` if the balancer speaks for itself, or does not
/// know.
///
/// # Errors
///
/// [`ErrorKind::InvalidData`] if it is no such header; those of the socket.
pub(crate) async fn read_header(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; 12];
    fill(stream, &mut head).await?;
    if head == SIGNATURE {
        let mut fixed = [0; 4];
        fill(stream, &mut fixed).await?;
        let len = u16::from_be_bytes([fixed[2], fixed[3]]).into();
        if len > MAX_BODY {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; len];
        fill(stream, &mut body).await?;
        return version_2(fixed[0], fixed[1], &body);
    }
    if !head.starts_with(b"PROXY ") {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        fill(stream, &mut byte).await?;
        line.push(byte[0]);
        if line.len() > MAX_LINE {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    version_1(&line)
}

async fn fill(stream: &TcpStream, buf: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buf.len() {
        stream.readable().await?;
        match stream.try_read(&mut buf[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => filled += len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `PROXY TCP4 source destination source-port destination-port`
fn version_1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let invalid = || io::Error::from(ErrorKind::InvalidData);
    let text = std::str::from_utf8(line).map_err(|_| invalid())?.trim_end_matches("\r\n");
    let fields: Vec<_> = text.split(' ').collect();
    match fields[1..] {
        ["UNKNOWN", ..] => Ok(None),
        [family @ ("TCP4" | "TCP6"), source, destination, port, _] => {
            let source: IpAddr = source.parse().map_err(|_| invalid())?;
            let destination: IpAddr = destination.parse().map_err(|_| invalid())?;
            let is_4 = family == "TCP4";
            if source.is_ipv4() != is_4 || destination.is_ipv4() != is_4 {
                return Err(invalid());
            }
            Ok(Some(SocketAddr::new(source, port.parse().map_err(|_| invalid())?)))
        }
        _ => Err(invalid()),
    }
}

fn version_2(version_and_command: u8, family: u8, body: &[u8]) -> io::Result<Option<SocketAddr>> {
    let invalid = || io::Error::from(ErrorKind::InvalidData);
    match version_and_command {
        // A check of the balancer's own.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(invalid()),
    }
    let port = |at| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let source = match family {
        0x00 => return Ok(None),
        0x11 => body.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip).into()).zip(port(8).filter(|_| body.len() >= 12)),
        0x21 => {
            body.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip).into()).zip(port(32).filter(|_| body.len() >= 36))
        }
        _ => None,
    };
    source.map(|(ip, port)| Some(SocketAddr::new(ip, port))).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(trusted: &[&str]) -> Proxies {
        Proxies::new(&trusted.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn ranges() {
        let trusted = proxies(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"]);
        for inside in ["10.1.2.3", "192.0.2.7", "fd12::1", "::1", "::ffff:10.9.9.9"] {
            assert!(trusted.trust(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "::2", "::ffff:11.0.0.1"] {
            assert!(!trusted.trust(outside.parse().unwrap()), "{outside}");
        }
        assert!(proxies(&["0.0.0.0/0"]).trust("203.0.113.9".parse().unwrap()));
        let wrong = ["10.0.0.0/33", "10.0.0/8", "example.com", "", "::/129", "10.0.0.1/-1"].map(str::to_owned);
        assert_eq!(Proxies::new(&wrong).unwrap_err().len(), wrong.len());
    }

    #[test]
    fn the_nearest_stranger_is_the_client() {
        let trusted = proxies(&["10.0.0.0/8"]);
        let client = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            trusted.client(format!("{peer}:1").parse().unwrap(), &headers).ip().to_string()
        };
        for (peer, lines, expected) in [
            ("203.0.113.1", &["198.51.100.1"][..], "203.0.113.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, "], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }
}
