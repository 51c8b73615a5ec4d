//! Which channels the node wants to receive, and which of them the server has confirmed.

use std::collections::HashMap;

use fanwire_wire::Channel;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// The wishes of the node, and how far they are fulfilled. Its lock is a leaf: nothing is called under it.
#[derive(Default)]
pub(crate) struct Wishes {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<Channel, Wish>,
    /// Channels to look at, some perhaps more than once.
    changed: Vec<Channel>,
}

#[derive(Default)]
struct Wish {
    wanted: bool,
    stage: Stage,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Out,
    Asked,
    Confirmed,
}

/// The next commands for the server.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) subscribe: Vec<Channel>,
    pub(crate) unsubscribe: Vec<Channel>,
}

/// The channels of one command.
const BATCH: usize = 512;

impl Wishes {
    /// Wants a channel; returns what to wait for unless the channel arrives already.
    pub(crate) fn want(&self, channel: &Channel) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        let wish = state.channels.entry(channel.clone()).or_default();
        wish.wanted = true;
        if wish.stage == Stage::Confirmed {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        wish.waiting.retain(|waiting| !waiting.is_closed());
        wish.waiting.push(sender);
        state.changed.push(channel.clone());
        self.changed.notify_one();
        Some(receiver)
    }

    /// Wants a channel no more.
    pub(crate) fn leave(&self, channel: &Channel) {
        let mut state = self.state.lock();
        if let Some(wish) = state.channels.get_mut(channel) {
            wish.wanted = false;
            state.changed.push(channel.clone());
            self.changed.notify_one();
        }
    }

    /// The server has confirmed a channel.
    pub(crate) fn confirm(&self, channel: &Channel) {
        let mut state = self.state.lock();
        let Some(wish) = state.channels.get_mut(channel) else { return };
        wish.stage = Stage::Confirmed;
        for waiting in wish.waiting.drain(..) {
            // Whoever waited may have given up.
            let _ = waiting.send(());
        }
        if !wish.wanted {
            state.changed.push(channel.clone());
            self.changed.notify_one();
        }
    }

    /// The connection is gone, and with it everything the server has confirmed.
    pub(crate) fn start_over(&self) {
        let mut state = self.state.lock();
        let State { channels, changed } = &mut *state;
        for wish in channels.values_mut() {
            wish.stage = Stage::Out;
        }
        *changed = channels.keys().cloned().collect();
        self.changed.notify_one();
    }

    /// Takes the next commands, as if they were carried out. Empty when there is nothing to do.
    pub(crate) fn take(&self) -> Batch {
        let mut state = self.state.lock();
        let mut batch = Batch::default();
        while batch.subscribe.len() < BATCH && batch.unsubscribe.len() < BATCH {
            let Some(channel) = state.changed.pop() else { break };
            let Some(wish) = state.channels.get_mut(&channel) else { continue };
            match (wish.wanted, wish.stage) {
                (true, Stage::Out) => {
                    wish.stage = Stage::Asked;
                    batch.subscribe.push(channel);
                }
                // Looked at again when it is confirmed.
                (false, Stage::Asked) | (true, _) => {}
                (false, _) => {
                    state.channels.remove(&channel);
                    batch.unsubscribe.push(channel);
                }
            }
        }
        batch
    }

    /// Waits until there may be something to take.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
