//! [`Broker`] over Redis.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Broker;
use fanwire_node::broker::{
    Error, History, HistoryQuery, Kept, PublishOptions, Published, Recipient, Resume, Revocation,
};
use fanwire_node::sequencer::Comparison;
use fanwire_wire::cluster::{Control, Envelope};
use fanwire_wire::{Channel, Publication};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::Tasks;
use crate::partitions::Partition;
use crate::reception::Reception;
use crate::store::{Store, unexpected};
use crate::wishes::Wishes;

/// Carries publications over Redis. Dropping it ends its connections.
pub struct RedisBroker {
    pub(crate) store: Arc<Store>,
    pub(crate) reception: Arc<Reception>,
    pub(crate) _tasks: Tasks,
}

impl Broker for RedisBroker {
    fn publish(&self, publication: Publication, options: PublishOptions) -> BoxFuture<'_, Result<Published, Error>> {
        async move {
            let published = self.store.publish(vec![(publication, options)]).await?;
            published.into_iter().next().ok_or_else(unexpected)
        }
        .boxed()
    }

    /// In one step: all of it is applied, or nothing, so what failed may be repeated as a whole.
    fn publish_all(&self, batch: Vec<(Publication, PublishOptions)>) -> BoxFuture<'_, Vec<Result<Published, Error>>> {
        async move {
            let count = batch.len();
            match self.store.publish(batch).await {
                Ok(published) => published.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); count],
            }
        }
        .boxed()
    }

    fn tell(&self, to: Recipient<'_>, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        let name = match to {
            Recipient::All => self.store.keys.nodes(),
            Recipient::Node(node) => self.store.keys.node(node),
        };
        async move { self.store.send(Partition::NODES, &name, &Envelope::Control(Box::new(control)).encode()).await }
            .boxed()
    }

    fn subscribe(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        // The wish counts from now on, whether anybody waits for it or not.
        let confirmed = self.wishes(channel).want(channel);
        async move {
            let Some(confirmed) = confirmed else { return Ok(()) };
            match timeout(self.reception.timeout, confirmed).await {
                Ok(Ok(())) => Ok(()),
                _ => Err(Error::Unavailable("Redis has not confirmed the subscription".into())),
            }
        }
        .boxed()
    }

    fn unsubscribe(&self, channel: &Channel) {
        if self.wishes(channel).leave(channel) {
            self.reception.sequencer.forget(channel);
        }
    }

    fn history(&self, channel: &Channel, query: HistoryQuery) -> BoxFuture<'_, Result<History, Error>> {
        let channel = channel.clone();
        async move { self.store.history(&channel, &query).await }.boxed()
    }

    fn resume(&self, channel: &Channel, resume: Resume) -> BoxFuture<'_, Result<History, Error>> {
        let channel = channel.clone();
        async move {
            let how = if self.reception.is_up(&channel) { Comparison::Routine } else { Comparison::Suspicious };
            self.reception.sequencer.resume(&channel, resume, how).await
        }
        .boxed()
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        let channel = channel.clone();
        async move {
            self.store.remove_history(&channel).await?;
            // Nodes forget it, too.
            let (partition, name) = (self.store.keys.partition(&channel), self.store.keys.channel(&channel));
            self.store.send(partition, &name, &Envelope::HistoryRemoved(channel).encode()).await
        }
        .boxed()
    }

    fn revoke(&self, revocation: &Revocation, keep: Duration) -> BoxFuture<'_, Result<(), Error>> {
        let revocation = revocation.clone();
        async move { self.store.revoke(&revocation, keep).await }.boxed()
    }

    fn revocations<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Kept, Error>> {
        async move { self.store.revocations(place).await }.boxed()
    }
}

impl RedisBroker {
    fn wishes(&self, channel: &Channel) -> &Wishes {
        self.reception.wishes(self.store.keys.partition(channel))
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker").field("health", &self.reception.health).finish_non_exhaustive()
    }
}
