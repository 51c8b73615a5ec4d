//! Whom to trust.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::{BoxError, Error};

/// The authorities whose certificates are accepted from servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those of the system.
    #[default]
    System,
    /// Those in a PEM document, and no others.
    Pem(Vec<u8>),
}

impl Roots {
    /// TLS as a client that trusts them.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there is no usable certificate.
    pub(crate) fn client(&self) -> Result<ClientConfig, Error> {
        let mut store = RootCertStore::empty();
        match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
            }
            Self::Pem(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let added = certificate.map_err(BoxError::from).and_then(|one| Ok(store.add(one)?));
                    added.map_err(|error| Error::Usage(format!("the authority's certificate: {error}")))?;
                }
            }
        }
        if store.is_empty() {
            return Err(Error::Usage("no certificate of an authority to trust".to_owned()));
        }
        trusting(store)
    }
}

/// TLS as a client that trusts these. An empty store trusts nobody: for where no TLS is spoken.
pub(crate) fn trusting(store: RootCertStore) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Usage(format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}
