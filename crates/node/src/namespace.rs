//! Named sets of channel options, matched by prefix.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::Channel;
use serde::{Deserialize, Serialize};

use crate::broker::Retention;
use crate::config::duration;
use crate::presence::Per;

/// One `[[namespace]]`: the options of every channel `name:…`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespace {
    /// What stands before the `:` of its channels; empty for channels without one.
    pub name: String,
    /// Whether the members of its channels are known. Default: false.
    pub presence: bool,
    /// Whether joins and leaves are announced to the subscribers that ask for them. Default: false.
    pub join_leave: bool,
    /// Whether joins and leaves are announced to every subscriber. Default: false.
    pub force_join_leave: bool,
    /// What joins and leaves are announced for. Default: "connection".
    pub join_leave_per: Per,
    /// The most publications a channel keeps; 0 keeps none. Default: 0.
    pub history_size: usize,
    /// How long a publication is kept. Default: 0s.
    #[serde(with = "duration")]
    pub history_ttl: Duration,
    /// Whether subscriptions are recoverable; needs history. Default: false.
    pub recovery: bool,
    /// What a recovering subscriber gets. Default: "stream".
    pub recovery_mode: RecoveryMode,
    /// Whether subscriptions have a position, so that a gap is told; needs history. Default: false.
    pub positioning: bool,
    /// Who may subscribe. Default: "token".
    pub subscribe: Permission,
    /// Who may publish. Default: "nobody".
    pub publish: Permission,
    /// Who may see the members. Default: "nobody".
    pub presence_read: Permission,
    /// Who may read the history. Default: "nobody".
    pub history_read: Permission,
    /// The hook that decides, in place of `subscribe`, about clients without a subscription token; empty for none. Default: empty.
    pub subscribe_hook: String,
    /// The hook that decides, in place of `publish`, what clients publish; empty for none. Default: empty.
    pub publish_hook: String,
    /// The hook that renews subscriptions whose term is over; empty for none. Default: empty.
    pub sub_refresh_hook: String,
    /// The hook that has the remote calls of methods `name:…`; empty for `client.rpc_hook`. Default: empty.
    pub rpc_hook: String,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            name: String::new(),
            presence: false,
            join_leave: false,
            force_join_leave: false,
            join_leave_per: Per::Connection,
            history_size: 0,
            history_ttl: Duration::ZERO,
            recovery: false,
            recovery_mode: RecoveryMode::Stream,
            positioning: false,
            subscribe: Permission::Token,
            publish: Permission::Nobody,
            presence_read: Permission::Nobody,
            history_read: Permission::Nobody,
            subscribe_hook: String::new(),
            publish_hook: String::new(),
            sub_refresh_hook: String::new(),
            rpc_hook: String::new(),
        }
    }
}

/// Who may do something. The variants widen from the last to the first.
///
/// In a channel with `$` or `#`, not even `anyone` reaches further than its subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Every connected client.
    Anyone,
    /// A client with a user id.
    Authenticated,
    /// A client that is subscribed to the channel; for everything but subscribing.
    Subscriber,
    /// A client with a token or a capability for this channel; elsewhere the same as `subscriber` with such a token.
    Token,
    /// No client, not even with a token; the server may still subscribe it.
    Nobody,
}

/// What a recovering subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoveryMode {
    /// Everything it missed, or nothing and the word that there was more.
    Stream,
    /// The latest publication.
    Cache,
}

impl Namespace {
    /// What its channels keep, if anything.
    #[must_use]
    pub fn retention(&self) -> Option<Retention> {
        (self.history_size > 0 && !self.history_ttl.is_zero())
            .then_some(Retention { size: self.history_size, ttl: self.history_ttl })
    }

    /// The hooks it names, each with its key.
    #[must_use]
    pub fn hooks(&self) -> [(&'static str, &str); 4] {
        [
            ("subscribe_hook", &self.subscribe_hook),
            ("publish_hook", &self.publish_hook),
            ("sub_refresh_hook", &self.sub_refresh_hook),
            ("rpc_hook", &self.rpc_hook),
        ]
    }

    /// A namespace in which everything is on and allowed to everyone.
    #[must_use]
    pub fn open(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            presence: true,
            join_leave: true,
            history_size: 100,
            history_ttl: Duration::from_secs(300),
            recovery: true,
            positioning: true,
            subscribe: Permission::Anyone,
            publish: Permission::Anyone,
            presence_read: Permission::Anyone,
            history_read: Permission::Anyone,
            ..Self::default()
        }
    }

    /// Everything that is wrong with it, in words for who wrote the configuration.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let name = &self.name;
        if !name.is_empty() && Channel::new(name).is_err() || name.contains([':', '$', '#']) {
            mistakes.push(format!("namespace {name:?}: name must be printable ASCII without : $ #"));
        }
        if self.subscribe == Permission::Subscriber {
            mistakes.push(format!("namespace {name:?}: subscribe = \"subscriber\" has no meaning"));
        }
        if (self.history_size > 0) == self.history_ttl.is_zero() {
            mistakes.push(format!("namespace {name:?}: history_size and history_ttl go together"));
        }
        if (self.recovery || self.positioning) && self.retention().is_none() {
            mistakes.push(format!("namespace {name:?}: recovery and positioning need history_size and history_ttl"));
        }
        mistakes
    }
}

/// All namespaces of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces(HashMap<String, Arc<Namespace>>);

impl Namespaces {
    pub(crate) fn new(namespaces: &[Namespace]) -> Self {
        Self(namespaces.iter().map(|namespace| (namespace.name.clone(), Arc::new(namespace.clone()))).collect())
    }

    /// Finds the namespace of a channel.
    pub(crate) fn resolve(&self, channel: &Channel) -> Option<Arc<Namespace>> {
        self.0.get(channel.namespace()).cloned()
    }

    /// The namespace of this name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Namespace>> {
        self.0.get(name).cloned()
    }

    /// The namespace of channels without one.
    pub(crate) fn nameless(&self) -> Option<Arc<Namespace>> {
        self.0.get("").cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_find_their_namespace() {
        let namespaces = Namespaces::new(&[Namespace::default(), Namespace::open("chat")]);
        let resolve = |name| namespaces.resolve(&Channel::new(name).unwrap()).map(|found| found.name.clone());
        assert_eq!(resolve("chat:1").as_deref(), Some("chat"));
        assert_eq!(resolve("$chat:1").as_deref(), Some("chat"));
        assert_eq!(resolve("news").as_deref(), Some(""));
        assert_eq!(resolve("other:1"), None);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Namespace::default().mistakes().is_empty());
        assert!(Namespace::open("chat").mistakes().is_empty());
        let wrong = Namespace {
            name: "a:b".into(),
            history_size: 1,
            recovery: true,
            subscribe: Permission::Subscriber,
            ..Namespace::default()
        };
        assert_eq!(wrong.mistakes().len(), 4);
    }
}
