//! Forms of names: which channels are meant, without naming each.

use std::fmt;

use crate::{Channel, InvalidChannel};

/// The form of channel names: `*` stands for any text, also none; everything else for itself.
///
/// Matching takes time linear in the two lengths, whatever stands in them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Reads a pattern. It is as long as a channel's name at most, and of the same characters, `*` added.
    ///
    /// # Errors
    ///
    /// Says what no channel's name could have.
    pub fn new(pattern: &str) -> Result<Self, InvalidChannel> {
        if pattern.len() > Channel::MAX_LEN {
            return Err(InvalidChannel::TooLong);
        }
        let literal: String = pattern.split('*').collect();
        match Channel::new(&literal) {
            Err(InvalidChannel::Empty) if !pattern.is_empty() => {}
            other => drop(other?),
        }
        Ok(Self(pattern.into()))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name has this form.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.0, name)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whether `name` has the form of `pattern`, which may be any text: its pieces between the stars, in their order.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        // The first place is as good as any: it leaves the most for what follows.
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (pattern, name) in [
            ("*", "anything"),
            ("**", "anything"),
            ("chat:*", "chat:"),
            ("chat:*", "chat:1"),
            ("*:1", "chat:1"),
            ("a*c*e", "abcde"),
            ("a*b*b", "abb"),
            ("a*b*b", "abbab"),
            ("chat", "chat"),
            ("c?t", "c?t"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("chat:*", "chat"), ("*:1", "chat:12"), ("a*a", "a"), ("a*b*b", "ab"), ("chat", "chats"), ("c?t", "cat")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_are_of_what_names_are_of() {
        for good in ["*", "chat:*", "$secret:*", "*#*", "chat", "a*b*c"] {
            assert_eq!(Pattern::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Pattern::new(""), Err(InvalidChannel::Empty));
        assert_eq!(Pattern::new(&"*".repeat(256)), Err(InvalidChannel::TooLong));
        for bad in ["a b*", "{a}*", "ä*", "a/*", "a\\*"] {
            assert_eq!(Pattern::new(bad), Err(InvalidChannel::Character), "{bad}");
        }
    }
}
