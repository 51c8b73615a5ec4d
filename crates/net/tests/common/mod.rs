//! A server with the echo protocol, and a peer that sends whatever bytes it is told to.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "all of it is tests, though none is a test function")]

#[path = "../../examples/echo/echo.rs"]
pub(crate) mod echo;
pub(crate) mod secure;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use echo::Echo;
use fanwire_net::{Limits, Listener, Site, Tls, Workers};
use fanwire_node::{ClientConfig, Config, Node};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server; ends when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) node: Arc<Node>,
    runtime: Option<Runtime>,
    workers: Option<Workers>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    /// What a peer needs to trust it; none if it speaks no TLS.
    trust: Option<Arc<rustls::ClientConfig>>,
}

/// Whether this is a copy of the tests that goes over TLS: see `over_tls.rs`.
fn over_tls() -> bool {
    module_path!().contains("over_tls")
}

impl Server {
    /// Serves the echo protocol at `/`, within these limits.
    pub(crate) fn echo(limits: Limits) -> Self {
        Self::start(Site::new().protocol("/", Arc::new(Echo)).limits(limits), client_config())
    }

    pub(crate) fn start(site: Site, client: ClientConfig) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        if !over_tls() {
            return Self::serve(listener, site, client);
        }
        let identity = secure::Identity::new("gateway.test");
        let tls = Tls::load("public", identity.write("over-tls")).unwrap();
        let mut server = Self::serve(listener.tls(tls.into()), site, client);
        server.trust = Some(secure::trusting(&identity, rustls::ALL_VERSIONS));
        server
    }

    pub(crate) fn serve(listener: Listener, site: Site, client: ClientConfig) -> Self {
        let node = echo::node(Config { client, ..Config::default() }, 2);
        let workers = Workers::start(&node).unwrap();
        let addr = listener.local_addr();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.spawn({
            let node = Arc::clone(&node);
            async move {
                let stopped = async { drop(stopped.await) };
                fanwire_net::serve(listener, node, site, stopped).await.unwrap();
            }
        });
        let (stop, serving) = (Some(stop), Some(serving));
        Self { addr, node, runtime: Some(runtime), workers: Some(workers), stop, serving, trust: None }
    }

    /// Stops accepting.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until what was being answered is answered.
    pub(crate) fn join(&mut self) {
        let serving = self.serving.take().unwrap();
        self.runtime.as_ref().unwrap().block_on(serving).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        self.runtime.take().unwrap().shutdown_background();
        self.workers.take().unwrap().stop();
    }
}

pub(crate) fn client_config() -> ClientConfig {
    ClientConfig { anonymous: true, ..ClientConfig::default() }
}

/// The opening of a WebSocket, with more header lines.
pub(crate) fn opening(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A raw connection. All waiting ends after ten seconds, so that a test fails rather than hangs.
pub(crate) struct Peer(pub(crate) Wire);

/// What goes over the connection.
pub(crate) enum Wire {
    Tcp(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Peer {
    pub(crate) fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        match &server.trust {
            None => Self(Wire::Tcp(stream)),
            Some(trust) => Self::secured(stream, trust),
        }
    }

    pub(crate) fn secured(stream: TcpStream, trust: &Arc<rustls::ClientConfig>) -> Self {
        let name = "gateway.test".try_into().unwrap();
        let client = rustls::ClientConnection::new(Arc::clone(trust), name).unwrap();
        Self(Wire::Tls(rustls::StreamOwned::new(client, stream).into()))
    }

    /// Connects and opens a WebSocket.
    pub(crate) fn open(server: &Server) -> Self {
        Self::connect(server).opened()
    }

    /// Opens a WebSocket.
    pub(crate) fn opened(mut self) -> Self {
        self.send(opening("/", ""));
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
        self.0.flush().unwrap();
    }

    /// Reads the head of an HTTP answer.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads to the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            // The server closed while bytes were still on the way to it.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            // The server gave the connection up.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => rest,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a request and reads the answer to the end of the stream.
    pub(crate) fn ask(mut self, request: impl AsRef<[u8]>) -> String {
        self.send(request);
        String::from_utf8(self.rest()).unwrap()
    }

    /// Reads a frame: its first byte and its payload.
    pub(crate) fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 2];
        self.0.read_exact(&mut header).unwrap();
        let len = match header[1] {
            126 => {
                let mut len = [0; 2];
                self.0.read_exact(&mut len).unwrap();
                u16::from_be_bytes(len).into()
            }
            127 => {
                let mut len = [0; 8];
                self.0.read_exact(&mut len).unwrap();
                u64::from_be_bytes(len) as usize
            }
            len => len.into(),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).unwrap();
        (header[0], payload)
    }

    /// Sends a text and reads it back.
    pub(crate) fn echo(&mut self, text: &str) {
        self.send(frame(0x81, text.as_bytes()));
        assert_eq!(self.frame(), (0x81, text.as_bytes().to_vec()));
    }

    /// Reads a close frame and the end of the stream; returns the code.
    pub(crate) fn closed(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame();
            if first == 0x88 {
                let mut rest = Vec::new();
                let end = self.0.read_to_end(&mut rest).map_err(|error| error.kind());
                assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?} {rest:?}");
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}

/// A masked frame of minimal length.
pub(crate) fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = vec![first_byte];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
