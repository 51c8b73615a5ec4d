//! Against rustls' own client, in memory.

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};

use super::session::{MAX_PLAIN, RECORDS};
use super::*;

/// A client and the server's session, with nothing between them but bytes.
struct Pair {
    client: ClientConnection,
    session: Session,
    /// What the client has read.
    received: Vec<u8>,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["gateway.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = ClientConnection::new(Arc::new(client), "gateway.test".try_into().unwrap()).unwrap();
        Self { client, session: Session::new(Arc::new(server)).unwrap(), received: Vec::new() }
    }

    /// What the client has to send.
    fn sent_by_client(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Gives the client what the server holds.
    fn deliver(&mut self) {
        let held = self.session.held().to_vec();
        self.session.sent(held.len());
        let mut unread = &held[..];
        while !unread.is_empty() {
            self.client.read_tls(&mut unread).unwrap();
            let plain = self.client.process_new_packets().unwrap().plaintext_bytes_to_read();
            let read = self.received.len();
            self.received.resize(read + plain, 0);
            self.client.reader().read_exact(&mut self.received[read..]).unwrap();
        }
    }

    /// Takes the handshake to its end, the client's bytes in pieces of `size`.
    fn shake_hands(&mut self, size: usize) {
        let mut done = false;
        while !done || self.client.is_handshaking() {
            let bytes = self.sent_by_client();
            for piece in bytes.chunks(size) {
                done = self.session.handshake(piece).unwrap();
            }
            self.deliver();
        }
    }

    /// What the server reads of these bytes, which come in pieces of `size`.
    fn read(&mut self, bytes: &[u8], size: usize) -> Result<Vec<u8>, rustls::Error> {
        let (mut records, mut plain, mut all) = (vec![0; RECORDS], vec![0; MAX_PLAIN], Vec::new());
        let early = self.session.take_early(&mut plain);
        all.extend_from_slice(&plain[..early]);
        for piece in bytes.chunks(size) {
            let unread = self.session.put_unread(&mut records).unwrap();
            records[unread..unread + piece.len()].copy_from_slice(piece);
            let len = self.session.read(&mut records[..unread + piece.len()], &mut plain)?;
            all.extend_from_slice(&plain[..len]);
        }
        Ok(all)
    }

    fn write(&mut self, plain: &[u8]) {
        let mut records = vec![0; RECORDS];
        let len = self.session.write(plain, &mut records).unwrap();
        self.session.hold(&records[..len]);
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

#[test]
fn bytes_may_be_cut_anywhere() {
    for version in VERSIONS {
        for size in [1, 2, 7, 100, 1 << 20] {
            let mut pair = Pair::new(version);
            pair.shake_hands(size);
            let text: Vec<u8> = (0..40_000_u32).map(|i| i as u8).collect();
            pair.client.writer().write_all(&text).unwrap();
            let bytes = pair.sent_by_client();
            assert!(pair.read(&bytes, size.min(30_000)).unwrap() == text);

            let answer = vec![7; MAX_PLAIN];
            pair.write(&answer);
            pair.deliver();
            assert!(pair.received == answer);
        }
    }
}

#[test]
fn an_idle_session_owns_no_buffer() {
    for version in VERSIONS {
        let mut pair = Pair::new(version);
        pair.shake_hands(1 << 20);
        pair.client.writer().write_all(b"hello").unwrap();
        let bytes = pair.sent_by_client();
        assert_eq!(pair.read(&bytes, 3).unwrap(), b"hello");
        pair.write(b"hello");
        pair.deliver();
        assert_eq!(pair.session.buffered(), 0);
    }
}

#[test]
fn what_comes_with_the_handshake_is_not_lost() {
    let mut pair = Pair::new(&TLS13);
    let hello = pair.sent_by_client();
    assert!(!pair.session.handshake(&hello).unwrap());
    pair.deliver();
    pair.client.writer().write_all(b"GET /").unwrap();
    let finished = pair.sent_by_client();
    assert!(pair.session.handshake(&finished).unwrap());
    assert!(pair.session.is_ready());
    assert_eq!(pair.read(&[], 1).unwrap(), b"GET /");
    assert!(!pair.session.is_ready());
}

#[test]
fn keys_may_change() {
    let mut pair = Pair::new(&TLS13);
    pair.shake_hands(1 << 20);
    for round in 0..100_u8 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(&[round]).unwrap();
        let bytes = pair.sent_by_client();
        assert_eq!(pair.read(&bytes, 1).unwrap(), [round]);
        // At most one answer waits, however often the peer asks.
        assert!(pair.session.held().len() < 200);
        if round % 10 == 0 {
            pair.write(&[round]);
            pair.deliver();
            assert_eq!(pair.received.pop(), Some(round));
        }
    }
}

#[test]
fn a_farewell_is_told_and_heard() {
    for version in VERSIONS {
        let mut pair = Pair::new(version);
        pair.shake_hands(1 << 20);
        pair.write(b"last words");
        pair.session.close().unwrap();
        pair.deliver();
        assert_eq!(pair.received, b"last words");
        assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0);

        pair.client.writer().write_all(b"bye").unwrap();
        pair.client.send_close_notify();
        let mut bytes = pair.sent_by_client();
        bytes.extend_from_slice(b"whatever");
        assert_eq!(pair.read(&bytes, 1 << 20).unwrap(), b"bye");
        assert!(pair.session.has_ended() && pair.session.is_ready());
    }
}

#[test]
fn a_changed_byte_ends_it_with_an_alert() {
    for version in VERSIONS {
        let mut pair = Pair::new(version);
        pair.shake_hands(1 << 20);
        pair.client.writer().write_all(b"hello").unwrap();
        let mut bytes = pair.sent_by_client();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(pair.read(&bytes, 1 << 20), Err(rustls::Error::DecryptError));
        assert!(!pair.session.held().is_empty());
        assert!(pair.session.write(b"x", &mut vec![0; RECORDS]).is_err());
    }
}

#[test]
fn what_is_incomplete_is_bounded() {
    let mut session = Pair::new(&TLS13).session;
    // The beginning of a ClientHello of 60,000 bytes, one byte in each record.
    let records = |bytes: &[u8]| -> Vec<u8> { bytes.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect() };
    let mut outcome = session.handshake(&records(&[1, 0, 0xEA, 0x60]));
    let mut given = 0;
    while outcome.is_ok() && given < 1 << 20 {
        outcome = session.handshake(&records(&[0; 300]));
        given += 1800;
    }
    assert!(outcome.is_err(), "{given}");
    assert!(given < RECORDS + 2000, "{given}");
}
