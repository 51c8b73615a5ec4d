//! What balancers say about where a client is, over real sockets.
#![allow(clippy::unwrap_used, reason = "all of it is tests, though not all are test functions")]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::echo::Echo;
use common::secure::{Identity, trusting};
use common::{Peer, Server, Wire, client_config};
use fanwire_net::{Handler, Limits, Listener, Proxies, Site, Tls};
use http::Response;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Says where it is asked from, on the workers.
fn site() -> Site {
    let who: Handler = Arc::new(|request| {
        let from = request.extensions().get::<SocketAddr>().map(SocketAddr::to_string);
        Box::pin(std::future::ready(Response::new(from.unwrap_or_default().into())))
    });
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    Site::new().http("/", 0, who).protocol("/ws", Arc::new(Echo)).limits(limits)
}

fn listener(trusted: &str) -> Listener {
    let proxies = Proxies::new(&[trusted.to_owned()]).unwrap().with_protocol();
    Listener::bind(([127, 0, 0, 1], 0).into()).unwrap().behind(proxies)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body)
}

/// A header of version 2.
fn version_2(command: u8, family: u8, len: u16, rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len.to_be_bytes(), rest].concat()
}

const TCP4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x1F, 0x40];

#[test]
fn a_header_says_where_the_client_is() {
    let server = Server::serve(listener("127.0.0.1"), site(), client_config());
    let mut tcp6 = [0; 36];
    tcp6[..2].copy_from_slice(&[0x20, 0x01]);
    tcp6[15] = 9;
    tcp6[32..34].copy_from_slice(&443_u16.to_be_bytes());
    let additions = [&TCP4[..], &[0x20; 500]].concat();
    for (header, expected) in [
        (version_2(0x21, 0x11, 12, &TCP4), Some("203.0.113.7:4711")),
        (version_2(0x21, 0x11, 512, &additions), Some("203.0.113.7:4711")),
        (version_2(0x21, 0x21, 36, &tcp6), Some("[2001::9]:443")),
        (version_2(0x21, 0x00, 0, b""), None),
        (version_2(0x20, 0x00, 0, b""), None),
        (version_2(0x20, 0x11, 12, &TCP4), None),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8000\r\n".to_vec(), Some("203.0.113.7:4711")),
        (b"PROXY TCP6 2001::9 ::1 443 8000\r\n".to_vec(), Some("[2001::9]:443")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN whatever it knows\r\n".to_vec(), None),
    ] {
        let mut stream = connect(&server);
        let own = stream.local_addr().unwrap().to_string();
        // However it is cut.
        for byte in &header {
            stream.write_all(&[*byte]).unwrap();
        }
        let answer = Peer(Wire::Tcp(stream)).ask(REQUEST);
        assert_eq!(body(&answer), expected.unwrap_or(&own), "{header:?}");
        let answer = Peer(Wire::Tcp(connect(&server))).ask([&header, REQUEST.as_bytes()].concat());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{header:?} {answer}");
    }
}

#[test]
fn what_is_no_header_ends_the_connection() {
    let server = Server::serve(listener("127.0.0.1"), site(), client_config());
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    for begin in [
        REQUEST.as_bytes().to_vec(),
        version_2(0x21, 0x11, 11, &TCP4[..11]),
        version_2(0x21, 0x21, 12, &TCP4),
        version_2(0x21, 0x12, 12, &TCP4),
        version_2(0x21, 0x31, 12, &TCP4),
        version_2(0x22, 0x11, 12, &TCP4),
        version_2(0x11, 0x11, 12, &TCP4),
        version_2(0x21, 0x11, 0xFFFF, &TCP4),
        long.into_bytes(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 99999 8000\r\n".to_vec(),
        b"PROXY TCP4 2001::9 ::1 443 8000\r\n".to_vec(),
        b"PROXY TCP6 203.0.113.7 10.0.0.1 4711 8000\r\n".to_vec(),
        b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 8000\r\n".to_vec(),
        b"PROXY  TCP4 203.0.113.7 10.0.0.1 4711 8000\r\n".to_vec(),
        b"PROXY TCP4 \xFF.0.113.7 10.0.0.1 4711 8000\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7".to_vec(),
        b"\r\n\r\n\0\r\nQU".to_vec(),
        vec![],
    ] {
        let mut peer = Peer(Wire::Tcp(connect(&server)));
        // Part of it may come too late.
        if let Wire::Tcp(stream) = &mut peer.0 {
            let _ = stream.write_all(&begin);
        }
        assert_eq!(peer.rest(), b"", "{begin:?}");
    }
}

#[test]
fn nobody_else_may_say_so() {
    let server = Server::serve(listener("192.0.2.0/24"), site(), client_config());
    let header = version_2(0x21, 0x11, 12, &TCP4);
    let answer = Peer(Wire::Tcp(connect(&server))).ask([&header, REQUEST.as_bytes()].concat());
    assert!(!answer.contains(" 200 ") && !answer.contains("203.0.113.7"), "{answer}");
    let forwarded = REQUEST.replace("Host", "X-Forwarded-For: 203.0.113.7\r\nHost");
    let stream = connect(&server);
    let own = stream.local_addr().unwrap().to_string();
    assert_eq!(body(&Peer(Wire::Tcp(stream)).ask(&forwarded)), own);
}

#[test]
fn a_header_before_tls_and_one_within() {
    let identity = Identity::new("gateway.test");
    let tls = Tls::load("public", identity.write("proxy")).unwrap();
    let server = Server::serve(listener("127.0.0.1").tls(tls.into()), site(), client_config());
    let trust = trusting(&identity, rustls::ALL_VERSIONS);
    let secured = |address: [u8; 4]| {
        let mut stream = connect(&server);
        let addresses = [&address, &TCP4[4..]].concat();
        stream.write_all(&version_2(0x21, 0x11, 12, &addresses)).unwrap();
        Peer::secured(stream, &trust)
    };
    assert_eq!(body(&secured([203, 0, 113, 7]).ask(REQUEST)), "203.0.113.7:4711");
    // Said by one whom nobody trusts; and by a balancer behind the balancer.
    let forwarded = REQUEST.replace("Host", "X-Forwarded-For: 198.51.100.1\r\nHost");
    assert_eq!(body(&secured([203, 0, 113, 7]).ask(&forwarded)), "203.0.113.7:4711");
    assert_eq!(body(&secured([127, 0, 0, 1]).ask(&forwarded)), "198.51.100.1:0");
}
