//! Which channels the node wants to receive, and which of them a server has confirmed.

use std::collections::HashMap;
use std::sync::Arc;

use fanwire_wire::Channel;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// The wishes of the node in one partition, and how far they are fulfilled by the connection that serves it.
///
/// They outlive connections: one takes them over with nothing confirmed, and what an earlier one still says is not heard. The lock
/// is a leaf: nothing is called under it.
#[derive(Default)]
pub(crate) struct Wishes(Mutex<State>);

/// A connection, as the wishes that it serves know it.
pub(crate) struct Servant {
    /// The number of its server.
    pub(crate) shard: usize,
    /// Something was wished, or has to be looked at otherwise.
    pub(crate) called: Notify,
}

#[derive(Default)]
struct State {
    servant: Option<Arc<Servant>>,
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

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.subscribe.is_empty() && self.unsubscribe.is_empty()
    }
}

/// The channels of one command.
const BATCH: usize = 512;

impl Wishes {
    /// Wants a channel; returns what to wait for unless the channel arrives already.
    pub(crate) fn want(&self, channel: &Channel) -> Option<oneshot::Receiver<()>> {
        let mut state = self.0.lock();
        let wish = state.channels.entry(channel.clone()).or_default();
        wish.wanted = true;
        if wish.stage == Stage::Confirmed {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        wish.waiting.retain(|waiting| !waiting.is_closed());
        wish.waiting.push(sender);
        state.look_at(channel);
        Some(receiver)
    }

    /// Wants a channel no more. True if it is gone at once, as it is where nobody fulfils wishes.
    pub(crate) fn leave(&self, channel: &Channel) -> bool {
        let mut state = self.0.lock();
        if state.servant.is_none() {
            return state.channels.remove(channel).is_some();
        }
        if let Some(wish) = state.channels.get_mut(channel) {
            wish.wanted = false;
            state.look_at(channel);
        }
        false
    }

    /// From now on this connection fulfils the wishes; nothing is confirmed yet.
    pub(crate) fn take_over(&self, servant: &Arc<Servant>) {
        let mut state = self.0.lock();
        state.servant = Some(Arc::clone(servant));
        state.start_over();
    }

    /// This connection fulfils them no more, and with it goes everything that was confirmed.
    pub(crate) fn release(&self, servant: &Arc<Servant>) {
        let mut state = self.0.lock();
        if state.is_served_by(servant) {
            state.servant = None;
            state.start_over();
        }
    }

    /// The number of the server whose connection fulfils them.
    pub(crate) fn shard(&self) -> Option<usize> {
        self.0.lock().servant.as_ref().map(|servant| servant.shard)
    }

    /// The server has confirmed a channel.
    pub(crate) fn confirm(&self, servant: &Arc<Servant>, channel: &Channel) {
        let mut state = self.0.lock();
        if !state.is_served_by(servant) {
            return;
        }
        let Some(wish) = state.channels.get_mut(channel) else { return };
        wish.stage = Stage::Confirmed;
        for waiting in wish.waiting.drain(..) {
            // Whoever waited may have given up.
            let _ = waiting.send(());
        }
        if !wish.wanted {
            state.look_at(channel);
        }
    }

    /// The server does not do what was asked, or does not deliver a channel any more.
    pub(crate) fn lost(&self, servant: &Arc<Servant>, channel: &Channel) {
        let mut state = self.0.lock();
        if !state.is_served_by(servant) {
            return;
        }
        if let Some(wish) = state.channels.get_mut(channel) {
            wish.stage = Stage::Out;
            state.look_at(channel);
        }
    }

    /// Takes the next commands, as if they were carried out. Empty when there is nothing to do.
    pub(crate) fn take(&self, servant: &Arc<Servant>) -> Batch {
        let mut state = self.0.lock();
        let mut batch = Batch::default();
        if !state.is_served_by(servant) {
            return batch;
        }
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
}

impl State {
    fn look_at(&mut self, channel: &Channel) {
        // Whoever begins to serve looks at everything.
        if let Some(servant) = &self.servant {
            self.changed.push(channel.clone());
            servant.called.notify_one();
        }
    }

    fn is_served_by(&self, servant: &Arc<Servant>) -> bool {
        self.servant.as_ref().is_some_and(|current| Arc::ptr_eq(current, servant))
    }

    fn start_over(&mut self) {
        for wish in self.channels.values_mut() {
            wish.stage = Stage::Out;
        }
        self.changed = self.servant.iter().flat_map(|_| self.channels.keys()).cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    fn servant() -> Arc<Servant> {
        Arc::new(Servant { shard: 0, called: Notify::new() })
    }

    #[test]
    fn what_an_earlier_connection_says_is_not_heard() {
        let (wishes, a, one, two) = (Wishes::default(), channel("a"), servant(), servant());
        let mut waiting = wishes.want(&a).unwrap();
        wishes.take_over(&one);
        assert_eq!(wishes.take(&one).subscribe, std::slice::from_ref(&a));
        wishes.take_over(&two);
        wishes.confirm(&one, &a);
        assert!(wishes.take(&one).is_empty() && waiting.try_recv().is_err());
        wishes.release(&one);
        assert_eq!(wishes.take(&two).subscribe, std::slice::from_ref(&a), "asked again by the one that serves now");
        wishes.confirm(&two, &a);
        assert!(waiting.try_recv().is_ok() && wishes.want(&a).is_none());
        wishes.release(&two);
        assert!(wishes.want(&a).is_some(), "nothing is confirmed without a connection");
    }

    #[test]
    fn a_lost_channel_is_asked_for_again() {
        let (wishes, a, one) = (Wishes::default(), channel("a"), servant());
        wishes.take_over(&one);
        let _ = wishes.want(&a);
        wishes.take(&one);
        wishes.confirm(&one, &a);
        wishes.lost(&one, &a);
        assert_eq!(wishes.take(&one).subscribe, std::slice::from_ref(&a));
        wishes.confirm(&one, &a);
        assert!(!wishes.leave(&a));
        assert_eq!(wishes.take(&one).unsubscribe, [a]);
    }

    #[test]
    fn without_a_connection_nothing_piles_up() {
        let (wishes, a) = (Wishes::default(), channel("a"));
        for _ in 0..100 {
            let _ = wishes.want(&a);
            assert!(wishes.leave(&a));
        }
        let state = wishes.0.lock();
        assert!(state.channels.is_empty() && state.changed.is_empty());
    }
}
