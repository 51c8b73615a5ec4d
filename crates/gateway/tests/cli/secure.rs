//! The command line and the client library over TLS.

use std::path::Path;

use fanwire_client::{Api, Client, Config, Error, Publish, Publisher, PublisherConfig, Recovery, Roots};
use rcgen::{CertificateParams, KeyPair};

use crate::library::{confirmed, published};
use crate::server::{KEY, Server};

/// A certificate for the loopback that vouches for itself, in a folder.
fn certificate(folder: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    let files = format!("cert_file = {:?}, key_file = {:?}", folder.join("tls.crt"), folder.join("tls.key"));
    format!("[tls]\npublic = {{ {files} }}\ncontrol = {{ {files} }}\n")
}

fn ca(server: &Server) -> String {
    server.config().replace("fanwire.toml", "tls.crt")
}

#[tokio::test]
async fn everything_works_over_tls() {
    let server = Server::with(certificate);
    assert!(server.public.starts_with("wss://") && server.control.starts_with("https://"), "{}", server.public);
    let roots = Roots::Pem(std::fs::read(ca(&server)).unwrap());
    let client = Client::connect(Config::new(&server.public).roots(roots.clone())).await.unwrap();
    let mut subscription = client.subscribe("chat:a").await.unwrap();
    assert_eq!(confirmed(&mut subscription).await, Recovery::Fresh);

    let api = Api::with_roots(&server.control, &roots).unwrap().key(KEY).unwrap();
    let first = api.publish(Publish::json("chat:a", "over https").unwrap()).await.unwrap();
    let config = PublisherConfig::new(&server.control).roots(roots).key(KEY).unwrap();
    let second = Publisher::new(&config).unwrap().publish(Publish::json("chat:a", "over gRPC").unwrap()).await.unwrap();
    assert_eq!((first.unwrap().offset, second.unwrap().offset), (1, 2));
    assert_eq!(published(&mut subscription).await, "\"over https\"");
    assert_eq!(published(&mut subscription).await, "\"over gRPC\"");
}

#[tokio::test]
async fn strangers_are_not_trusted() {
    let server = Server::with(certificate);
    // The system knows no such authority.
    assert!(matches!(Client::connect(Config::new(&server.public)).await, Err(Error::Unreachable { .. })));
    let publish = || Publish::json("chat:a", &1).unwrap();
    let api = Api::new(&server.control).unwrap().key(KEY).unwrap();
    assert!(matches!(api.publish(publish()).await, Err(Error::Unreachable { .. })));
    let config =
        PublisherConfig::new(&server.control).patience(std::time::Duration::from_millis(200)).key(KEY).unwrap();
    let refused = Publisher::new(&config).unwrap().publish(publish()).await;
    assert!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
}

#[test]
fn the_command_line_speaks_tls() {
    let server = Server::with(certificate);
    let file = ca(&server);
    let said = server.prints(&["publish", "chat:a", "1", "--ca", &file]);
    assert!(said.starts_with("1:"), "{said}");
    assert_eq!(server.prints(&["subscribe", "chat:a", "--all", "--count", "1", "--ca", &file]), "1\n");
    assert_eq!(server.run(&["nodes"]).status.code(), Some(3));
}
