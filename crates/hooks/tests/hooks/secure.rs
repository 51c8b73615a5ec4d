//! Backends over TLS, with an authority of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanwire_node::hooks::{Hooks, Renewal};
use futures_util::future::ready;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::backend::{Answer, Backend, Said, serve_secure};
use crate::{asker, hook, unanswered};

/// An authority, in a file, and a backend with a certificate of it for `name`.
struct Secure {
    backend: Backend,
    ca_file: PathBuf,
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

impl Secure {
    async fn serve(name: &str, alpn: &[&str], answer: Answer) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = authority.self_signed(&authority_key).unwrap().pem();
        let (key, issuer) = (KeyPair::generate().unwrap(), Issuer::new(authority, authority_key));
        let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = config.with_single_cert(vec![CertificateDer::from(cert)], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let ca_file = format!("{}/hook-ca-{}-{number}.pem", env!("CARGO_TARGET_TMPDIR"), std::process::id()).into();
        std::fs::write(&ca_file, ca_pem).unwrap();
        Self { backend: serve_secure(answer, TlsAcceptor::from(Arc::new(config))).await, ca_file }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.backend.address)
    }

    fn trust(&self) -> String {
        format!("ca_file = {:?}\ntimeout = \"30s\"", self.ca_file)
    }
}

fn fine() -> Answer {
    Arc::new(|_| Box::pin(ready(Said::Json(r#"{"result":{}}"#))))
}

/// A gRPC answer with an empty result.
fn fine_message() -> Answer {
    Arc::new(|_| Box::pin(ready(Said::Message(vec![0x0a, 0]))))
}

fn on() -> Result<Renewal, fanwire_node::Failure> {
    Ok(Renewal::Until { expire_at: None, info: None })
}

#[tokio::test]
async fn https_speaks_what_the_backend_offers() {
    for alpn in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let secure = Secure::serve("127.0.0.1", alpn, fine()).await;
        let hooks = hook(&secure.url("https"), &secure.trust());
        for _ in 0..3 {
            assert_eq!(hooks.refresh("a", asker()).await, on(), "{alpn:?}");
        }
        assert_eq!(secure.backend.connections.load(Ordering::Relaxed), 1, "the connection is kept");
        let is_h2 = !secure.backend.asked.lock()[0].headers.contains_key("host");
        assert_eq!(is_h2, alpn.first() == Some(&"h2"));
    }
}

#[tokio::test]
async fn grpcs_works() {
    let secure = Secure::serve("127.0.0.1", &["h2"], fine_message()).await;
    let hooks = hook(&secure.url("grpcs"), &secure.trust());
    assert_eq!(hooks.refresh("a", asker()).await, on());
    assert_eq!(secure.backend.asked.lock()[0].path, "/fanwire.hooks.v1.Hooks/Refresh");
}

#[tokio::test]
async fn strangers_are_told_nothing() {
    let (secure, other) = tokio::join!(
        Secure::serve("127.0.0.1", &["h2", "http/1.1"], fine()),
        Secure::serve("elsewhere.example", &["h2", "http/1.1"], fine())
    );
    for scheme in ["https", "grpcs"] {
        // Of another authority, with another name, and of none that the system knows.
        for (backend, trust) in [(&secure, other.trust()), (&other, other.trust()), (&secure, String::new())] {
            let hooks = hook(&backend.url(scheme), &trust);
            assert_eq!(hooks.refresh("a", asker()).await, unanswered());
        }
    }
    assert!(secure.backend.asked.lock().is_empty() && other.backend.asked.lock().is_empty());
    // Nor is TLS spoken to who speaks none, or the reverse.
    let plain = hook(&secure.url("http"), "");
    assert_eq!(plain.refresh("a", asker()).await, unanswered());
}
