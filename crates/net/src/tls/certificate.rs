//! Certificates as files, and what is read in them.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha1::{Digest, Sha1};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{TlsError, TlsFiles};

/// What the files of a listener have.
pub(super) struct Material {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) client_authorities: Option<Arc<RootCertStore>>,
    pub(super) not_after: SystemTime,
    /// Of all files together.
    pub(super) digest: [u8; 20],
}

impl Material {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let (cert, key) = (read(&files.cert_file)?, read(&files.key_file)?);
        let authorities = files.client_ca_file.as_deref().map(read).transpose()?;
        let digest = digest([&cert[..], &key, authorities.as_deref().unwrap_or_default()]);

        let chain = certificates(&cert, &files.cert_file)?;
        let not_after = not_after(&chain[0]).ok_or_else(|| content(&files.cert_file, "no readable certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| content(&files.key_file, "no private key in PEM (without a password)"))?;
        let client_authorities = match (&files.client_ca_file, authorities) {
            (Some(path), Some(pem)) => Some(roots(&pem, path)?),
            _ => None,
        };
        Ok(Self { chain, key, client_authorities, not_after, digest })
    }
}

/// Of several pieces, each with its length.
pub(super) fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; 20] {
    let add = |digest: Sha1, piece: &[u8]| digest.chain_update(piece.len().to_be_bytes()).chain_update(piece);
    pieces.into_iter().fold(Sha1::new(), add).finalize().into()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn content(path: &Path, reason: &str) -> TlsError {
    TlsError::Content { path: path.to_owned(), reason: reason.to_owned() }
}

/// One or more.
fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| content(path, "no certificates in PEM"))
}

fn roots(pem: &[u8], path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).map_err(|error| content(path, &error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().validity().not_after.to_system_time())
}

/// The name in the certificate that a client showed: its first DNS name, URI or address, else its subject. Among a request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName(pub Arc<str>);

impl ClientName {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let tbs = certificate.tbs_certificate();
        let alternative = tbs.get_extension::<SubjectAltName>().ok().flatten();
        let alternative = alternative.and_then(|(_, names)| {
            names.0.iter().find_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.to_string()),
                GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
                GeneralName::Rfc822Name(name) => Some(name.to_string()),
                _ => None,
            })
        });
        Some(Self(alternative.unwrap_or_else(|| tbs.subject().to_string()).into()))
    }
}
