//! What is peculiar to TLS; `over_tls.rs` has all that is as without it.

#![allow(clippy::unwrap_used, reason = "all of it is tests, though not all are test functions")]

mod common;

use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use common::echo::Echo;
use common::secure::{Identity, folder, trusting};
use common::{Peer, Server, Wire, client_config, frame};
use fanwire_net::{Limits, Listener, Site, Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};

/// A server of the echo protocol with this certificate.
fn server(tls: &Arc<Tls>, limits: Limits) -> Server {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap().tls(Arc::clone(tls));
    Server::serve(listener, Site::new().protocol("/", Arc::new(Echo)).limits(limits), client_config())
}

fn load(files: TlsFiles) -> Arc<Tls> {
    Tls::load("public", files).unwrap().into()
}

fn connect(server: &Server, trust: &Arc<ClientConfig>) -> Peer {
    let stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Peer::secured(stream, trust)
}

fn agreed(peer: &Peer) -> &rustls::ClientConnection {
    let Wire::Tls(stream) = &peer.0 else { panic!("not over TLS") };
    &stream.conn
}

#[test]
fn both_versions_and_tickets() {
    let identity = Identity::new("gateway.test");
    let server = server(&load(identity.write("versions")), Limits::default());
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let trust = trusting(&identity, &[version]);
        for expected_kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut peer = connect(&server, &trust).opened();
            peer.echo("hello");
            peer.send(frame(0x82, &[7; 65536]));
            assert_eq!(peer.frame(), (0x82, vec![7; 65536]));
            assert_eq!(agreed(&peer).protocol_version(), Some(expected));
            assert_eq!(agreed(&peer).handshake_kind(), Some(expected_kind));
        }
    }
}

#[test]
fn only_http_1_is_offered() {
    let identity = Identity::new("gateway.test");
    let server = server(&load(identity.write("alpn")), Limits::default());
    let mut trust = ClientConfig::clone(&trusting(&identity, &[&TLS13]));
    trust.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let peer = connect(&server, &trust.clone().into()).opened();
    assert_eq!(agreed(&peer).alpn_protocol(), Some(&b"http/1.1"[..]));
    trust.alpn_protocols = vec![b"h2".to_vec()];
    let Wire::Tls(mut stream) = connect(&server, &trust.into()).0 else { unreachable!() };
    let refused = stream.conn.complete_io(&mut stream.sock).unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    // As Kubernetes mounts a secret: links to a folder that is exchanged.
    let root = folder("swap");
    let [first, second] = ["first", "second"].map(|name| {
        let identity = Identity::new("gateway.test");
        std::fs::create_dir(root.join(name)).unwrap();
        identity.write_to(&root.join(name));
        identity
    });
    let point_to = |name: &str| {
        symlink(name, root.join("new")).unwrap();
        std::fs::rename(root.join("new"), root.join("data")).unwrap();
    };
    point_to("first");
    let files =
        TlsFiles { cert_file: root.join("data/tls.crt"), key_file: root.join("data/tls.key"), client_ca_file: None };
    let tls = load(files);
    let server = server(&tls, Limits::default());
    let [old, new] = [&first, &second].map(|identity| trusting(identity, rustls::ALL_VERSIONS));
    let mut open = connect(&server, &old).opened();
    open.echo("before");
    assert!(!tls.refresh().unwrap(), "nothing has changed");

    // Half of a change: the key does not fit.
    std::fs::create_dir(root.join("half")).unwrap();
    second.write_to(&root.join("half"));
    std::fs::write(root.join("half/tls.key"), &first.key_pem).unwrap();
    point_to("half");
    let error = tls.refresh().unwrap_err().to_string();
    assert!(error.contains("tls.crt and ") && error.contains("KeyMismatch"), "{error}");
    assert!(!tls.refresh().unwrap(), "told once");
    connect(&server, &old).opened().echo("as before");

    std::fs::remove_file(root.join("data")).unwrap();
    assert!(tls.refresh().unwrap_err().to_string().starts_with("cannot read "));
    connect(&server, &old).opened().echo("as before");

    point_to("second");
    assert!(tls.refresh().unwrap());
    connect(&server, &new).opened().echo("the new one");
    let Wire::Tls(mut stream) = connect(&server, &trusting(&first, rustls::ALL_VERSIONS)).0 else { unreachable!() };
    assert!(stream.conn.complete_io(&mut stream.sock).is_err(), "the old one is not shown any more");
    open.echo("still here");
}

#[test]
fn connections_come_and_stay_while_certificates_change() {
    let identities = [Identity::new("gateway.test"), Identity::new("gateway.test")];
    let files = identities[0].write("load");
    let root = files.cert_file.parent().unwrap().to_owned();
    let tls = load(files);
    let server = server(&tls, Limits::default());
    let mut trust = rustls::RootCertStore::empty();
    identities.iter().for_each(|identity| trust.add(identity.cert.clone()).unwrap());
    let trust: Arc<_> = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trust)
        .with_no_client_auth()
        .into();
    let mut open = Vec::new();
    for round in 0..20 {
        identities[(round + 1) % 2].write_to(&root);
        let changing = std::thread::spawn({
            let tls = Arc::clone(&tls);
            move || tls.refresh().unwrap()
        });
        open.extend((0..3).map(|_| connect(&server, &trust).opened()));
        assert!(changing.join().unwrap());
        for peer in &mut open {
            peer.echo("still here");
        }
    }
}

#[test]
fn the_end_of_a_certificate_is_known() {
    let valid_until = |year| {
        let mut params = CertificateParams::new(["gateway.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Identity::with(&params)
    };
    let files = valid_until(2040).write("expiry");
    let tls = load(files.clone());
    // 2040-01-01.
    assert_eq!(tls.not_after(), UNIX_EPOCH + Duration::from_secs(2_208_988_800));
    valid_until(2001).write_to(files.cert_file.parent().unwrap());
    let refused = tls.refresh().unwrap_err().to_string();
    assert!(refused.ends_with("it has expired, and the one before has not"), "{refused}");
    assert_eq!(tls.not_after(), UNIX_EPOCH + Duration::from_secs(2_208_988_800));
}

#[test]
fn clients_show_certificates_where_they_must() {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::from_params(&params, &authority_key);
    let identity = Identity::new("gateway.test");
    let mut files = identity.write("clients");
    let authority_file = files.cert_file.with_file_name("ca.crt");
    std::fs::write(&authority_file, authority.pem()).unwrap();
    files.client_ca_file = Some(authority_file);

    // Both kinds of site: on the workers, and of HTTP alone, which learns the name.
    let listener = || Listener::bind(([127, 0, 0, 1], 0).into()).unwrap().tls(load(files.clone()));
    let who: fanwire_net::Handler = Arc::new(|request| {
        let name = request.extensions().get::<fanwire_net::ClientName>().map(|name| name.0.to_string());
        Box::pin(std::future::ready(http::Response::new(name.unwrap_or_default().into())))
    });
    let workers = Server::serve(listener(), Site::new().protocol("/", Arc::new(Echo)), client_config());
    let http = Server::serve(listener(), Site::new().http("/", 0, who), client_config());

    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["billing.test".to_owned()]).unwrap();
    let good = own.signed_by(&key, &issuer).unwrap();
    let bad = own.self_signed(&key).unwrap();
    let nobody = trusting(&identity, rustls::ALL_VERSIONS);
    let shows = |cert: &rcgen::Certificate| {
        let mut trust = rustls::RootCertStore::empty();
        trust.add(identity.cert.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(trust);
        let config = builder
            .with_client_auth_cert(
                vec![cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Arc::new(config)
    };
    connect(&workers, &shows(&good)).opened().echo("hello");
    let answer = connect(&http, &shows(&good)).ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nbilling.test"), "{answer}");
    for server in [&workers, &http] {
        for stranger in [&nobody, &shows(&bad)] {
            let Wire::Tls(mut stream) = connect(server, stranger).0 else { unreachable!() };
            // In TLS 1.3 the client is done before the server has looked.
            let ended =
                stream.conn.complete_io(&mut stream.sock).and_then(|_| std::io::Read::read(&mut stream, &mut [0]));
            assert!(ended.is_err(), "{ended:?}");
        }
    }
}
