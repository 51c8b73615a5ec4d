//! From an address to an open WebSocket.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri, header};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::{BoxError, Error, Roots};

/// How long opening may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest message, in bytes: 300 publications of the largest size a gateway takes by default fit three times.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The read buffer of a connection, in bytes.
const READ_BUFFER: usize = 16 * 1024;

/// Bytes both ways: TCP, or TLS over it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<Box<dyn Io>>;

/// Where to connect, and whom to trust there.
pub(crate) struct Endpoint {
    url: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Endpoint {
    /// Reads an address.
    pub(crate) fn new(url: &str, roots: &Roots) -> Result<Self, Error> {
        let wrong = || Error::Usage(format!("{url:?} is no ws:// or wss:// address"));
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        // An address of IPv6 stands in brackets.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = match uri.path_and_query().map(|path| path.as_str()) {
            None | Some("" | "/") => "/connection/websocket",
            Some(path) => path,
        };
        let tls = match secure {
            true => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
                Some((TlsConnector::from(Arc::new(roots.client()?)), name))
            }
            false => None,
        };
        Ok(Self {
            url: format!("{}://{authority}{path}", if secure { "wss" } else { "ws" }),
            host,
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls,
        })
    }

    /// What is dialled, for messages.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Opens a WebSocket.
    pub(crate) async fn dial(&self) -> Result<Socket, Error> {
        timeout(PATIENCE, self.open()).await.unwrap_or_else(|late| Err(self.unreachable(late)))
    }

    async fn open(&self) -> Result<Socket, Error> {
        let tcp = TcpStream::connect((&*self.host, self.port)).await.map_err(|error| self.unreachable(error))?;
        tcp.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        let stream: Box<dyn Io> = match &self.tls {
            None => Box::new(tcp),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await;
                Box::new(stream.map_err(|error| self.unreachable(error))?)
            }
        };
        let mut request = self.url.as_str().into_client_request().map_err(|error| self.refused(error))?;
        let protocol = HeaderValue::from_static("centrifuge-protobuf");
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let opened = client_async_with_config(request, stream, Some(limits)).await;
        opened.map(|(socket, _)| socket).map_err(|error| self.refused(error))
    }

    fn unreachable(&self, source: impl Into<BoxError>) -> Error {
        Error::Unreachable { url: self.url.clone(), source: source.into() }
    }

    fn refused(&self, error: tungstenite::Error) -> Error {
        let url = self.url.clone();
        match error {
            tungstenite::Error::Http(response) => {
                let seconds =
                    response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let retry_after = seconds.map(|seconds: u32| Duration::from_secs(seconds.into()));
                Error::Status { url, status: response.status().as_u16(), retry_after }
            }
            tungstenite::Error::Io(error) => self.unreachable(error),
            error => Error::Foreign { url, source: error.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let roots = Roots::System;
        let endpoint = Endpoint::new("ws://[::1]:8000", &roots).unwrap();
        assert_eq!((&*endpoint.host, endpoint.port), ("::1", 8000));
        assert_eq!(endpoint.url(), "ws://[::1]:8000/connection/websocket");
        let endpoint = Endpoint::new("http://example.com/elsewhere?a=b", &roots).unwrap();
        assert_eq!((endpoint.url(), endpoint.port), ("ws://example.com/elsewhere?a=b", 80));
        for wrong in ["", "example.com", "ftp://example.com", "ws://"] {
            assert!(matches!(Endpoint::new(wrong, &roots), Err(Error::Usage(_))), "{wrong}");
        }
        let nobody = Roots::Pem(Vec::new());
        assert!(matches!(Endpoint::new("wss://example.com", &nobody), Err(Error::Usage(_))));
    }
}
