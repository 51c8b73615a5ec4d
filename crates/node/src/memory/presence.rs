//! [`Presence`] of a single node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fanwire_wire::{Channel, ClientInfo};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use crate::broker::Error;
use crate::presence::{Presence, PresenceStats};

/// Presence in the node's own memory. Bounded by the subscriptions of its clients.
#[derive(Debug, Default)]
pub struct MemoryPresence {
    channels: Mutex<HashMap<Channel, Members>>,
}

/// A channel's clients by id.
type Members = HashMap<Arc<str>, Arc<ClientInfo>>;

impl Presence for MemoryPresence {
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<(), Error>> {
        self.channels.lock().entry(channel.clone()).or_default().insert(Arc::clone(&info.client), info);
        ready(Ok(())).boxed()
    }

    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<(), Error>> {
        let mut channels = self.channels.lock();
        if let Some(members) = channels.get_mut(channel) {
            members.remove(client);
            if members.is_empty() {
                channels.remove(channel);
            }
        }
        ready(Ok(())).boxed()
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>> {
        let members = self.channels.lock().get(channel).map(|members| members.values().cloned().collect());
        ready(Ok(members.unwrap_or_default())).boxed()
    }

    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>> {
        let stats = self.channels.lock().get(channel).map(|members| PresenceStats {
            clients: members.len(),
            users: members.values().map(|info| &info.user).collect::<HashSet<_>>().len(),
        });
        ready(Ok(stats.unwrap_or_default())).boxed()
    }
}
