//! How TLS handshakes fail. Alone in its file: the metrics are the whole process's.

#![allow(clippy::unwrap_used, reason = "all of it is tests, though not all are test functions")]

mod common;

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use common::echo::Echo;
use common::secure::{Identity, trusting};
use common::{Peer, Server, Wire, client_config};
use fanwire_net::{Limits, Listener, Site, Tls};
use rustls::ClientConfig;

/// A server of the echo protocol with this certificate.
fn server(tls: &Arc<Tls>, limits: Limits) -> Server {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap().tls(Arc::clone(tls));
    Server::serve(listener, Site::new().protocol("/", Arc::new(Echo)).limits(limits), client_config())
}

fn connect(server: &Server, trust: &Arc<ClientConfig>) -> Peer {
    let stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Peer::secured(stream, trust)
}

#[test]
fn bad_handshakes_are_counted_and_cost_nobody_else() {
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let identity = Identity::new("gateway.test");
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = server(&Arc::new(Tls::load("public", identity.write("bad")).unwrap()), limits);
    let trust = trusting(&identity, rustls::ALL_VERSIONS);
    let mut neighbour = connect(&server, &trust).opened();

    let plain = |bytes: &[u8]| {
        let stream = TcpStream::connect(server.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut peer = Peer(Wire::Tcp(stream));
        peer.send(bytes);
        peer
    };
    // TLS 1.0 and no more, no cipher that is known.
    let old = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x01\
        0123456789abcdef0123456789abcdef\x00\x00\x02\x00\x0a\x01\x00";
    let strangers = trusting(&Identity::new("gateway.test"), rustls::ALL_VERSIONS);
    for round in 0..20 {
        plain(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").rest();
        plain(old).rest();
        plain(b"\x16\x03\x01");
        let mut peer = connect(&server, &strangers);
        let Wire::Tls(stream) = &mut peer.0 else { unreachable!() };
        let refused = stream.conn.complete_io(&mut stream.sock).unwrap_err();
        assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
        drop(peer);
        neighbour.echo(&round.to_string());
    }
    let mut silent = plain(b"\x16");
    assert_eq!(silent.rest(), b"");
    // Counted once the peer has seen the end, or a moment later.
    for (outcome, count) in [
        ("done", 1),
        ("not_tls", 20),
        ("nothing_in_common", 20),
        ("left", 20),
        ("refused_by_client", 20),
        ("timeout", 1),
    ] {
        let line = format!("fanwire_tls_handshakes_total{{outcome=\"{outcome}\"}} {count}\n");
        let counted = (0..1_000_000).any(|_| {
            std::thread::yield_now();
            metrics.render().contains(&line)
        });
        assert!(counted, "{line}{}", metrics.render());
    }
}
