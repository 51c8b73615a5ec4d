//! Certificates, and clients that trust them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanwire_net::TlsFiles;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A certificate that vouches for itself, and its key.
pub(crate) struct Identity {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(&CertificateParams::new([name.to_owned()]).unwrap())
    }

    pub(crate) fn with(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self { cert_pem: cert.pem(), cert: cert.into(), key_pem: key.serialize_pem() }
    }

    /// Writes it into a folder of its own.
    pub(crate) fn write(&self, test: &str) -> TlsFiles {
        let folder = folder(test);
        self.write_to(&folder);
        TlsFiles { cert_file: folder.join("tls.crt"), key_file: folder.join("tls.key"), client_ca_file: None }
    }

    pub(crate) fn write_to(&self, folder: &std::path::Path) {
        std::fs::write(folder.join("tls.crt"), &self.cert_pem).unwrap();
        std::fs::write(folder.join("tls.key"), &self.key_pem).unwrap();
    }
}

/// A new folder.
pub(crate) fn folder(test: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = format!("{}/{test}-{}-{number}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::create_dir_all(&folder).unwrap();
    folder.into()
}

/// A client that trusts this certificate.
pub(crate) fn trusting(identity: &Identity, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.cert.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
    let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    builder.with_no_client_auth().into()
}
