//! Several nodes that hear each other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::{Error, History, HistoryQuery, Kept, PublishOptions, Published, Recipient, Revocation};
use fanwire_node::{Broker, Dispatcher, MemoryBroker};
use fanwire_wire::cluster::{Control, Envelope};
use fanwire_wire::{Channel, Publication};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

/// Carries what nodes say to each other, in bytes as over a network, and keeps what is revoked. Publications stay with each of them.
/// Clones are the same network.
#[derive(Clone, Default)]
pub struct Lan(Arc<Mutex<Vec<Port>>>, Arc<Mutex<Vec<Revocation>>>);

struct Port {
    id: String,
    plugged: bool,
    ear: Ear,
}

/// Who listens at a port.
enum Ear {
    Node(Arc<Dispatcher>),
    Test(Arc<Mutex<Vec<Control>>>),
}

impl Lan {
    /// Makes the broker of a node on this network, for [`Harness::start`](crate::Harness::start).
    #[must_use]
    pub fn broker(&self, dispatcher: Arc<Dispatcher>) -> Box<dyn Broker> {
        let node = dispatcher.node().to_owned();
        self.0.lock().push(Port { id: node.clone(), plugged: true, ear: Ear::Node(Arc::clone(&dispatcher)) });
        Box::new(LanBroker { node, lan: self.clone(), memory: MemoryBroker::new(dispatcher) })
    }

    /// Takes part as a node that the test plays: returns what it hears. It speaks with [`Lan::carry`].
    #[must_use]
    pub fn stranger(&self, id: &str) -> Arc<Mutex<Vec<Control>>> {
        let heard = Arc::<Mutex<Vec<Control>>>::default();
        self.0.lock().push(Port { id: id.to_owned(), plugged: true, ear: Ear::Test(Arc::clone(&heard)) });
        heard
    }

    /// Cuts a node off without anybody being told: what it says and what is said to it is lost.
    pub fn unplug(&self, node: &str) {
        self.set(node, false);
    }

    /// Connects the node again.
    pub fn plug(&self, node: &str) {
        self.set(node, true);
    }

    /// Carries any bytes to the nodes meant, as if somebody on the network had said them.
    pub fn carry(&self, to: Recipient<'_>, bytes: &Bytes) {
        for port in self.0.lock().iter().filter(|port| port.plugged) {
            let meant = to == Recipient::All || to == Recipient::Node(&port.id);
            if let (true, Ok(Envelope::Control(control))) = (meant, Envelope::decode(bytes.clone())) {
                match &port.ear {
                    Ear::Node(dispatcher) => dispatcher.hear(*control),
                    Ear::Test(heard) => heard.lock().push(*control),
                }
            }
        }
    }

    fn is_plugged(&self, node: &str) -> bool {
        self.0.lock().iter().any(|port| port.plugged && port.id == node)
    }

    fn set(&self, node: &str, plugged: bool) {
        for port in self.0.lock().iter_mut().filter(|port| port.id == node) {
            port.plugged = plugged;
        }
    }
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lan").field("nodes", &self.0.lock().len()).finish()
    }
}

struct LanBroker {
    node: String,
    lan: Lan,
    memory: MemoryBroker,
}

impl Broker for LanBroker {
    fn publish(&self, publication: Publication, options: PublishOptions) -> BoxFuture<'_, Result<Published, Error>> {
        self.memory.publish(publication, options)
    }

    fn tell(&self, to: Recipient<'_>, control: Control) -> BoxFuture<'_, Result<(), Error>> {
        let to = if let Recipient::Node(node) = to { Some(node.to_owned()) } else { None };
        async move {
            if self.lan.is_plugged(&self.node) {
                let to = to.as_deref().map_or(Recipient::All, Recipient::Node);
                self.lan.carry(to, &Envelope::Control(Box::new(control)).encode());
            }
            Ok(())
        }
        .boxed()
    }

    fn subscribe(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        self.memory.subscribe(channel)
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.memory.unsubscribe(channel);
    }

    fn history(&self, channel: &Channel, query: HistoryQuery) -> BoxFuture<'_, Result<History, Error>> {
        self.memory.history(channel, query)
    }

    fn remove_history(&self, channel: &Channel) -> BoxFuture<'_, Result<(), Error>> {
        self.memory.remove_history(channel)
    }

    fn revoke(&self, revocation: &Revocation, _keep: Duration) -> BoxFuture<'_, Result<(), Error>> {
        self.lan.1.lock().push(revocation.clone());
        ready(Ok(())).boxed()
    }

    fn revocations<'a>(&'a self, place: &'a str) -> BoxFuture<'a, Result<Kept, Error>> {
        let all = self.lan.1.lock();
        let read = place.parse().unwrap_or(0);
        let (revocations, place) = if self.lan.is_plugged(&self.node) {
            (all[read..].to_vec(), all.len().to_string())
        } else {
            (Vec::new(), place.to_owned())
        };
        ready(Ok(Kept { revocations, place })).boxed()
    }
}
