//! The raw limit of handshakes: what accepting a connection, reading and answering twice, and closing it cost where nothing
//! else is done.
//!
//! The accepting side is a process of its own on the server's core. What comes first on a connection is answered with an
//! upgrade, what comes second with the replies to `connect` and `subscribe`, whatever it says. Both are as long as the gateway's.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

use super::{Sender, sender};
use crate::client::{self, ACCEPT, Endpoint, Who};
use crate::dialect::{Dialect, Purpose};
use crate::error::{Context as _, Error};
use crate::frames::server_text;
use crate::meter;

/// Opens so many connections to an acceptor, the `n`th for `who(n)`: the microseconds of its CPU for each.
pub(crate) fn measure(
    connections: u32,
    who: impl Fn(u32) -> Result<Who, Error>,
    server_core: usize,
    client_core: usize,
) -> Result<f64, Error> {
    let acceptor = Sender::start(&["limit-acceptor"], server_core, client_core)?;
    let endpoints = [Endpoint::usual(acceptor.address, Dialect::Native)];
    let cpu = || meter::cpu_nanoseconds(acceptor.child.id());
    let mut open: Vec<TcpStream> = Vec::with_capacity(connections as usize);
    let before = cpu()?;
    client::open_each(&endpoints, Purpose::Subscribe, 0..connections, who, |stream, _| {
        open.push(stream);
        Ok(())
    })?;
    Ok((cpu()? - before) as f64 / 1e3 / f64::from(connections))
}

/// The `limit-acceptor` command. It ends with its input.
pub(crate) fn run() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    listener.set_nonblocking(true).context("listen")?;
    // Both are inherited by the connections, as the gateway's are.
    sockopt::set_tcp_nodelay(&listener, true).context("set TCP_NODELAY")?;
    sockopt::set_socket_send_buffer_size(&listener, sender::SEND_BUFFER).context("set SO_SNDBUF")?;
    let SocketAddr::V4(address) = listener.local_addr().context("listen")? else {
        return Err(Error::Setup("listening on another address".to_owned()));
    };
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?;
    let input = std::io::stdin();
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN).context("epoll_ctl")?;
    epoll::add(&epoll, &input, epoll::EventData::new_u64(INPUT), epoll::EventFlags::IN).context("epoll_ctl")?;
    sender::say(&format!("port {}", address.port()))?;

    let answers = [upgraded(), replies()];
    let mut connections = Vec::new();
    let mut ready = Vec::with_capacity(256);
    loop {
        ready.clear();
        match epoll::wait(&epoll, spare_capacity(&mut ready), None) {
            Err(Errno::INTR) => continue,
            waited => waited.context("epoll_wait")?,
        };
        for event in &ready {
            match event.data.u64() {
                INPUT => return Ok(()),
                LISTENER => accept_all(&epoll, &listener, &mut connections)?,
                slot => serve(&mut connections[slot as usize], &answers),
            }
        }
    }
}

const LISTENER: u64 = u64::MAX;
const INPUT: u64 = u64::MAX - 1;

/// A connection and how much of it is done, by its descriptor.
type Connections = Vec<Option<(OwnedFd, usize)>>;

fn accept_all(epoll: &OwnedFd, listener: &TcpListener, connections: &mut Connections) -> Result<(), Error> {
    loop {
        let socket = match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(error) => return Err(error).context("accept"),
        };
        let slot = socket.as_raw_fd() as usize;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(slot as u64), epoll::EventFlags::IN)
            .context("epoll_ctl")?;
        if connections.len() <= slot {
            connections.resize_with(slot + 1, || None);
        }
        connections[slot] = Some((socket, 0));
    }
}

/// Answers what came, or closes what is over.
fn serve(connection: &mut Option<(OwnedFd, usize)>, answers: &[Vec<u8>]) {
    let Some((socket, done)) = connection else { return };
    let came = recv(&*socket, &mut [0; 4096], RecvFlags::DONTWAIT);
    let goes_on = match (came, answers.get(*done)) {
        (Err(Errno::AGAIN | Errno::INTR), _) => true,
        (Ok((_, 1..)), Some(answer)) => {
            *done += 1;
            send(&*socket, answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
        }
        _ => false,
    };
    if !goes_on {
        *connection = None;
    }
}

fn upgraded() -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {ACCEPT}\r\ndate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\r\n"
    )
    .into_bytes()
}

fn replies() -> Vec<u8> {
    let client = "00000000-0000-4000-8000-000000000000";
    let connected = format!(
        r#"{{"id":1,"connect":{{"client":"{client}","version":"0.1.0","expires":true,"ttl":3600,"ping":25,"pong":true}}}}"#
    );
    [server_text(connected.as_bytes()), server_text(br#"{"id":2,"subscribe":{}}"#)].concat()
}
