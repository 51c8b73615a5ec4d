//! The TLS handshake, before a connection is anybody's.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::{Error, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::ClientName;
use super::session::Session;

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// The peer left, or the network failed.
    #[error("the peer left")]
    Left,
    /// One of the sides did not like what the other said.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl Failure {
    /// The metric's word for each.
    pub(super) const NAMES: [&'static str; 7] =
        ["timeout", "left", "not_tls", "nothing_in_common", "client_certificate", "refused_by_client", "error"];

    pub(super) fn index(&self) -> usize {
        match self {
            Self::Timeout => 0,
            Self::Left => 1,
            Self::Refused(Error::InvalidMessage(_)) => 2,
            Self::Refused(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => 3,
            Self::Refused(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => 4,
            Self::Refused(Error::AlertReceived(_)) => 5,
            Self::Refused(_) => 6,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::Refused(error.clone()),
            None => Self::Left,
        }
    }
}

/// The handshake of a connection that will be a worker's. Bounded by what rustls takes: 64 KiB for a message.
pub(crate) async fn accept(stream: &TcpStream, config: Arc<ServerConfig>) -> Result<Session, Failure> {
    let mut session = Session::new(config)?;
    let mut input = [0; 2048];
    loop {
        stream.readable().await?;
        let len = match stream.try_read(&mut input) {
            Ok(0) => return Err(Failure::Left),
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error.into()),
        };
        let advanced = session.handshake(&input[..len]);
        while !session.held().is_empty() {
            match stream.try_write(session.held()) {
                Ok(sent) => session.sent(sent),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    stream.writable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if advanced? {
            return Ok(session);
        }
    }
}

/// The handshake of a connection for HTTP alone, with the name of the client if it had to show a certificate.
pub(crate) async fn accept_http(
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<(TlsStream<TcpStream>, Option<ClientName>), Failure> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let name = certificates.and_then(|chain| chain.first()).and_then(ClientName::of);
    Ok((stream, name))
}
