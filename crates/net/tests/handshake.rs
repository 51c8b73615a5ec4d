//! Which requests open a connection, over real sockets.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::echo::Echo;
use common::{Peer, Server, client_config, frame, opening};
use fanwire_net::{Limits, Site};
use fanwire_node::protocol::{Accepted, Opening, Protocol, Rejection};
use fanwire_node::{AdmissionConfig, ClientConfig};

/// Takes `chat` and `text`, shows what it was given, and refuses or panics on demand.
struct Picky;

impl Protocol for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }

    fn accept(&self, opening: &Opening) -> Result<Accepted, Rejection> {
        match opening.query.as_str() {
            "refuse" => return Err(Rejection { status: 429, message: format!("{:?}", opening.remote) }),
            "panic" => panic!("on demand"),
            _ => {}
        }
        let known = ["chat", "text"];
        let subprotocol = opening.subprotocols.iter().find_map(|offered| known.into_iter().find(|k| k == offered));
        Ok(Accepted { session: Box::new(Echo), subprotocol })
    }
}

fn server(client: ClientConfig) -> Server {
    Server::start(Site::new().protocol("/ws", Arc::new(Picky)), client)
}

#[test]
fn opens() {
    let server = server(client_config());
    let mut peer = Peer::connect(&server);
    peer.send(opening("/ws", "Sec-WebSocket-Extensions: permessage-deflate\r\n"));
    let head = peer.head().to_lowercase();
    assert!(head.starts_with("http/1.1 101 switching protocols\r\n"), "{head}");
    for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="] {
        assert!(head.lines().any(|other| other == line), "{line}: {head}");
    }
    assert!(!head.contains("sec-websocket-protocol") && !head.contains("sec-websocket-extensions"), "{head}");
    peer.echo("hello");
}

#[test]
fn what_comes_too_fast_is_told_when_to_come_back() {
    let server = server(client_config());
    let patience = Duration::ZERO;
    server.node.admit_at_most(&AdmissionConfig { handshakes: 1, patience, ..AdmissionConfig::default() });
    let heads: Vec<_> = (0..4)
        .map(|_| {
            let mut peer = Peer::connect(&server);
            peer.send(opening("/ws", ""));
            peer.head().to_lowercase()
        })
        .collect();
    let refused: Vec<_> = heads.iter().filter(|head| head.starts_with("http/1.1 503 ")).collect();
    // One may come late enough for a turn of its own.
    assert!((2..=3).contains(&refused.len()), "{heads:?}");
    for head in refused {
        let after = head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
        assert!((1..=7).contains(&after.parse::<u32>().unwrap()), "{after}");
    }
    server.node.admit_at_most(&AdmissionConfig { handshakes: 0, ..AdmissionConfig::default() });
    let mut peer = Peer::connect(&server);
    peer.send(opening("/ws", ""));
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn headers_may_be_written_in_any_way() {
    let server = server(client_config());
    let mut peer = Peer::connect(&server);
    let opening = opening("/ws", "").replace("Upgrade: websocket", "uPGRADE: foo, WebSocket").replace(
        "Connection: keep-alive, Upgrade",
        "Connection: keep-alive\r\nConnection: UPGRADE\r\nContent-Length: 0",
    );
    peer.send(opening);
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    peer.echo("hello");
}

#[test]
fn what_follows_the_opening_at_once_is_not_lost() {
    let server = server(client_config());
    let mut peer = Peer::connect(&server);
    let early: Vec<u8> = ["a", "b", "c"].iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
    let (now, later) = early.split_at(early.len() - 3);
    peer.send([opening("/ws", "").as_bytes(), now].concat());
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    peer.send(later);
    for text in ["a", "b", "c"] {
        assert_eq!(peer.frame(), (0x81, text.as_bytes().to_vec()));
    }
}

#[test]
fn one_subprotocol_at_most() {
    let server = server(client_config());
    for (offered, chosen) in [
        ("Sec-WebSocket-Protocol: superchat, text, chat\r\n", Some("text")),
        ("Sec-WebSocket-Protocol: superchat\r\nSec-WebSocket-Protocol: chat\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: superchat\r\n", None),
        ("", None),
    ] {
        let mut peer = Peer::connect(&server);
        peer.send(opening("/ws", offered));
        let head = peer.head();
        let answered: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("sec-websocket-protocol: ")).collect();
        assert_eq!(answered, Vec::from_iter(chosen), "{offered}");
        peer.echo("hello");
    }
}

#[test]
fn refuses() {
    let server = server(client_config());
    let good = opening("/ws", "");
    let with = |line: &str| opening("/ws", &format!("{line}\r\n"));
    let without = |name: &str| {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (request, status, header) in [
        (good.replace("GET", "PUT"), 405, "allow: GET"),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400, ""),
        (without("Upgrade"), 426, "upgrade: websocket"),
        (good.replace("websocket", "websockets"), 426, "upgrade: websocket"),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), 426, "upgrade: websocket"),
        (without("Connection"), 400, ""),
        (good.replace(", Upgrade", ", Upgrades"), 400, ""),
        (without("Sec-WebSocket-Version"), 426, "sec-websocket-version: 13"),
        (good.replace(": 13", ": 8"), 426, "sec-websocket-version: 13"),
        (with("Sec-WebSocket-Version: 13"), 426, "sec-websocket-version: 13"),
        (without("Sec-WebSocket-Key"), 400, ""),
        (with(key), 400, ""),
        (good.replace(key, "Sec-WebSocket-Key: "), 400, ""),
        (good.replace(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"), 400, ""),
        (good.replace(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), 400, ""),
        (good.replace(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZT0="), 400, ""),
        (with("Content-Length: 5") + "hello", 400, ""),
        (with("Transfer-Encoding: chunked") + "0\r\n\r\n", 400, ""),
        (with("Origin: https://evil.test"), 403, ""),
        (with("Origin: null"), 403, ""),
        (with("Origin: http://gateway.test\r\nOrigin: http://gateway.test"), 403, ""),
        (without("Host").replace("\r\n\r\n", "\r\nOrigin: http://gateway.test\r\n\r\n"), 403, ""),
        (opening("/ws?refuse", ""), 429, ""),
        (opening("/", ""), 404, ""),
        (opening("/ws/", ""), 404, ""),
        (opening("/ws", &format!("X: {}\r\n", "x".repeat(9000))), 431, ""),
        (opening("/ws", &"X: x\r\n".repeat(70)), 431, ""),
        ("GET / HTTP/1.1\r\n: x\r\n\r\n".to_owned(), 400, ""),
    ] {
        let answer = Peer::connect(&server).ask(&request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}\n{answer}"));
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")) || head.starts_with("HTTP/1.0 400"),
            "{request}\n{answer}"
        );
        assert!(head.lines().any(|line| line == header) || header.is_empty(), "{request}\n{answer}");
        assert!(status == 431 || request.contains("\n:") || body.len() > 5, "{request}\n{answer}");
    }
    let refused = Peer::connect(&server).ask(opening("/ws?refuse", ""));
    assert!(refused.ends_with("\r\n\r\nSome(127.0.0.1)\n"), "{refused}");
}

#[test]
fn pages_of_listed_origins_may_connect() {
    let origin = |origin: &str| opening("/ws", &format!("Origin: {origin}\r\n"));
    let own = server(client_config());
    let listed = server(ClientConfig { origins: vec!["https://example.com".to_owned()], ..client_config() });
    let any = server(ClientConfig { origins: vec!["*".to_owned()], ..client_config() });
    for (server, from) in
        [(&own, "http://gateway.test"), (&listed, "https://example.com"), (&any, "https://evil.test"), (&any, "null")]
    {
        let mut peer = Peer::connect(server);
        peer.send(origin(from));
        let head = peer.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{from}: {head}");
    }
    assert!(Peer::connect(&listed).ask(origin("http://gateway.test")).starts_with("HTTP/1.1 403 "));
}

#[test]
fn an_opening_must_come_in_time() {
    let limits = Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = Server::echo(limits);
    let mut neighbour = Peer::open(&server);
    for slow in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut peer = Peer::connect(&server);
        peer.send(slow);
        assert_eq!(peer.rest(), b"", "{slow:?}");
    }
    neighbour.echo("still here");
}

#[test]
fn waiting_openings_are_served_when_there_is_room() {
    let limits = Limits { max_handshakes: 1, handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = Server::echo(limits);
    // Each holds the only place until its time is over.
    let _silent = [Peer::connect(&server), Peer::connect(&server)];
    Peer::open(&server).echo("at last");
}

#[test]
fn a_panic_in_a_protocol_costs_one_connection() {
    let server = server(client_config());
    for _ in 0..3 {
        assert_eq!(Peer::connect(&server).ask(opening("/ws?panic", "")), "");
    }
    let mut peer = Peer::connect(&server);
    peer.send(opening("/ws", ""));
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    peer.echo("hello");
}

#[test]
fn seats_are_given_back() {
    let server = server(client_config());
    for _ in 0..3 {
        Peer::connect(&server).ask(opening("/", ""));
    }
    let mut peer = Peer::connect(&server);
    peer.send(opening("/ws", ""));
    peer.head();
    peer.echo("hello");
    // The seats of the others are given back by their workers, each in its own time.
    let given_back = (0..10_000_000).any(|_| {
        std::thread::yield_now();
        server.node.connections() == 1
    });
    assert!(given_back);
}
