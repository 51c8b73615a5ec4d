//! A process that does nothing but pass bytes on: what a hop through another process costs where no more is done.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::{PATIENCE, Sender, sender};
use crate::error::{Context as _, Error};

/// A relay on the server's core, for one connection. It ends with this value.
pub(crate) struct Relay(Sender);

impl Relay {
    /// Starts one that leads to `to`.
    pub(crate) fn start(to: SocketAddr, server_core: usize, client_core: usize) -> Result<Self, Error> {
        Sender::start(&["limit-relay", &to.to_string()], server_core, client_core).map(Self)
    }

    /// Where it waits for its connection.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// The `limit-relay` command. It ends with its input, or with either of its connections.
pub(crate) fn run(to: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    sockopt::set_socket_timeout(&listener, sockopt::Timeout::Recv, Some(PATIENCE)).context("set a timeout")?;
    sender::say(&format!("port {}", listener.local_addr().context("listen")?.port()))?;
    let (mut near, _) = listener.accept().context("accept")?;
    let mut far = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
    for stream in [&near, &far] {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
    }
    let input = std::io::stdin();
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut waiting = [readable(input.as_fd()), readable(near.as_fd()), readable(far.as_fd())];
        match poll(&mut waiting, None) {
            Err(Errno::INTR) => continue,
            waited => waited.context("poll")?,
        };
        let [over, from_near, from_far] = waiting.map(|fd| !fd.revents().is_empty());
        if over
            || from_near && pass(&mut near, &mut far, &mut scratch)? == 0
            || from_far && pass(&mut far, &mut near, &mut scratch)? == 0
        {
            return Ok(());
        }
    }
}

/// Passes on what is there: how much. Nothing is the end.
fn pass(from: &mut TcpStream, to: &mut TcpStream, scratch: &mut [u8]) -> Result<usize, Error> {
    let count = from.read(scratch).context("read")?;
    to.write_all(&scratch[..count]).context("write")?;
    Ok(count)
}
