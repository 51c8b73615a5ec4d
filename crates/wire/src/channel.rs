//! Channel names.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The validated name of a channel: 1 to 255 bytes of printable ASCII without the characters `{}*&/"\`.
///
/// A name is compared byte by byte. Cloning is cheap (a reference count).
/// `namespace:rest` selects a namespace, a leading `$` makes a subscription token necessary,
/// and `#` separates a list of the users who may subscribe (`dialog#42,43`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Validates `name`.
    ///
    /// # Errors
    ///
    /// Says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, InvalidChannel> {
        if name.is_empty() {
            return Err(InvalidChannel::Empty);
        }
        if name.len() > Self::MAX_LEN {
            return Err(InvalidChannel::TooLong);
        }
        let allowed = |c: &u8| c.is_ascii_graphic() && !RESERVED.contains(c);
        if !name.as_bytes().iter().all(allowed) {
            return Err(InvalidChannel::Character);
        }
        Ok(Self(name.into()))
    }

    /// The name. It never needs escaping in JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first `:`, without the `$` of a private channel; `""` when there is none.
    /// A `:` behind `#` belongs to a user's id.
    #[must_use]
    pub fn namespace(&self) -> &str {
        let name = self.0.strip_prefix('$').unwrap_or(&self.0);
        let name = name.split_once('#').map_or(name, |(name, _)| name);
        name.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// Whether the name starts with `$`: only a subscription token opens it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The users listed after the first `#`, if the channel is limited to some.
    #[must_use]
    pub fn users(&self) -> Option<impl Iterator<Item = &str>> {
        self.0.split_once('#').map(|(_, users)| users.split(','))
    }
}

/// Characters with a meaning elsewhere: hash tags and globs of Redis, JSON escapes,
/// and `& /`, which the native protocol keeps for itself.
const RESERVED: &[u8] = b"{}*&/\"\\";

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a channel name is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannel {
    /// The name has no bytes.
    #[error("channel name is empty")]
    Empty,
    /// The name is longer than [`Channel::MAX_LEN`].
    #[error("channel name is longer than 255 bytes")]
    TooLong,
    /// The name has a reserved character, white space, or one outside ASCII.
    #[error("channel name has a character outside printable ASCII, or one of {{}}*&/\"\\")]
    Character,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "chat:42", "$secret", "dialog#42,43", "#42", "a.b-c_d=e@f,g;h", "ns:"] {
            assert_eq!(Channel::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Channel::new(""), Err(InvalidChannel::Empty));
        assert_eq!(Channel::new(&"a".repeat(256)), Err(InvalidChannel::TooLong));
        assert!(Channel::new(&"a".repeat(255)).is_ok());
        for bad in ["a b", "a\n", "ä", "{a}", "a*", "a\"", "a\\b", "a/b", "\u{7f}"] {
            assert_eq!(Channel::new(bad), Err(InvalidChannel::Character), "{bad:?}");
        }
    }

    #[test]
    fn parts() {
        let namespace = |name| Channel::new(name).unwrap().namespace().to_owned();
        assert_eq!(namespace("chat:42:1"), "chat");
        assert_eq!(namespace("$chat:42"), "chat");
        assert_eq!(namespace("chat"), "");
        assert_eq!(namespace("chat:1#google:42"), "chat");
        assert_eq!(namespace("#google:42"), "");
        let channel = Channel::new("dialog#42,43").unwrap();
        assert_eq!(channel.users().unwrap().collect::<Vec<_>>(), ["42", "43"]);
        assert_eq!(Channel::new("#a#b").unwrap().users().unwrap().collect::<Vec<_>>(), ["a#b"]);
        assert!(Channel::new("dialog").unwrap().users().is_none());
    }
}
