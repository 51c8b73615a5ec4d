//! Requests about channels: publish, presence, history.

use std::rc::Rc;
use std::sync::Arc;

use fanwire_wire::{Channel, ClientInfo, Payload, Position, Refusal};

use super::{Client, Failure};
use crate::Action;
use crate::broker::{History, HistoryQuery, Order, Published};
use crate::namespace::{Namespace, Permission};
use crate::node::Publish;
use crate::presence::PresenceStats;

/// Which part of a stream a client wants.
#[derive(Clone, Debug, Default)]
pub struct HistoryRequest {
    /// The most publications: 0 for the position alone, negative for as many as the node allows.
    pub limit: i32,
    /// Only what lies behind this position (before it, when reversed).
    pub since: Option<Position>,
    /// In which direction.
    pub order: Order,
}

/// What a member takes in an answer at least, in bytes: its id, twice, and the names around it.
const MEMBER_SIZE: usize = 100;

impl Client {
    /// Publishes in the client's name.
    ///
    /// # Errors
    ///
    /// Codes 100, 102, 103 and 107, and whatever a backend answers that decides about it.
    pub async fn publish(self: &Rc<Self>, channel: &str, payload: Payload) -> Result<Published, Failure> {
        let (channel, namespace) = self.resolve(channel)?;
        let hook = &namespace.publish_hook;
        self.permit(Action::Publish, &channel, if hook.is_empty() { namespace.publish } else { Permission::Anyone })?;
        let mut publish = Publish::new(channel, payload);
        if !hook.is_empty() {
            self.ask_to_publish(hook, &mut publish).await?;
        }
        let subscription = self.subscription(&publish.channel);
        publish.info = Some(self.client_info(subscription.as_deref()));
        Ok(self.worker.node().publish(publish).await?)
    }

    /// Reads who is in a channel.
    ///
    /// # Errors
    ///
    /// Codes 100, 102, 103, 107, 108, and 106 if the answer would not find room in the client's queue.
    pub async fn presence(self: &Rc<Self>, channel: &str) -> Result<Vec<Arc<ClientInfo>>, Refusal> {
        let channel = self.see_presence(channel)?;
        let node = self.worker.node();
        if node.presence_stats(&channel).await?.clients > self.outlet.bound() / MEMBER_SIZE {
            return Err(Refusal::LimitExceeded);
        }
        node.members(&channel).await
    }

    /// Counts who is in a channel.
    ///
    /// # Errors
    ///
    /// Codes 100, 102, 103, 107 and 108.
    pub async fn presence_stats(self: &Rc<Self>, channel: &str) -> Result<PresenceStats, Refusal> {
        let channel = self.see_presence(channel)?;
        self.worker.node().presence_stats(&channel).await
    }

    /// Reads a channel's stream.
    ///
    /// # Errors
    ///
    /// Codes 100, 102, 103, 107, 108, and 112 if the position belongs to another life of the stream.
    pub async fn history(self: &Rc<Self>, channel: &str, request: HistoryRequest) -> Result<History, Refusal> {
        let (channel, namespace) = self.resolve(channel)?;
        self.permit(Action::History, &channel, namespace.history_read)?;
        self.worker.node().history(&channel, request).await
    }

    fn see_presence(&self, channel: &str) -> Result<Channel, Refusal> {
        let (channel, namespace) = self.resolve(channel)?;
        self.permit(Action::Presence, &channel, namespace.presence_read)?;
        Ok(channel)
    }

    fn resolve(&self, channel: &str) -> Result<(Channel, Arc<Namespace>), Refusal> {
        let channel = Channel::new(channel).map_err(|_| Refusal::BadRequest)?;
        let namespace = self.worker.node().namespace(&channel).ok_or(Refusal::UnknownChannel)?;
        Ok((channel, namespace))
    }
}

impl HistoryRequest {
    /// The query for the broker, with at most `cap` publications.
    pub(crate) fn query(&self, cap: usize) -> HistoryQuery {
        let limit = usize::try_from(self.limit).unwrap_or(cap).min(cap);
        HistoryQuery { since: self.since.as_ref().map(|since| since.offset), limit, order: self.order }
    }
}
