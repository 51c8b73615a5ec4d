//! A connection's state in this protocol, and what each command does.

use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use fanwire_node::broker::Order;
use fanwire_node::hooks::{ConnectQuestion, Dialect};
use fanwire_node::protocol::Event;
use fanwire_node::{Client, ConnectRequest, Encoder, Failure, HistoryRequest, Recovery, Session, SubscribeRequest};
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Disconnect, Epoch, Message, Payload, Position, Refusal};
use futures_util::future::LocalBoxFuture;
use futures_util::poll;

use crate::codec::Encoding;
use crate::convert;
use crate::metrics::Metrics;
use crate::proto::{self, Command, Reply};
use crate::request::{Kind, Request};

/// The protocol's state for one client.
pub(crate) struct NativeSession {
    encoding: Encoding,
    heartbeat: Heartbeat,
    metrics: Arc<Metrics>,
}

/// What pings and pongs are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// Empty replies and commands.
    Messages,
    /// WebSocket's own control frames.
    Frames,
}

impl NativeSession {
    pub(crate) fn new(encoding: Encoding, heartbeat: Heartbeat, metrics: Arc<Metrics>) -> Self {
        Self { encoding, heartbeat, metrics }
    }

    /// Answers the commands of one message, strictly in order.
    async fn converse(&self, client: &Rc<Client>, message: Message) -> Result<(), Disconnect> {
        let bytes = match message {
            Message::Text(bytes) | Message::Binary(bytes) => bytes,
            Message::Pong => {
                if self.heartbeat == Heartbeat::Frames {
                    // One that answers no ping is legal in WebSocket (RFC 6455 §5.5.3).
                    let _ = client.pong();
                }
                return Ok(());
            }
        };
        let mut waiting = 0;
        for command in self.encoding.commands(bytes) {
            let Ok(command) = command else {
                self.metrics.command(Kind::Malformed);
                return Err(Disconnect::BadRequest);
            };
            let mut answer = pin!(self.answer(client, command));
            let reply = match poll!(answer.as_mut()) {
                Poll::Ready(reply) => reply?,
                Poll::Pending => {
                    // What is answered already does not wait for the broker.
                    client.flush()?;
                    waiting = 0;
                    answer.await?
                }
            };
            // Ended meanwhile: the last frame is on its way.
            if client.is_closed() {
                return Ok(());
            }
            // No await since the core answered: a subscription is live by now, and its publications come behind.
            waiting += reply.len();
            client.push(reply)?;
            if waiting > MAX_WAITING {
                client.flush()?;
                waiting = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Answers one command with a frame; an empty one for those that get no reply.
    async fn answer(&self, client: &Rc<Client>, command: Command) -> Result<Bytes, Disconnect> {
        let id = command.id;
        let Some(request) = Request::of(command) else {
            self.metrics.command(if id == 0 { Kind::Pong } else { Kind::Unknown });
            return if id == 0 { client.pong().map(|()| Bytes::new()) } else { Err(Disconnect::BadRequest) };
        };
        self.metrics.command(request.kind());
        if id == 0 && request.kind() != Kind::Send || !client.is_connected() && request.kind() != Kind::Connect {
            return Err(Disconnect::BadRequest);
        }
        let mut missed = Bytes::new();
        let reply = match self.perform(client, request, &mut missed).await {
            Ok(reply) => reply,
            Err(Failure::Refusal(refusal)) => {
                self.metrics.refused(refusal);
                Reply { error: Some(convert::error(refusal)), ..Reply::default() }
            }
            Err(Failure::Backend(error)) => {
                self.metrics.refused_by_backend();
                Reply { error: Some(convert::backend_error(error)), ..Reply::default() }
            }
            Err(Failure::Disconnect(disconnect)) => return Err(disconnect),
        };
        let mut frame = BytesMut::with_capacity(USUAL_REPLY + missed.len());
        self.encoding.append_with(&Reply { id, ..reply }, &missed, &mut frame)?;
        Ok(frame.freeze())
    }

    /// Does what a command asks for. `missed` takes the publications of the answer to `subscribe`, finished.
    async fn perform(&self, client: &Rc<Client>, request: Request, missed: &mut Bytes) -> Result<Reply, Failure> {
        let mut reply = Reply::default();
        match request {
            Request::Connect(request) => reply.connect = Some(self.connect(client, request).await?),
            Request::Subscribe(request) => reply.subscribe = Some(self.subscribe(client, request, missed).await?),
            Request::Unsubscribe(request) => {
                client.unsubscribe(&request.channel).await;
                reply.unsubscribe = Some(proto::UnsubscribeResult {});
            }
            Request::Publish(request) => reply.publish = Some(self.publish(client, request).await?),
            Request::Presence(request) => {
                reply.presence = Some(convert::presence(&client.presence(&request.channel).await?));
            }
            Request::PresenceStats(request) => {
                let stats = client.presence_stats(&request.channel).await?;
                reply.presence_stats = Some(convert::presence_stats(stats));
            }
            Request::History(request) => reply.history = Some(self.history(client, request).await?),
            Request::Ping(_) => reply.ping = Some(proto::PingResult {}),
            Request::Send(_) => return Err(Disconnect::NotAvailable.into()),
            Request::Rpc(request) => {
                let answer = client.rpc(request.method, self.data(request.data)).await?;
                let data = answer.map(|answer| convert::data(self.encoding, &answer)).transpose()?.unwrap_or_default();
                reply.rpc = Some(proto::RpcResult { data });
            }
            Request::Refresh(request) => {
                let ttl = client.refresh(&request.token).await?;
                reply.refresh = Some(convert::refreshed(client.id(), ttl));
            }
            Request::SubRefresh(request) => {
                let ttl = client.refresh_subscription(&request.channel, &request.token).await?;
                reply.sub_refresh = Some(convert::subscription_refreshed(ttl));
            }
        }
        Ok(reply)
    }

    async fn connect(
        &self,
        client: &Rc<Client>,
        request: proto::ConnectRequest,
    ) -> Result<proto::ConnectResult, Failure> {
        let question = ConnectQuestion {
            name: request.name,
            version: request.version,
            data: self.data(request.data),
            channels: request.subs.keys().cloned().collect(),
        };
        let recovering = request.subs.into_iter().filter(|(_, subscription)| subscription.recover);
        let positions = recovering.map(|(channel, since)| Ok((channel, position(&since.epoch, since.offset)?)));
        // A refusal would leave the door open for another attempt.
        let positions = positions.collect::<Result<_, Refusal>>().map_err(|_| Disconnect::BadRequest)?;
        let connect = ConnectRequest {
            token: request.token,
            positions,
            headers: request.headers.into_iter().collect(),
            question,
            ..ConnectRequest::default()
        };
        let connected = client.connect(connect).await?;
        let mut result = convert::connected(self.encoding, connected)?;
        if self.heartbeat == Heartbeat::Frames {
            (result.ping, result.pong) = (0, false);
        }
        Ok(result)
    }

    async fn subscribe(
        &self,
        client: &Rc<Client>,
        request: proto::SubscribeRequest,
        missed: &mut Bytes,
    ) -> Result<proto::SubscribeResult, Failure> {
        if request.r#type != STREAM {
            return Err(Refusal::PermissionDenied.into());
        }
        if request.tf.is_some() {
            return Err(Refusal::BadRequest.into());
        }
        let since = request.recover.then(|| position(&request.epoch, request.offset)).transpose()?;
        let mut subscribed = client
            .subscribe(SubscribeRequest {
                channel: request.channel,
                token: request.token,
                since,
                reject_unrecovered: request.flag & REJECT_UNRECOVERED != 0,
                join_leave: request.join_leave,
                data: self.data(request.data),
            })
            .await?;
        if let Some(Recovery::Complete(publications)) = &mut subscribed.recovery {
            let publications = mem::take(publications);
            // After an outage many ask for the same ones.
            *missed = client
                .worker()
                .encoded_once(self.encoding.encoder().name(), &publications, || self.encoding.missed(&publications))?;
        }
        Ok(convert::subscribed(self.encoding, subscribed)?)
    }

    /// What a client says to the backend, if anything.
    fn data(&self, data: Bytes) -> Option<Payload> {
        (!data.is_empty()).then(|| self.encoding.payload(data))
    }

    async fn publish(
        &self,
        client: &Rc<Client>,
        request: proto::PublishRequest,
    ) -> Result<proto::PublishResult, Failure> {
        if request.r#type != STREAM {
            return Err(Refusal::PermissionDenied.into());
        }
        if request.data.is_empty() {
            return Err(Refusal::BadRequest.into());
        }
        client.publish(&request.channel, self.encoding.payload(request.data)).await?;
        Ok(proto::PublishResult {})
    }

    async fn history(
        &self,
        client: &Rc<Client>,
        request: proto::HistoryRequest,
    ) -> Result<proto::HistoryResult, Failure> {
        let since = request.since.map(|since| position(&since.epoch, since.offset)).transpose()?;
        let order = if request.reverse { Order::Reverse } else { Order::Forward };
        let history = client.history(&request.channel, HistoryRequest { limit: request.limit, since, order }).await?;
        Ok(convert::history(self.encoding, &history)?)
    }
}

impl Session for NativeSession {
    fn encoder(&self) -> &'static dyn Encoder {
        self.encoding.encoder()
    }

    fn dialect(&self) -> Dialect {
        self.encoding.dialect()
    }

    fn on_message<'a>(
        &'a self,
        client: &'a Rc<Client>,
        message: Message,
    ) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        Box::pin(self.converse(client, message))
    }

    fn encode_event(&self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Disconnect> {
        match convert::event(event) {
            Some(reply) => self.encoding.append(&reply, out)?,
            None if self.heartbeat == Heartbeat::Frames => frame::append_bytes(out, Opcode::Ping, &[]),
            None => self.encoding.append_ping(out),
        }
        Ok(())
    }
}

/// Room for the frame of a reply that carries nothing long.
const USUAL_REPLY: usize = 256;

/// How many bytes of replies to the commands of one message are put together before they are written
/// and other connections get their turn.
const MAX_WAITING: usize = 64 * 1024;

/// The only kind of subscription and publication offered.
const STREAM: i32 = 0;

/// The bit of a subscription's flag that asks for error 112 where recovery is impossible.
const REJECT_UNRECOVERED: i64 = 2;

/// Where a client says it stood.
fn position(epoch: &str, offset: u64) -> Result<Position, Refusal> {
    if epoch.len() > Epoch::MAX_LEN {
        return Err(Refusal::BadRequest);
    }
    Ok(Position { epoch: Epoch::from(epoch), offset })
}
