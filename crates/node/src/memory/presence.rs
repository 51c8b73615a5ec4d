//! [`Presence`] of a single node.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use fanwire_wire::{Broadcast, Channel, ClientInfo};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use crate::Dispatcher;
use crate::broker::Error;
use crate::presence::{Change, Per, Presence, PresenceStats};

/// Presence in the node's own memory. Bounded by the subscriptions of its clients.
pub struct MemoryPresence {
    dispatcher: Arc<Dispatcher>,
    /// Held while a join or leave is dispatched: their order is that of the changes.
    rooms: Mutex<HashMap<Channel, Room>>,
}

/// Who is in one channel.
#[derive(Default)]
struct Room {
    clients: HashMap<Arc<str>, Occupant>,
    /// How many connections of each user are listed.
    users: Tally,
    /// How many connections of each user are announced per user.
    joined: Tally,
}

struct Occupant {
    info: Arc<ClientInfo>,
    listed: bool,
    announced: Option<Per>,
}

/// A count for each user, of those above zero.
#[derive(Default)]
struct Tally {
    users: HashMap<Arc<str>, usize>,
    total: usize,
}

impl MemoryPresence {
    /// Makes the presence of the node that owns `dispatcher`.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher, rooms: Mutex::default() }
    }

    fn list(&self, channel: &Channel, info: Arc<ClientInfo>) -> Change {
        let mut rooms = self.rooms.lock();
        let Room { clients, users, .. } = rooms.entry(channel.clone()).or_default();
        let occupant = clients.entry(Arc::clone(&info.client)).or_insert_with(|| Occupant::new(&info));
        occupant.info = info;
        if std::mem::replace(&mut occupant.listed, true) { Change::Nothing } else { users.add(&occupant.info.user) }
    }

    fn join(&self, channel: &Channel, info: &Arc<ClientInfo>, per: Per) -> Change {
        let mut rooms = self.rooms.lock();
        let Room { clients, joined, .. } = rooms.entry(channel.clone()).or_default();
        let occupant = clients.entry(Arc::clone(&info.client)).or_insert_with(|| Occupant::new(info));
        if occupant.announced.is_some() {
            return Change::Nothing;
        }
        occupant.announced = Some(per);
        let change = match per {
            Per::Connection => Change::Connection,
            Per::User => joined.add(&info.user),
        };
        if per == Per::Connection || change == Change::User {
            self.dispatcher.dispatch(&Broadcast::Join(channel.clone(), Arc::clone(info)));
        }
        change
    }

    fn leave(&self, channel: &Channel, client: &str) -> Change {
        let mut rooms = self.rooms.lock();
        let Some(Room { clients, users, joined }) = rooms.get_mut(channel) else { return Change::Nothing };
        let Some(Occupant { info, listed, announced }) = clients.remove(client) else { return Change::Nothing };
        let unlisted = listed.then(|| users.remove(&info.user));
        let parted = (announced == Some(Per::User)).then(|| joined.remove(&info.user));
        if announced == Some(Per::Connection) || parted == Some(Change::User) {
            self.dispatcher.dispatch(&Broadcast::Leave(channel.clone(), info));
        }
        if clients.is_empty() {
            rooms.remove(channel);
        }
        unlisted.or(parted).unwrap_or(Change::Connection)
    }

    fn look<T: Default>(&self, channel: &Channel, at: impl FnOnce(&Room) -> T) -> T {
        self.rooms.lock().get(channel).map(at).unwrap_or_default()
    }
}

impl Occupant {
    fn new(info: &Arc<ClientInfo>) -> Self {
        Self { info: Arc::clone(info), listed: false, announced: None }
    }
}

impl Tally {
    fn add(&mut self, user: &Arc<str>) -> Change {
        self.total += 1;
        let count = self.users.entry(Arc::clone(user)).or_default();
        *count += 1;
        if *count == 1 { Change::User } else { Change::Connection }
    }

    fn remove(&mut self, user: &str) -> Change {
        self.total -= 1;
        match self.users.get_mut(user) {
            Some(count) if *count > 1 => {
                *count -= 1;
                Change::Connection
            }
            _ => {
                self.users.remove(user);
                Change::User
            }
        }
    }
}

impl Presence for MemoryPresence {
    fn add(&self, channel: &Channel, info: Arc<ClientInfo>) -> BoxFuture<'_, Result<Change, Error>> {
        ready(Ok(self.list(channel, info))).boxed()
    }

    fn announce(&self, channel: &Channel, info: Arc<ClientInfo>, per: Per) -> BoxFuture<'_, Result<Change, Error>> {
        let channel = channel.clone();
        async move {
            self.dispatcher.ready().await;
            Ok(self.join(&channel, &info, per))
        }
        .boxed()
    }

    fn remove(&self, channel: &Channel, client: &str) -> BoxFuture<'_, Result<Change, Error>> {
        let (channel, client) = (channel.clone(), client.to_owned());
        async move {
            self.dispatcher.ready().await;
            Ok(self.leave(&channel, &client))
        }
        .boxed()
    }

    fn members(&self, channel: &Channel) -> BoxFuture<'_, Result<Vec<Arc<ClientInfo>>, Error>> {
        let listed = |room: &Room| {
            let listed = room.clients.values().filter(|occupant| occupant.listed);
            listed.map(|occupant| Arc::clone(&occupant.info)).collect()
        };
        ready(Ok(self.look(channel, listed))).boxed()
    }

    fn stats(&self, channel: &Channel) -> BoxFuture<'_, Result<PresenceStats, Error>> {
        let count = |room: &Room| PresenceStats { clients: room.users.total, users: room.users.users.len() };
        ready(Ok(self.look(channel, count))).boxed()
    }

    fn connections(&self, channel: &Channel, users: &[String]) -> BoxFuture<'_, Result<Vec<usize>, Error>> {
        let count =
            |room: &Room| users.iter().map(|user| room.users.users.get(&**user).copied().unwrap_or(0)).collect();
        let mut counts: Vec<usize> = self.look(channel, count);
        counts.resize(users.len(), 0);
        ready(Ok(counts)).boxed()
    }
}

impl fmt::Debug for MemoryPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPresence").finish_non_exhaustive()
    }
}
