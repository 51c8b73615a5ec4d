//! Redis's protocol, as far as a test speaks it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A string, or nothing.
    Bytes(Option<Vec<u8>>),
    /// A number.
    Number(i64),
    /// A list.
    List(Vec<Self>),
}

impl Value {
    /// The string as text.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Bytes(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The items of a list.
    pub(crate) fn items(self) -> Vec<Self> {
        match self {
            Self::List(items) => items,
            other => panic!("no list: {other:?}"),
        }
    }
}

/// Runs one command on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, command: &[&str]) -> io::Result<Value> {
    timeout(Duration::from_secs(10), async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        stream.write_all(&encode(command)).await?;
        answer(&mut stream).await
    })
    .await?
}

/// A command's bytes.
pub(crate) fn encode(command: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Reads one answer.
async fn answer(stream: &mut BufReader<TcpStream>) -> io::Result<Value> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
    let number = || rest.parse::<i64>().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
    match kind {
        "+" => Ok(Value::Bytes(Some(rest.into()))),
        "-" => Err(io::Error::other(rest.to_owned())),
        ":" => number().map(Value::Number),
        "$" => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Value::Bytes(None)) };
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).await?;
            bytes.truncate(length);
            Ok(Value::Bytes(Some(bytes)))
        }
        "*" => {
            let mut items = Vec::new();
            for _ in 0..number()? {
                items.push(Box::pin(answer(stream)).await?);
            }
            Ok(Value::List(items))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
