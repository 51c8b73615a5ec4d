//! The sending process of the raw limit.
//!
//! It talks to its parent in lines: it says `port N` and, when all sockets are there, `ready`; it is
//! told `run F` (frames per write) and `stop`, and says `sent N`. It ends with its input.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use rustix::net::{SendFlags, send, sockopt};

use crate::args::LimitSenderArgs;
use crate::clock::timespec;
use crate::dialect::numbers::{MIN_PAYLOAD, payload};
use crate::error::{Context as _, Error};
use crate::frames::server_text;
use crate::limit::QUESTIONS;

/// The `limit-sender` command.
pub(crate) fn run(args: &LimitSenderArgs) -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    sockopt::set_socket_timeout(&listener, sockopt::Timeout::Recv, Some(PATIENCE)).context("set a timeout")?;
    let port = listener.local_addr().context("listen")?.port();
    say(&format!("port {port}"))?;
    let sockets = (0..args.connections).map(|_| accept(&listener)).collect::<Result<Vec<_>, _>>()?;
    say("ready")?;

    let Some(frames_per_write) =
        hear()?.as_deref().and_then(|line| line.strip_prefix("run ").and_then(|text| text.parse::<f64>().ok()))
    else {
        return Err(Error::Setup("expected `run F`".to_owned()));
    };
    let sent = sweep_until_told(&sockets, frames_per_write, &frame(args.frame_bytes))?;
    say(&format!("sent {sent}"))?;
    // The sockets stay open until the reader has everything.
    while hear()?.is_some() {}
    Ok(())
}

/// A publication's frame of exactly `size` bytes.
pub(crate) fn frame(size: u32) -> Vec<u8> {
    let with_data = |data: u32| {
        server_text(format!(r#"{{"push":{{"channel":"bench","pub":{{"data":{}}}}}}}"#, payload(0, data)).as_bytes())
    };
    // The header grows at 126 and at 65,536 bytes; sizes that cannot be met exactly are rounded up.
    let around = with_data(MIN_PAYLOAD).len() as u32 - MIN_PAYLOAD;
    let mut data = size.saturating_sub(around + 8);
    loop {
        let frame = with_data(data);
        if frame.len() >= size as usize {
            return frame;
        }
        data += 1;
    }
}

/// As the gateway sets it on its own sockets: deep kernel queues would be another experiment.
pub(super) const SEND_BUFFER: usize = 64 * 1024;

/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(10);

fn accept(listener: &TcpListener) -> Result<TcpStream, Error> {
    let (mut socket, _) = listener.accept().context("accept")?;
    socket.set_nodelay(true).context("set TCP_NODELAY")?;
    socket.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
    for _ in 0..QUESTIONS {
        socket.read_exact(&mut [0]).and_then(|()| socket.write_all(b"!")).context("answer the reader")?;
    }
    socket.set_nonblocking(true).context("set nonblocking")?;
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER).context("set SO_SNDBUF")?;
    Ok(socket)
}

/// Sends to one socket after the other until the parent says stop; the number of frames sent.
fn sweep_until_told(sockets: &[TcpStream], frames_per_write: f64, frame: &[u8]) -> Result<u64, Error> {
    let most = frames_per_write.ceil() as usize;
    let frames = frame.repeat(most);
    // The parent is listened to about once per thousand writes: seldom enough to cost nothing.
    let sweeps_between = 1_000usize.div_ceil(sockets.len());
    let (mut sent, mut owed) = (0, 0.0);
    loop {
        for _ in 0..sweeps_between {
            // A fraction is reached on average: what one sweep rounds off, a later one adds.
            owed += frames_per_write;
            let count = (owed as usize).min(most);
            owed -= count as f64;
            let bytes = &frames[..count * frame.len()];
            for socket in sockets {
                send_all(socket, bytes)?;
            }
            sent += (count * sockets.len()) as u64;
        }
        if told_something()? {
            return Ok(sent);
        }
    }
}

fn send_all(socket: &TcpStream, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) => {
                let mut full = [PollFd::new(socket, PollFlags::OUT)];
                if poll(&mut full, Some(&timespec(PATIENCE))).context("poll")? == 0 {
                    return Err(Error::Setup("a socket stayed full".to_owned()));
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("send"),
        }
    }
    Ok(())
}

fn told_something() -> Result<bool, Error> {
    let input = io::stdin();
    let mut waiting = [PollFd::new(&input, PollFlags::IN)];
    let ready = poll(&mut waiting, Some(&timespec(Duration::ZERO))).context("poll")?;
    Ok(ready > 0)
}

/// A line of the parent; `None` at the end of the input. Unbuffered, because [`told_something`] looks
/// at the descriptor itself.
fn hear() -> Result<Option<String>, Error> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match read(io::stdin(), &mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if byte[0] == b'\n' => {
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            Ok(_) if line.len() < 1024 => line.push(byte[0]),
            Ok(_) => return Err(Error::Setup("the parent's line is too long".to_owned())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("read a line"),
        }
    }
}

pub(super) fn say(line: &str) -> Result<(), Error> {
    let mut output = io::stdout();
    writeln!(output, "{line}").and_then(|()| output.flush()).context("talk to the parent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_size() {
        for size in [100, 127, 130, 176, 1_000, 60_000] {
            assert_eq!(frame(size).len(), size as usize, "{size}");
        }
        assert_eq!(frame(128).len(), 130, "no frame has 128 or 129 bytes");
    }
}
