//! TLS: a listener's certificate, which may change while it is served, and its connections.

mod accept;
mod certificate;
mod certificate_metrics;
mod metrics;
mod session;
mod socket;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use serde::{Deserialize, Serialize};

pub(crate) use accept::{Failure, accept, accept_http};
pub use certificate::ClientName;
pub(crate) use metrics::Handshakes;
pub(crate) use session::Session;
pub(crate) use socket::TlsSocket;

use certificate::Material;
use certificate_metrics::Reloads;

/// Where a listener's certificate is: PEM files. They are read again when their content changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and behind it those that lead to an authority.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The authorities of clients' certificates. With them, a client without a valid certificate is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file has not what it should have.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate and the key do not fit, or cannot be used.
    #[error("{cert} and {key}: {reason}")]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The TLS of a listener: TLS 1.2 and 1.3, with a certificate that may change while it is served.
pub struct Tls {
    listener: &'static str,
    files: TlsFiles,
    current: RwLock<Current>,
    /// What the files had when they were last read, good or not.
    seen: Mutex<[u8; 20]>,
    reloads: Reloads,
}

/// What new connections get.
struct Current {
    /// On a worker: HTTP/1.1, whose connections can become WebSockets.
    workers: Arc<ServerConfig>,
    /// For a site without client protocols: HTTP/2 as well.
    http: Arc<ServerConfig>,
    not_after: SystemTime,
}

impl Tls {
    /// Reads the files of the listener that metrics and logs call `listener`.
    ///
    /// # Errors
    ///
    /// [`TlsError`]
    pub fn load(listener: &'static str, files: TlsFiles) -> Result<Self, TlsError> {
        let material = Material::read(&files)?;
        let current = Current::new(&material, &files)?;
        let tls = Self {
            listener,
            files,
            current: RwLock::new(current),
            seen: Mutex::new(material.digest),
            reloads: Reloads::new(listener),
        };
        tls.reloads.expires(tls.not_after());
        Ok(tls)
    }

    /// Reads the files again. If they have something else than last time, new connections get it, and open ones stay; true
    /// then.
    ///
    /// # Errors
    ///
    /// Something is wrong with them: what was good before goes on. Told once for each content.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock();
        let read = Material::read(&self.files);
        let digest = match &read {
            Ok(material) => material.digest,
            Err(error) => certificate::digest([format!("{error:?}").as_bytes()]),
        };
        if std::mem::replace(&mut *seen, digest) == digest {
            return Ok(false);
        }
        let renewed = read.and_then(|material| self.renew(&material));
        self.reloads.count(renewed.is_ok());
        renewed.map(|()| true)
    }

    /// When the certificate is no longer valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.current.read().not_after
    }

    /// What the listener is called.
    #[must_use]
    pub fn listener(&self) -> &'static str {
        self.listener
    }

    fn renew(&self, material: &Material) -> Result<(), TlsError> {
        let renewed = Current::new(material, &self.files)?;
        let now = SystemTime::now();
        if renewed.not_after <= now && self.not_after() > now {
            let reason = "it has expired, and the one before has not".to_owned();
            return Err(TlsError::Content { path: self.files.cert_file.clone(), reason });
        }
        self.reloads.expires(renewed.not_after);
        *self.current.write() = renewed;
        Ok(())
    }

    pub(crate) fn for_workers(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().workers)
    }

    pub(crate) fn for_http(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().http)
    }
}

/// How often `keep_fresh` looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Reads the files of `listeners` again every ten seconds. By content, for a mounted secret changes by a symbolic link that
/// no notification tells of.
pub async fn keep_fresh(listeners: Vec<Arc<Tls>>) {
    let mut times = tokio::time::interval(LOOK_EVERY);
    loop {
        times.tick().await;
        let listeners = listeners.clone();
        // Fails only if it panics; then the next look is as good.
        let _ = tokio::task::spawn_blocking(move || listeners.iter().for_each(|tls| refresh_and_tell(tls))).await;
    }
}

/// Reads the files of a listener again, and says in the log what came of it.
pub fn refresh_and_tell(tls: &Tls) {
    match tls.refresh() {
        Ok(true) => tracing::info!(listener = tls.listener, "a new certificate is in use"),
        Ok(false) => {}
        Err(error) => {
            let cause = std::error::Error::source(&error).map(tracing::field::display);
            tracing::warn!(listener = tls.listener, %error, cause, "the certificate files are no good: the one before stays");
        }
    }
}

impl Current {
    fn new(material: &Material, files: &TlsFiles) -> Result<Self, TlsError> {
        let pair = |error: &dyn fmt::Display| TlsError::Pair {
            cert: files.cert_file.clone(),
            key: files.key_file.clone(),
            reason: error.to_string(),
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| pair(&error))?;
        let builder = match &material.client_authorities {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| pair(&error))?)
            }
        };
        let mut config =
            builder.with_single_cert(material.chain.clone(), material.key.clone_key()).map_err(|error| pair(&error))?;
        // Nothing is remembered between connections: a client keeps its own ticket. Not where it must show a certificate,
        // which a ticket would outlive.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if material.client_authorities.is_none() {
            config.ticketer = ring::Ticketer::new().map_err(|error| pair(&error))?;
        }
        config.send_tls13_tickets = 1;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http = config.clone();
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { workers: Arc::new(config), http: Arc::new(http), not_after: material.not_after })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("listener", &self.listener).field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
