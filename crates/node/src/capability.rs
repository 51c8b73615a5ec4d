//! What a token lets a client do, in channels named by their form.

use fanwire_wire::{Channel, Pattern};

/// What a client wants to do in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Subscribe to it.
    Subscribe,
    /// Publish in it.
    Publish,
    /// See who is in it.
    Presence,
    /// Read what it keeps.
    History,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Subscribe, Self::Publish, Self::Presence, Self::History];

    /// The name in tokens.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::History => "history",
        }
    }
}

/// The permission to do some things in all channels of some forms.
///
/// It adds to what namespaces permit and takes nothing away; where a namespace says `nobody`, it is of no use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// In which channels.
    pub channels: Vec<Pattern>,
    /// To do what.
    pub actions: Vec<Action>,
    /// When it ends, in seconds of Unix time; `None`: with the connection.
    pub expire_at: Option<u64>,
}

/// How long a permission lasts: as [`Capability::expire_at`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    pub(crate) expire_at: Option<u64>,
}

impl Capability {
    /// Whether it permits an action in a channel at a time, in seconds of Unix time.
    #[must_use]
    pub fn permits(&self, action: Action, channel: &Channel, now: u64) -> bool {
        self.expire_at.is_none_or(|end| now < end)
            && self.actions.contains(&action)
            && self.channels.iter().any(|pattern| opens(pattern, channel))
    }
}

/// Finds the capability that permits an action longest.
pub(crate) fn find(capabilities: &[Capability], action: Action, channel: &Channel, now: u64) -> Option<Permit> {
    let permitting = capabilities.iter().filter(|capability| capability.permits(action, channel, now));
    let ends = permitting.map(|capability| capability.expire_at);
    ends.max_by_key(|end| end.unwrap_or(u64::MAX)).map(|expire_at| Permit { expire_at })
}

/// Whether a pattern means a channel. A star means neither the `$` of private channels nor the `#` of channels with listed users:
/// `chat:*` is no permission to read what two others say to each other.
fn opens(pattern: &Pattern, channel: &Channel) -> bool {
    let written = pattern.as_str();
    (!channel.is_private() || written.starts_with('$'))
        && (channel.users().is_none() || written.contains('#'))
        && pattern.matches(channel.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(channels: &[&str], actions: &[Action], expire_at: Option<u64>) -> Capability {
        let channels = channels.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect();
        Capability { channels, actions: actions.to_vec(), expire_at }
    }

    #[test]
    fn patterns_mean_channels() {
        let cases = [
            ("chat:*", "chat:1", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chats:1", false),
            ("chat:1", "chat:1", true),
            ("chat:1", "chat:12", false),
            ("*", "news", true),
            ("*", "chat:1", true),
            ("*:lobby", "chat:lobby", true),
            // What is closed has to be named.
            ("*", "$chat:1", false),
            ("*chat:*", "$chat:1", false),
            ("$chat:*", "$chat:1", true),
            ("$*", "$chat:1", true),
            ("$chat:*", "chat:1", false),
            ("*", "#42", false),
            ("chat:*", "chat:1#42,43", false),
            ("chat:*#*", "chat:1#42,43", true),
            ("#42", "#42", true),
            ("$*", "$chat:1#42", false),
            ("$*#42", "$chat:1#42", true),
        ];
        for (pattern, name, meant) in cases {
            let channel = Channel::new(name).unwrap();
            let capability = capability(&[pattern], &[Action::Publish], None);
            assert_eq!(capability.permits(Action::Publish, &channel, 0), meant, "{pattern} {name}");
            assert!(!capability.permits(Action::Subscribe, &channel, 0), "another action");
        }
    }

    #[test]
    fn the_longest_permission_counts_and_none_lasts_beyond_its_end() {
        use Action::{History, Publish};
        let all = [
            capability(&["a", "b"], &[Publish], Some(100)),
            capability(&["b"], &[Publish, History], Some(200)),
            capability(&["c"], &[Publish], Some(300)),
            capability(&["c"], &[Publish], None),
        ];
        let find =
            |action, name, now| find(&all, action, &Channel::new(name).unwrap(), now).map(|permit| permit.expire_at);
        assert_eq!(find(Publish, "a", 99), Some(Some(100)));
        assert_eq!(find(Publish, "a", 100), None);
        assert_eq!(find(Publish, "b", 0), Some(Some(200)));
        assert_eq!(find(Publish, "b", 150), Some(Some(200)));
        assert_eq!(find(History, "a", 0), None);
        assert_eq!(find(Publish, "c", 1000), Some(None));
    }
}
