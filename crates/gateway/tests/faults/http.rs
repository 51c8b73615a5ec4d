//! HTTP in a few lines: one connection, one request at a time.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A client of one address.
#[derive(Debug)]
pub(crate) struct Http {
    address: SocketAddr,
    /// Kept for the next request; not while one is under way, so that an abandoned one leaves nothing half read behind.
    idle: Option<BufReader<TcpStream>>,
}

/// The key of the control plane.
pub(crate) const API_KEY: &str = "the-key-of-these-tests";

impl Http {
    /// Makes a client; it connects when it is needed.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, idle: None }
    }

    /// Reads a page.
    pub(crate) async fn get(&mut self, path: &str) -> io::Result<(u16, String)> {
        self.ask("GET", path, "").await
    }

    /// Calls a method of the control plane; returns the body of the answer.
    pub(crate) async fn api(&mut self, method: &str, params: &str) -> io::Result<String> {
        let (status, body) = self.ask("POST", &format!("/api/{method}"), params).await?;
        if status == 200 { Ok(body) } else { Err(io::Error::other(format!("status {status}: {body}"))) }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let mut stream = match self.idle.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let (address, length) = (self.address, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {API_KEY}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let status = line(&mut stream).await?;
        let status =
            status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut length = 0;
        loop {
            let header = line(&mut stream).await?.to_ascii_lowercase();
            match header.split_once(':') {
                Some(("content-length", value)) => {
                    length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        self.idle = Some(stream);
        Ok((status, String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData)?))
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}
