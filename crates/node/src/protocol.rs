//! What a client protocol is to the core.
//!
//! A protocol crate implements [`Protocol`], [`Session`] and [`Encoder`]; it sees [`Client`] and never a socket.

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use fanwire_wire::{Broadcast, Channel, Disconnect, Message, Position, Unsubscribe, frame};
use futures_util::future::LocalBoxFuture;

use crate::Client;
use crate::hooks::Dialect;

/// A client protocol: makes a [`Session`] for each connection.
pub trait Protocol: Send + Sync + 'static {
    /// The name in metrics and logs.
    fn name(&self) -> &'static str;

    /// Looks at the request that opens a connection.
    ///
    /// # Errors
    ///
    /// The HTTP answer for a request that cannot become a connection.
    fn accept(&self, opening: &Opening) -> Result<Accepted, Rejection>;
}

/// The request that opens a connection, after the transport's own checks.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The raw query string, without `?`; empty when there is none.
    pub query: String,
    /// The subprotocols the client offers, the preferred first.
    pub subprotocols: Vec<String>,
    /// Where the client is.
    pub remote: Option<IpAddr>,
}

/// How a connection goes on.
pub struct Accepted {
    /// The protocol's state for this client.
    pub session: Box<dyn Session>,
    /// The one subprotocol chosen from [`Opening::subprotocols`], if any.
    pub subprotocol: Option<&'static str>,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("subprotocol", &self.subprotocol).finish_non_exhaustive()
    }
}

/// The HTTP answer for a request that cannot become a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The HTTP status.
    pub status: u16,
    /// What was wrong with the request.
    pub message: String,
}

/// A protocol's state for one client.
///
/// All methods take `&self`: a message may be waiting for the broker when the core has an event to tell.
pub trait Session {
    /// The encoder of this client's publications.
    fn encoder(&self) -> &'static dyn Encoder;

    /// What the client speaks, in the words that backends know.
    fn dialect(&self) -> Dialect {
        Dialect::default()
    }

    /// Begins: called once, before any message.
    fn on_open<'a>(&'a self, client: &'a Rc<Client>) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        let _ = client;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Answers one message. The next one is given only when the future has ended.
    fn on_message<'a>(&'a self, client: &'a Rc<Client>, message: Message)
    -> LocalBoxFuture<'a, Result<(), Disconnect>>;

    /// Appends the frames that tell `event` to this client; none if the protocol has no word for it.
    ///
    /// # Errors
    ///
    /// The end of the connection, where the protocol can tell the event in no other way.
    fn encode_event(&self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Disconnect>;

    /// Appends the last frames of the connection.
    fn encode_disconnect(&self, disconnect: &Disconnect, out: &mut BytesMut) {
        frame::append_disconnect(out, disconnect);
    }
}

/// Makes finished socket bytes of what a channel carries: once for all subscribers that share the encoder.
pub trait Encoder: Sync {
    /// A name no other encoder has; subscribers with equal names share their bytes.
    fn name(&self) -> &'static str;

    /// Appends the frame of `broadcast`, or nothing if the protocol has no word for it.
    ///
    /// # Errors
    ///
    /// How the connections of this encoding end, if `broadcast` cannot be put into it; `out` is as before then.
    fn encode(&self, broadcast: &Broadcast, out: &mut BytesMut) -> Result<(), Disconnect>;
}

/// What the core tells one client outside of its channels' broadcasts.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Answer, so that the node knows you are there.
    Ping,
    /// The server subscribed the client.
    Subscribed {
        /// To this channel.
        channel: &'a Channel,
        /// Where the subscription begins, if it has a position.
        position: Option<&'a Position>,
        /// Whether it can be recovered.
        recoverable: bool,
        /// Whether it has a position.
        positioned: bool,
        /// JSON for the subscriber.
        data: Option<&'a Bytes>,
    },
    /// The server ended a subscription.
    Unsubscribed {
        /// Of this channel.
        channel: &'a Channel,
        /// For this reason.
        reason: Unsubscribe,
    },
    /// The connection's term changed.
    Refreshed {
        /// The seconds left; `None` for ever.
        ttl: Option<u32>,
    },
}
