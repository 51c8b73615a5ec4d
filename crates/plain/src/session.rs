//! One plain connection.

use std::cell::Cell;
use std::rc::Rc;

use bytes::BytesMut;
use fanwire_node::hooks::Dialect;
use fanwire_node::protocol::Event;
use fanwire_node::{Client, ConnectRequest, Encoder, Failure, ServerSide, Session, SubscribeRequest};
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Broadcast, Channel, Disconnect, Message, Payload, PayloadKind, Refusal, Unsubscribe};
use futures_util::future::LocalBoxFuture;

use crate::query::Query;

/// A plain connection: one channel, and the tokens until they are used.
pub(crate) struct PlainSession {
    channel: Channel,
    tokens: Cell<(String, String)>,
}

impl PlainSession {
    pub(crate) fn new(query: Query) -> Self {
        let Query { channel, token, subscription_token } = query;
        Self { channel, tokens: Cell::new((token, subscription_token)) }
    }

    async fn open(&self, client: &Rc<Client>) -> Result<(), Failure> {
        let (token, subscription_token) = self.tokens.take();
        let server_side = ServerSide::Only(self.channel.clone());
        let connected = client.connect(ConnectRequest { token, server_side, ..ConnectRequest::default() }).await?;
        // The connection token may have opened the channel already.
        if !connected.subscriptions.is_empty() {
            return Ok(());
        }
        let channel = self.channel.as_str().to_owned();
        client
            .subscribe(SubscribeRequest { channel, token: subscription_token, ..SubscribeRequest::default() })
            .await?;
        Ok(())
    }

    async fn publish(&self, client: &Rc<Client>, payload: Payload) -> Result<(), Disconnect> {
        client.publish(self.channel.as_str(), payload).await.map(|_| ()).map_err(end_of_failure)
    }
}

impl Session for PlainSession {
    fn encoder(&self) -> &'static dyn Encoder {
        &PlainEncoder
    }

    fn dialect(&self) -> Dialect {
        Dialect { protocol: "plain", encoding: "json" }
    }

    fn on_open<'a>(&'a self, client: &'a Rc<Client>) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        Box::pin(async move { self.open(client).await.map_err(end_of_failure) })
    }

    fn on_message<'a>(
        &'a self,
        client: &'a Rc<Client>,
        message: Message,
    ) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        let payload = match message {
            Message::Text(text) => Payload::text(text),
            Message::Binary(bytes) => Payload::binary(bytes),
            Message::Pong => {
                // One that nobody asked for is allowed (RFC 6455 §5.5.3).
                let _ = client.pong();
                return Box::pin(std::future::ready(Ok(())));
            }
        };
        Box::pin(self.publish(client, payload))
    }

    fn encode_event(&self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Disconnect> {
        match event {
            Event::Ping => frame::append_bytes(out, Opcode::Ping, b""),
            Event::Unsubscribed { channel, reason } if **channel == self.channel => {
                return Err(match reason {
                    Unsubscribe::Server => Disconnect::ForceDisconnect,
                    Unsubscribe::InsufficientState => Disconnect::InsufficientState,
                    Unsubscribe::Expired => Disconnect::SubscriptionExpired,
                    Unsubscribe::StateInvalidated => Disconnect::StateInvalidated,
                });
            }
            Event::Unsubscribed { .. } | Event::Subscribed { .. } | Event::Refreshed { .. } => {}
        }
        Ok(())
    }

    fn encode_disconnect(&self, disconnect: &Disconnect, out: &mut BytesMut) {
        match disconnect {
            // What WebSocket itself has a code for (RFC 6455 §7.4.1, "going away").
            Disconnect::Shutdown => frame::append_close(out, 1001, disconnect.reason()),
            _ => frame::append_disconnect(out, disconnect),
        }
    }
}

/// How a connection ends whose request failed.
fn end_of_failure(failure: Failure) -> Disconnect {
    match failure {
        Failure::Refusal(refusal) => end_of(refusal),
        Failure::Backend(error) if error.temporary => Disconnect::ServerError,
        Failure::Backend(_) => Disconnect::PermissionDenied,
        Failure::Disconnect(disconnect) => disconnect,
    }
}

/// How a connection ends whose request was refused.
fn end_of(refusal: Refusal) -> Disconnect {
    match refusal {
        Refusal::Internal | Refusal::Unavailable | Refusal::OutcomeUnknown | Refusal::BackendUnavailable => {
            Disconnect::ServerError
        }
        Refusal::Unauthorized | Refusal::TokenExpired => Disconnect::InvalidToken,
        Refusal::UnknownChannel | Refusal::PermissionDenied => Disconnect::PermissionDenied,
        Refusal::MethodNotFound | Refusal::AlreadySubscribed | Refusal::BadRequest => Disconnect::BadRequest,
        Refusal::LimitExceeded => Disconnect::ChannelLimit,
        // No client's publication has a condition.
        Refusal::NotAvailable | Refusal::Conflict => Disconnect::NotAvailable,
        Refusal::Expired => Disconnect::SubscriptionExpired,
        Refusal::TooManyRequests => Disconnect::TooManyRequests,
        Refusal::UnrecoverablePosition => Disconnect::InsufficientState,
    }
}

/// Publications as they were published; no word for joins and leaves.
struct PlainEncoder;

impl Encoder for PlainEncoder {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn encode(&self, broadcast: &Broadcast, out: &mut BytesMut) -> Result<(), Disconnect> {
        if let Broadcast::Publication(publication) = broadcast {
            let opcode = match publication.payload.kind() {
                PayloadKind::Json | PayloadKind::Text => Opcode::Text,
                PayloadKind::Binary => Opcode::Binary,
            };
            frame::append_bytes(out, opcode, publication.payload.bytes());
        }
        Ok(())
    }
}
