//! The plain protocol: a bare WebSocket for anyone without a client library.
//!
//! `GET /plain?channel=chat` opens a connection that is subscribed to one channel. A text or binary frame that is sent is
//! published there, if the client may publish; a publication arrives as the bare payload, own ones included: data that was
//! binary in a binary frame, all other in a text frame. Nothing is recovered after a reconnect: a message comes at most
//! once. Pings are those of WebSocket. The parameters, all percent-encoded:
//!
//! | parameter | |
//! |---|---|
//! | `channel` | the channel, required; without it, or with a bad name, the answer is HTTP 400 |
//! | `token` | a connection token |
//! | `subscription_token` | a subscription token for the channel |
//!
//! A subprotocol is not needed; [`SUBPROTOCOL`] is chosen where it is offered, any other is not.
//!
//! There is no reply to a single request, so whatever is refused ends the connection, with a close code that says whether
//! the same again may succeed:
//!
//! | what happened | close code |
//! |---|---|
//! | the connection token is missing, invalid or expired; the subscription token is expired or somebody else's | 3500 invalid token |
//! | subscribing or publishing is not allowed, the subscription token is invalid, the channel's namespace does not exist | 3507 permission denied |
//! | the node has a fault, or cannot reach its broker | 3004 internal server error |
//! | the connection's term ended | 3005 connection expired |
//! | the subscription's term ended | 3006 subscription expired |
//! | the client reads too slowly | 3008 slow |
//! | publications were lost, in a channel that promises to tell | 3010 insufficient state |
//! | a ping was not answered | 3012 no pong |
//! | a token was revoked while it was in use | 3014 state invalidated |
//! | the backend ended the subscription, or the connection | 3503 force disconnect, or the backend's own code |
//! | the node goes down | 1001 shutdown |
//!
//! Browsers come back by the application's own rule: a good one is "unless the code is 3500 to 3999".

mod query;
mod session;

use fanwire_node::Protocol;
use fanwire_node::protocol::{Accepted, Opening, Rejection};

/// The name of the protocol in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "fanwire-plain";

/// The plain protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Protocol for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn accept(&self, opening: &Opening) -> Result<Accepted, Rejection> {
        let query = query::parse(&opening.query).map_err(|message| Rejection { status: 400, message })?;
        let offered = opening.subprotocols.iter().any(|name| name == SUBPROTOCOL);
        Ok(Accepted {
            session: Box::new(session::PlainSession::new(query)),
            subprotocol: offered.then_some(SUBPROTOCOL),
        })
    }
}
