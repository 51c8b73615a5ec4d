//! What a client must not send: each ends in its close code, and a neighbour notices nothing.

mod common;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use common::echo::Echo;
use common::{Peer, Server, client_config, frame};
use fanwire_net::{Limits, Site};
use fanwire_node::protocol::{Accepted, Event, Opening, Rejection};
use fanwire_node::{Client, Encoder, Protocol, Session};
use fanwire_wire::{Disconnect, Message};
use futures_util::future::LocalBoxFuture;

#[test]
fn each_fault_has_its_code() {
    let server = Server::echo(Limits::default());
    let mut neighbour = Peer::open(&server);
    let text = |bytes: &[u8]| frame(0x81, bytes);
    let large = |first: u8, len: u64| [&[first, 0xFF][..], &len.to_be_bytes(), &[0; 4]].concat();
    for (name, bytes, code) in [
        ("unmasked", b"\x81\x05hello".to_vec(), 1002),
        ("RSV1", frame(0xC1, b"x"), 1002),
        ("RSV2", frame(0xA1, b"x"), 1002),
        ("RSV3", frame(0x91, b"x"), 1002),
        ("opcode 3", frame(0x83, b"x"), 1002),
        ("opcode 11", frame(0x8B, b"x"), 1002),
        ("ping in fragments", frame(0x09, b"x"), 1002),
        ("long ping", frame(0x89, &[b'x'; 126]), 1002),
        ("long pong", frame(0x8A, &[b'x'; 4000]), 1002),
        ("long close", frame(0x88, &[b'x'; 126]), 1002),
        ("16-bit length for 2 bytes", b"\x81\xFE\0\x02\0\0\0\0hi".to_vec(), 1002),
        ("64-bit length for 3 bytes", [&large(0x81, 3)[..], b"hi!"].concat(), 1002),
        ("64-bit length with the top bit", large(0x82, 1 << 63), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("a message within a message", [frame(0x01, b"x"), text(b"y")].concat(), 1002),
        ("close with half a code", frame(0x88, b"\x03"), 1002),
        ("close 999", frame(0x88, &999_u16.to_be_bytes()), 1002),
        ("close 1005", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("close 2999", frame(0x88, &2999_u16.to_be_bytes()), 1002),
        ("close 5000", frame(0x88, &5000_u16.to_be_bytes()), 1002),
        ("close with a broken reason", frame(0x88, b"\x03\xE8\xFF"), 1007),
        ("broken text", text(b"\xC3\x28"), 1007),
        ("surrogate", text(b"\xED\xA0\x80"), 1007),
        ("text cut within a character", text(b"\xC3"), 1007),
        ("broken over fragments", [frame(0x01, b"\xE2\x82"), frame(0x80, b"\x28")].concat(), 1007),
        ("broken at the start of a long frame", text(&[0xFF; 1000])[..20].to_vec(), 1007),
        ("announced too large", large(0x82, 65537), 1009),
        ("announced much too large", large(0x81, u64::MAX >> 1), 1009),
        (
            "too large in fragments",
            [frame(0x02, &[0; 40_000]), frame(0x80, &[0; 30_000])[..20].to_vec()].concat(),
            1009,
        ),
        ("a flood of fragments", [frame(0x02, b""), frame(0x00, b"").repeat(1000)].concat(), 1008),
        ("a flood of pings", frame(0x89, b"").repeat(1000), 1008),
        ("a flood of pongs", frame(0x8A, b"").repeat(1000), 1008),
        ("a flood of pings in a message", [frame(0x01, b"x"), frame(0x89, b"y").repeat(100)].concat(), 1008),
    ] {
        let mut peer = Peer::open(&server);
        peer.echo("good so far");
        // May fail at the end of a flood.
        let _ = std::io::Write::write_all(&mut peer.0, &bytes);
        assert_eq!(peer.closed(), code, "{name}");
        neighbour.echo(name);
    }
}

#[test]
fn the_limits_themselves_are_allowed() {
    let server = Server::echo(Limits::default());
    let mut peer = Peer::open(&server);
    peer.send(frame(0x82, &[7; 65536]));
    assert_eq!(peer.frame(), (0x82, vec![7; 65536]));

    peer.send([frame(0x01, b"a"), frame(0x00, b"a").repeat(62), frame(0x80, b"a")].concat());
    assert_eq!(peer.frame(), (0x81, vec![b'a'; 64]));

    peer.send(frame(0x89, &[9; 125]).repeat(40));
    for _ in 0..40 {
        assert_eq!(peer.frame(), (0x8A, vec![9; 125]));
    }
}

#[test]
fn answers_keep_the_order_of_what_came() {
    let server = Server::echo(Limits::default());
    let mut peer = Peer::open(&server);
    let close = frame(0x88, &[&4321_u16.to_be_bytes()[..], b"bye"].concat());
    peer.send(
        [frame(0x81, b"1"), frame(0x89, b"2"), frame(0x01, b"5"), frame(0x89, b"3"), frame(0x80, b""), close].concat(),
    );
    for expected in [(0x81, "1"), (0x8A, "2"), (0x8A, "3"), (0x81, "5")] {
        assert_eq!(peer.frame(), (expected.0, expected.1.as_bytes().to_vec()));
    }
    assert_eq!(peer.closed(), 4321);
}

#[test]
fn an_empty_close_is_answered_with_one() {
    let server = Server::echo(Limits::default());
    let mut peer = Peer::open(&server);
    peer.send(frame(0x88, b""));
    assert_eq!(peer.frame(), (0x88, vec![]));
    assert_eq!(peer.rest(), b"");
}

#[test]
fn a_message_must_be_finished_in_time() {
    let limits = Limits { message_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = Server::echo(limits);
    let mut neighbour = Peer::open(&server);
    for unfinished in [frame(0x01, b"x"), frame(0x81, b"xyz")[..7].to_vec(), vec![0x81]] {
        let mut peer = Peer::open(&server);
        peer.send(&unfinished);
        assert_eq!(peer.closed(), 1008, "{unfinished:?}");
        neighbour.echo("still here");
    }
}

#[test]
fn many_tiny_messages_in_one_read() {
    let server = Server::echo(Limits::default());
    let mut peer = Peer::open(&server);
    // The answers fit into what may wait for it.
    peer.send(frame(0x82, b"x").repeat(20_000));
    for _ in 0..20_000 {
        assert_eq!(peer.frame(), (0x82, vec![b'x']));
    }
}

#[test]
fn a_full_socket_is_waited_for() {
    let mut client = client_config();
    client.queue_size = 64 * 1024 * 1024;
    let server = Server::start(Site::new().protocol("/", Arc::new(Echo)), client);
    let mut peer = Peer::open(&server);
    // More than both kernel buffers hold, while nothing is read.
    let messages: Vec<Vec<u8>> = (0..300_u32).map(|i| i.to_be_bytes().repeat(16_000)).collect();
    for message in &messages {
        peer.send(frame(0x82, message));
    }
    for message in messages {
        assert!(peer.frame() == (0x82, message));
    }
    peer.echo("and on");
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let server = Server::start(
        Site::new().protocol("/", Arc::new(Echo)),
        fanwire_node::ClientConfig { queue_size: 100_000, ..client_config() },
    );
    let mut neighbour = Peer::open(&server);
    let mut peer = Peer::open(&server);
    let message = frame(0x82, &[0; 60_000]);
    // Its socket is shut down, so writing fails in the end.
    while std::io::Write::write_all(&mut peer.0, &message).is_ok() {}
    neighbour.echo("still here");
}

/// Panics when it is told to.
struct Fragile;

impl Protocol for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn accept(&self, _: &Opening) -> Result<Accepted, Rejection> {
        Ok(Accepted { session: Box::new(Self), subprotocol: None })
    }
}

impl Session for Fragile {
    fn encoder(&self) -> &'static dyn Encoder {
        &Echo
    }

    fn on_open<'a>(&'a self, client: &'a Rc<Client>) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        Echo.on_open(client)
    }

    fn on_message<'a>(
        &'a self,
        client: &'a Rc<Client>,
        message: Message,
    ) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        assert_ne!(message, Message::Text("panic".into()), "on demand");
        Box::pin(async move { Echo.on_message(client, message).await })
    }

    fn encode_event(&self, _: &Event<'_>, _: &mut BytesMut) -> Result<(), Disconnect> {
        Ok(())
    }
}

#[test]
fn a_panic_in_a_session_costs_one_connection() {
    let server = Server::start(Site::new().protocol("/", Arc::new(Fragile)), client_config());
    let mut neighbour = Peer::open(&server);
    for _ in 0..3 {
        let mut peer = Peer::open(&server);
        peer.echo("good so far");
        peer.send(frame(0x81, b"panic"));
        assert_eq!(peer.closed(), Disconnect::ServerError.code());
        neighbour.echo("still here");
    }
}
