//! Sends every message back, on the gateway's own WebSocket layer: what RFC 6455 conformance is tested on.
//!
//! `echo [--listen ADDR]`

use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanwire_net::{Limits, Listener, Site, Workers};
use fanwire_node::authorizer::{AuthError, Identity, SubscriptionToken};
use fanwire_node::protocol::{Accepted, Event, Opening, Rejection};
use fanwire_node::{
    Authorizer, Client, ClientConfig, Config, ConnectRequest, Dispatcher, Encoder, Failure, MemoryBroker,
    MemoryPresence, Node, Parts, Protocol, Session,
};
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Broadcast, Disconnect, Message};
use futures_util::future::{BoxFuture, LocalBoxFuture};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let addr: SocketAddr = match (args.next().as_deref(), args.next()) {
        (None, None) => "127.0.0.1:9001".parse()?,
        (Some("--listen"), Some(addr)) => addr.parse()?,
        _ => return Err("usage: echo [--listen ADDR]".into()),
    };

    let dispatcher = Dispatcher::new(1);
    let node = Node::new(Parts {
        config: Config { client: client_config(), ..Config::default() },
        broker: Box::new(MemoryBroker::new(Arc::clone(&dispatcher))),
        presence: Box::new(MemoryPresence::default()),
        authorizer: Box::new(NoTokens),
        dispatcher,
    });
    let _workers = Workers::start(&node)?;
    let listener = Listener::bind(addr)?;
    announce(listener.local_addr());
    let site = Site::new().protocol("/", Arc::new(Echo)).limits(limits());
    fanwire_net::serve(listener, node, site, std::future::pending()).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the script that starts this reads the address from there")]
fn announce(addr: SocketAddr) {
    println!("listening on ws://{addr}");
}

/// Room for the largest conformance case, and no limit that would end one.
fn limits() -> Limits {
    Limits {
        max_message_size: 64 * 1024 * 1024,
        max_fragments: usize::MAX,
        message_timeout: Duration::from_secs(600),
        control_rate: u32::MAX,
        control_burst: u32::MAX,
        ..Limits::default()
    }
}

fn client_config() -> ClientConfig {
    ClientConfig {
        origins: vec!["*".to_owned()],
        anonymous: true,
        queue_size: 256 * 1024 * 1024,
        ping_interval: Duration::from_secs(24 * 60 * 60),
        ..ClientConfig::default()
    }
}

/// A protocol without channels.
struct Echo;

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
                Err(Failure::Refusal(_)) => Err(Disconnect::ServerError),
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
