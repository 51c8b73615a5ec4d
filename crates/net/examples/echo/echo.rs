//! A protocol that sends every message back, and a node that speaks nothing else.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanwire_node::authorizer::{AuthError, Identity, SubscriptionToken};
use fanwire_node::protocol::{Accepted, Event, Opening, Rejection};
use fanwire_node::{
    Authorizer, Client, Config, ConnectRequest, Dispatcher, Encoder, Failure, MemoryBroker, MemoryPresence, Node,
    Parts, Protocol, Session,
};
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Broadcast, Disconnect, Message};
use futures_util::future::{BoxFuture, LocalBoxFuture};

/// A node without channels.
pub(crate) fn node(config: Config, workers: usize) -> Arc<Node> {
    let dispatcher = Dispatcher::new(workers);
    Node::new(Parts {
        config,
        broker: Box::new(MemoryBroker::new(Arc::clone(&dispatcher))),
        presence: Box::new(MemoryPresence::new(Arc::clone(&dispatcher))),
        authorizer: Box::new(NoTokens),
        hooks: None,
        dispatcher,
    })
}

/// A protocol without channels.
pub(crate) struct Echo;

impl Protocol for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn accept(&self, _: &Opening) -> Result<Accepted, Rejection> {
        Ok(Accepted { session: Box::new(Self), subprotocol: None })
    }
}

impl Session for Echo {
    fn encoder(&self) -> &'static dyn Encoder {
        &Self
    }

    fn on_open<'a>(&'a self, client: &'a Rc<Client>) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        Box::pin(async {
            match client.connect(ConnectRequest::default()).await {
                Ok(_) => Ok(()),
                Err(Failure::Disconnect(disconnect)) => Err(disconnect),
                Err(Failure::Refusal(_) | Failure::Backend(_)) => Err(Disconnect::ServerError),
            }
        })
    }

    fn on_message<'a>(
        &'a self,
        client: &'a Rc<Client>,
        message: Message,
    ) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        let echoed = match message {
            Message::Text(payload) => client.push(finished(Opcode::Text, &payload)),
            Message::Binary(payload) => client.push(finished(Opcode::Binary, &payload)),
            Message::Pong => Ok(()),
        };
        Box::pin(std::future::ready(echoed))
    }

    fn encode_event(&self, _: &Event<'_>, _: &mut BytesMut) -> Result<(), Disconnect> {
        Ok(())
    }
}

impl Encoder for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn encode(&self, _: &Broadcast, _: &mut BytesMut) -> Result<(), Disconnect> {
        Ok(())
    }
}

fn finished(opcode: Opcode, payload: &Bytes) -> Bytes {
    let mut out = BytesMut::new();
    frame::append_bytes(&mut out, opcode, payload);
    out.freeze()
}

/// There is nothing here that a token could open.
struct NoTokens;

impl Authorizer for NoTokens {
    fn connection<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(std::future::ready(Err(AuthError::Invalid("no tokens here".to_owned()))))
    }

    fn subscription<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<SubscriptionToken, AuthError>> {
        Box::pin(std::future::ready(Err(AuthError::Invalid("no tokens here".to_owned()))))
    }
}
