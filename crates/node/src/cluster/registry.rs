//! Who else is there, as far as this node has heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanwire_wire::cluster::NodeInfo;
use tokio::time::Instant;

use super::NodeView;

/// The other nodes of the cluster, by id.
#[derive(Debug)]
pub(super) struct Registry {
    others: BTreeMap<String, Other>,
    /// When something this node said to all last came back to it; at first, when it began to wait for that.
    heard_itself: Instant,
    /// Whether it ever did.
    introduced: bool,
}

#[derive(Debug)]
struct Other {
    info: NodeInfo,
    /// When it announced itself last.
    announced: Instant,
    /// When anything came from it last.
    heard: Instant,
    /// It left the last question unanswered.
    silent: bool,
    /// Since it last announced itself, it did not know what it was asked.
    outdated: bool,
}

/// A node from which nothing came for this long is gone.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(9);

/// The most other nodes. More are not seen: they are told everything, and not waited for.
pub(super) const MAX_NODES: usize = 1024;

impl Registry {
    pub(super) fn new() -> Self {
        Self { others: BTreeMap::new(), heard_itself: Instant::now(), introduced: false }
    }

    /// A node has announced itself.
    pub(super) fn announced(&mut self, id: &str, info: NodeInfo) {
        self.forget_silent();
        if let Some(other) = self.others.get_mut(id) {
            *other = Other::new(info);
        } else if self.others.len() < MAX_NODES {
            tracing::info!(node = id, name = info.name, version = info.version, "a node is there");
            self.others.insert(id.to_owned(), Other::new(info));
        } else {
            tracing::debug!(node = id, "one node too many: it is not seen");
        }
    }

    /// Something else came from a node.
    pub(super) fn heard(&mut self, id: &str) {
        if let Some(other) = self.others.get_mut(id) {
            other.heard = Instant::now();
            other.silent = false;
        }
    }

    /// A node has said goodbye.
    pub(super) fn left(&mut self, id: &str) {
        if let Some(other) = self.others.remove(id) {
            tracing::info!(node = id, name = other.info.name, "a node has left");
        }
    }

    /// A node has not answered. Logged when it begins.
    pub(super) fn silent(&mut self, id: &str, question: &str) {
        if let Some(other) = self.others.get_mut(id)
            && !std::mem::replace(&mut other.silent, true)
        {
            let age = other.heard.elapsed();
            tracing::warn!(node = id, name = other.info.name, question, ?age, "a node does not answer");
        }
    }

    /// A node does not know a question. Logged once between two of its announcements.
    pub(super) fn outdated(&mut self, id: &str, question: &str) {
        if let Some(other) = self.others.get_mut(id)
            && !std::mem::replace(&mut other.outdated, true)
        {
            let NodeInfo { name, version, .. } = &other.info;
            tracing::warn!(node = id, name, version, question, "a node of another version cannot do this");
        }
    }

    /// Something this node said to all came back.
    pub(super) fn heard_itself(&mut self) {
        self.heard_itself = Instant::now();
        self.introduced = true;
    }

    /// Whether the others may not know this node, nor this node them.
    pub(super) fn is_stranger(&self) -> bool {
        !self.introduced || self.is_isolated()
    }

    /// Whether nothing has arrived for so long that the others may be forgotten.
    pub(super) fn is_isolated(&self) -> bool {
        self.heard_itself.elapsed() >= FORGOTTEN
    }

    /// Forgets the nodes from which nothing comes any more.
    pub(super) fn forget_silent(&mut self) {
        self.others.retain(|id, other| {
            let keep = other.is_there();
            if !keep {
                tracing::warn!(node = id, name = other.info.name, "a node is gone without a word");
            }
            keep
        });
    }

    /// The ids of the other nodes.
    pub(super) fn ids(&self) -> BTreeSet<String> {
        self.others.iter().filter(|(_, other)| other.is_there()).map(|(id, _)| id.clone()).collect()
    }

    /// The other nodes, by id.
    pub(super) fn views(&self) -> Vec<NodeView> {
        let there = self.others.iter().filter(|(_, other)| other.is_there());
        there
            .map(|(id, other)| {
                let age = other.announced.elapsed();
                let info = NodeInfo { uptime: other.info.uptime + age, ..other.info.clone() };
                NodeView { id: id.clone(), info, age, silent: other.silent }
            })
            .collect()
    }
}

impl Other {
    fn new(info: NodeInfo) -> Self {
        let now = Instant::now();
        Self { info, announced: now, heard: now, silent: false, outdated: false }
    }

    fn is_there(&self) -> bool {
        self.heard.elapsed() < FORGOTTEN
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn ids(registry: &Registry) -> Vec<String> {
        registry.ids().into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_forgotten_after_its_silence() {
        let mut registry = Registry::new();
        registry.announced("a", NodeInfo { clients: 1, ..NodeInfo::default() });
        advance(Duration::from_secs(5)).await;
        registry.announced("b", NodeInfo::default());
        advance(Duration::from_millis(3999)).await;
        assert_eq!(ids(&registry), ["a", "b"]);
        assert_eq!(registry.views()[0].age, Duration::from_millis(8999));
        advance(Duration::from_millis(1)).await;
        assert_eq!(ids(&registry), ["b"], "whether it was swept up or not");
        assert_eq!(registry.others.len(), 2);
        registry.forget_silent();
        assert_eq!(registry.others.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn every_word_is_a_sign_of_life_and_only_announcements_are_news() {
        let mut registry = Registry::new();
        let uptime = Duration::from_secs(60);
        registry.announced("a", NodeInfo { uptime, ..NodeInfo::default() });
        advance(Duration::from_secs(6)).await;
        registry.heard("a");
        registry.heard("nobody knows");
        advance(Duration::from_secs(6)).await;
        let [NodeView { info, age, silent: false, .. }] = &registry.views()[..] else { panic!("one node") };
        assert_eq!((info.uptime, *age), (Duration::from_secs(72), Duration::from_secs(12)));
        registry.left("a");
        registry.heard("a");
        assert!(ids(&registry).is_empty(), "what comes behind a farewell brings nobody back");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_silent_until_it_speaks() {
        let mut registry = Registry::new();
        registry.announced("a", NodeInfo::default());
        registry.silent("a", "info");
        registry.silent("nobody knows", "info");
        assert!(registry.views()[0].silent);
        registry.heard("a");
        assert!(!registry.views()[0].silent);
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_is_a_stranger() {
        let mut registry = Registry::new();
        assert!(registry.is_stranger() && !registry.is_isolated());
        registry.heard_itself();
        assert!(!registry.is_stranger());
        advance(FORGOTTEN).await;
        assert!(registry.is_stranger() && registry.is_isolated());
        registry.heard_itself();
        assert!(!registry.is_stranger() && !registry.is_isolated());
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_bounded() {
        let mut registry = Registry::new();
        for number in 0..MAX_NODES + 10 {
            registry.announced(&format!("{number:05}"), NodeInfo::default());
        }
        assert_eq!(registry.ids().len(), MAX_NODES);
        advance(FORGOTTEN).await;
        registry.announced("new", NodeInfo::default());
        assert_eq!(ids(&registry), ["new"]);
    }
}
