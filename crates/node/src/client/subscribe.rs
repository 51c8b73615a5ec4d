//! Subscriptions: asked for, prepared with the broker, made live, recovered, left.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use fanwire_wire::{Broadcast, Channel, Disconnect, Payload, Position, Publication, Refusal};

use super::join::Wanted;
use super::rights::Right;
use super::{Client, Failure};
use crate::admission::Kind;
use crate::authorizer::Grant;
use crate::clock;
use crate::protocol::Event;
use crate::subscription::Origin;

/// What a client says when it subscribes.
#[derive(Clone, Debug, Default)]
pub struct SubscribeRequest {
    /// The channel's name.
    pub channel: String,
    /// Its subscription token; empty for none.
    pub token: String,
    /// Where it stood before, if it wants to go on from there.
    pub since: Option<Position>,
    /// Whether it would rather be refused (112) than begin anew when that is impossible.
    pub reject_unrecovered: bool,
    /// Whether it wants the joins and leaves of others.
    pub join_leave: bool,
    /// For the backend, if one decides about it.
    pub data: Option<Payload>,
}

/// What a client learns when a subscription begins.
#[derive(Clone, Debug, Default)]
pub struct Subscribed {
    /// Where the client stands, if the subscription has a position. After a complete recovery: where it stood before.
    pub position: Option<Position>,
    /// Whether the subscription can be recovered later.
    pub recoverable: bool,
    /// Whether it has a position.
    pub positioned: bool,
    /// How the recovery went, if one was asked for.
    pub recovery: Option<Recovery>,
    /// The seconds until it ends; `None` for never.
    pub ttl: Option<u32>,
    /// JSON for the subscriber.
    pub data: Option<Bytes>,
}

/// How a recovery went: complete or not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovery {
    /// Nothing is missing behind these (cache mode: this is the latest).
    Complete(Vec<Arc<Publication>>),
    /// Something may be missing.
    Failed,
}

impl Client {
    /// Subscribes to a channel. The subscription is live when this returns:
    /// push the reply before anything is awaited.
    ///
    /// # Errors
    ///
    /// Codes 102, 103, 105, 106, 107, 109, 111 and 112 as refusals; a token made for somebody else ends the connection (3500).
    pub async fn subscribe(self: &Rc<Self>, request: SubscribeRequest) -> Result<Subscribed, Failure> {
        let channel = Channel::new(&request.channel).map_err(|_| Refusal::BadRequest)?;
        self.check_room(&channel)?;
        let kind = if request.since.is_some() { Kind::Recovery } else { Kind::Subscribe };
        self.worker.node().admit(kind).await?;
        let Right { origin, grant, issued } = self.authorize(&channel, &request.token, request.data).await?;
        let prepared = self
            .prepare(Wanted {
                channel,
                grant,
                origin,
                since: request.since,
                reject_unrecovered: request.reject_unrecovered,
                join_leave: request.join_leave,
                issued,
            })
            .await?;
        Ok(self.finish(prepared)?.1)
    }

    /// Leaves a channel; quiet if the client is not in it.
    pub async fn unsubscribe(self: &Rc<Self>, channel: &str) {
        let found = Channel::new(channel).ok().and_then(|channel| self.subscription(&channel));
        if let Some(farewell) = found.and_then(|subscription| self.depart(&subscription)) {
            // Ends without a word only with the worker.
            let _ = farewell.await;
        }
    }

    /// Renews a subscription's term with a new token; returns the seconds left, `None` for ever.
    ///
    /// # Errors
    ///
    /// Expired tokens are refused (109), bad ones (103); one made for somebody else ends the connection (3500).
    pub async fn refresh_subscription(self: &Rc<Self>, channel: &str, token: &str) -> Result<Option<u32>, Failure> {
        let channel = Channel::new(channel).map_err(|_| Refusal::BadRequest)?;
        let Some(subscription) = self.subscription(&channel) else { return Err(Refusal::BadRequest.into()) };
        let Right { grant, issued, .. } = match self.grant(&channel, token).await {
            Err(_) if self.worker.node().config().client.insecure => Right::of(Origin::Token),
            granted => granted?,
        };
        subscription.set_issued(issued);
        subscription.set_expires(self.worker.second_of(grant.expire_at));
        subscription.set_info(grant.info);
        self.schedule_end(&subscription);
        Ok(grant.expire_at.map(clock::seconds_until))
    }

    /// Subscribes the client from outside and tells it.
    ///
    /// # Errors
    ///
    /// Those of a subscription; being subscribed already is none.
    pub(crate) async fn subscribe_by_server(
        self: &Rc<Self>,
        channel: Channel,
        grant: Grant,
        since: Option<Position>,
    ) -> Result<(), Failure> {
        if !self.is_connected() || self.subscription(&channel).is_some() {
            return Ok(());
        }
        let prepared = self.prepare(Wanted::by_server(channel, grant, since)).await?;
        let (channel, subscribed) = self.finish(prepared)?;
        self.tell(&Event::Subscribed {
            channel: &channel,
            position: subscribed.position.as_ref(),
            recoverable: subscribed.recoverable,
            positioned: subscribed.positioned,
            data: subscribed.data.as_ref(),
        });
        if let Some(Recovery::Complete(missed)) = subscribed.recovery {
            self.deliver(missed)?;
        }
        Ok(())
    }

    /// Hands over publications read from the history, in a protocol's form for live ones.
    fn deliver(&self, publications: Vec<Arc<Publication>>) -> Result<(), Disconnect> {
        let mut frames = BytesMut::new();
        for publication in publications {
            self.session.encoder().encode(&Broadcast::Publication(publication), &mut frames)?;
        }
        self.push(frames.freeze())?;
        self.flush()
    }

    pub(super) fn check_room(&self, channel: &Channel) -> Result<(), Refusal> {
        if self.subscription(channel).is_some() {
            return Err(Refusal::AlreadySubscribed);
        }
        if self.subscriptions.borrow().len() >= self.worker.node().config().client.max_channels {
            return Err(Refusal::LimitExceeded);
        }
        Ok(())
    }
}
