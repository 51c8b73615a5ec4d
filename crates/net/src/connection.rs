//! One open client connection: reads, gives messages to the client's session, answers pings, says goodbye.
//!
//! A million of these may be parked in a read, so the task is small and an idle connection owns no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use fanwire_node::ClientGuard;
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Disconnect, Message};
use futures_util::FutureExt;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use crate::decoder::Decoder;
use crate::reassembly::{Batch, Incoming, Reassembly};
use crate::server::Shared;
use crate::socket::Duplex;

/// An open client connection.
pub(crate) struct Connection<S> {
    client: ClientGuard,
    socket: S,
    shared: Arc<Shared>,
    reassembly: Reassembly,
    /// Bytes that were read and not looked at: those before the connection was open, or because there was enough to do.
    rest: Box<[u8]>,
}

/// Messages, and how the connection ends after them, if it does.
type Received = (Batch, Result<(), Disconnect>);

impl<S: Duplex> Connection<S> {
    /// `early` is what the client sent before the connection was open.
    pub(crate) fn new(client: ClientGuard, socket: S, early: Box<[u8]>, shared: Arc<Shared>) -> Self {
        Self { client, socket, shared, reassembly: Reassembly::default(), rest: early }
    }

    /// Runs the connection to its end.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async function keeps its argument twice, 64 bytes for each connection"
    )]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> {
        async move {
            if AssertUnwindSafe(self.serve()).catch_unwind().await.is_err() {
                self.shared.metrics.panics.increment(1);
                self.client.close(Disconnect::ServerError);
            }
            // Until the peer has read the last frame and left; the node ends it otherwise.
            if self.client.is_closed() {
                while poll_fn(|cx| poll_read(&self.socket, cx, |_, _| ())).await.is_ok_and(|more| more.is_some()) {}
            }
        }
    }

    /// Serves the client until it leaves or is closed.
    async fn serve(&mut self) {
        if let Err(disconnect) = self.client.begin().await.and_then(|()| self.client.flush()) {
            self.client.close(disconnect);
        }
        while !self.client.is_closed() {
            // In a box, and nothing else kept while it runs, for an idle connection would keep room for it.
            let handling = match self.next().await {
                Ok(Some(received)) => Box::pin(self.handle(received)),
                Ok(None) | Err(_) => return,
            };
            if let Err(disconnect) = handling.await {
                self.client.close(disconnect);
            }
        }
    }

    /// Waits for the next messages; `None` at the end of the stream.
    async fn next(&mut self) -> io::Result<Option<Received>> {
        if !self.rest.is_empty() {
            let rest = mem::take(&mut self.rest);
            return Ok(Some(TOOLS.with_borrow_mut(|tools| self.take(&rest, &mut tools.decoder))));
        }
        if let Some(since) = self.reassembly.incomplete_since() {
            // In a box, for the timer is larger than all the rest.
            return Box::pin(self.next_until(since, since + self.shared.limits.message_timeout)).await;
        }
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// The same while a message is incomplete.
    async fn next_until(&mut self, since: Instant, deadline: Instant) -> io::Result<Option<Received>> {
        let late = Ok(Some((Batch::new(), Err(Disconnect::PolicyViolation))));
        let Ok(received) = timeout_at(deadline, poll_fn(|cx| self.poll_receive(cx))).await else { return late };
        if self.reassembly.incomplete_since() == Some(since) && Instant::now() >= deadline {
            return late;
        }
        received
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Received>>> {
        poll_read(&self.socket.clone(), cx, |bytes, decoder| {
            self.shared.metrics.received_bytes.increment(bytes.len() as u64);
            self.take(bytes, decoder)
        })
    }

    fn take(&mut self, mut bytes: &[u8], decoder: &mut Decoder) -> Received {
        let mut batch = Batch::new();
        let outcome = self.reassembly.take(&mut bytes, &mut batch, decoder, &self.shared.limits);
        self.rest = bytes.into();
        (batch, outcome)
    }

    /// Does what the client asks for, in its order.
    async fn handle(&self, (batch, outcome): Received) -> Result<(), Disconnect> {
        let client = &self.client;
        let messages = batch.iter().filter(|incoming| matches!(incoming, Incoming::Message(_))).count();
        self.shared.metrics.messages_received.increment(messages as u64);
        for incoming in batch {
            if client.is_closed() {
                return Ok(());
            }
            match incoming {
                Incoming::Message(message) => handle_message(client, message).await?,
                Incoming::Ping(payload) => {
                    client.touch();
                    client.push(finished(Opcode::Pong, &payload).freeze())?;
                }
                Incoming::Close(code) => {
                    let code = code.map(u16::to_be_bytes);
                    let farewell = finished(Opcode::Close, code.as_ref().map_or(b"", |code| &code[..]));
                    client.close_with(Disconnect::ConnectionClosed, farewell);
                }
            }
        }
        client.flush()?;
        outcome
    }
}

fn finished(opcode: Opcode, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    frame::append_bytes(&mut out, opcode, payload);
    out
}

/// Gives the session a message. If it has to wait, what the messages before were answered does not.
async fn handle_message(client: &ClientGuard, message: Message) -> Result<(), Disconnect> {
    let mut handling = pin!(async {
        // One who sends without end has turns like everyone else.
        consume_budget().await;
        client.handle(message).await
    });
    poll_fn(|cx| {
        let handled = handling.as_mut().poll(cx);
        if handled.is_pending() {
            client.flush()?;
        }
        handled
    })
    .await
}

/// What the connections of a thread share, never across an await.
struct Tools {
    scratch: Box<[u8]>,
    decoder: Decoder,
}

/// The most bytes taken from a socket at once.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static TOOLS: RefCell<Tools> =
        RefCell::new(Tools { scratch: vec![0; SCRATCH].into(), decoder: Decoder::default() });
}

/// Waits for bytes and gives them to `take`; `None` at the end of the stream.
///
/// Not an async function, for each of those around it makes every idle connection larger.
fn poll_read<T>(
    socket: &impl Duplex,
    cx: &mut Context<'_>,
    mut take: impl FnMut(&[u8], &mut Decoder) -> T,
) -> Poll<io::Result<Option<T>>> {
    loop {
        ready!(socket.poll_readable(cx))?;
        let taken: io::Result<_> =
            TOOLS.with_borrow_mut(|Tools { scratch, decoder }| match socket.try_read(scratch)? {
                0 => Ok(None),
                len => Ok(Some(take(&scratch[..len], decoder))),
            });
        match taken {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            taken => return Poll::Ready(taken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::socket::TcpSocket;
    use crate::tls::TlsSocket;

    #[test]
    fn tasks_are_small() {
        fn future_size<S, F: Future>(_: impl FnOnce(Connection<S>) -> F) -> usize {
            size_of::<F>()
        }
        // With tokio's part of a task, 128 bytes, this makes 256.
        let sizes = [future_size(Connection::<TcpSocket>::run), future_size(Connection::<TlsSocket>::run)];
        assert!(sizes.iter().all(|size| *size <= 128), "{sizes:?}");
    }
}
