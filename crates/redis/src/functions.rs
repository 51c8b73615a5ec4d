//! The library of functions: how it is loaded and called.

use redis::Script;

const SOURCE: &str = concat!(include_str!("functions.lua"), include_str!("presence/functions.lua"));

/// One of the library's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Publish,
    PublishOnce,
    History,
    PresenceAdd,
    PresenceRemove,
    PresenceEnter,
    PresenceCheck,
    PresenceCondemn,
    PresenceRenew,
    PresenceClaim,
}

impl Function {
    const ALL: [Self; 10] = [
        Self::Publish,
        Self::PublishOnce,
        Self::History,
        Self::PresenceAdd,
        Self::PresenceRemove,
        Self::PresenceEnter,
        Self::PresenceCheck,
        Self::PresenceCondemn,
        Self::PresenceRenew,
        Self::PresenceClaim,
    ];

    fn local_name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::PublishOnce => "publish_once",
            Self::History => "history",
            Self::PresenceAdd => "presence_add",
            Self::PresenceRemove => "presence_remove",
            Self::PresenceEnter => "presence_enter",
            Self::PresenceCheck => "presence_check",
            Self::PresenceCondemn => "presence_condemn",
            Self::PresenceRenew => "presence_renew",
            Self::PresenceClaim => "presence_claim",
        }
    }

    /// Its name on the server.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "fanwire_2_publish",
            Self::PublishOnce => "fanwire_2_publish_once",
            Self::History => "fanwire_2_history",
            Self::PresenceAdd => "fanwire_2_presence_add",
            Self::PresenceRemove => "fanwire_2_presence_remove",
            Self::PresenceEnter => "fanwire_2_presence_enter",
            Self::PresenceCheck => "fanwire_2_presence_check",
            Self::PresenceCondemn => "fanwire_2_presence_condemn",
            Self::PresenceRenew => "fanwire_2_presence_renew",
            Self::PresenceClaim => "fanwire_2_presence_claim",
        }
    }
}

/// The library for `FUNCTION LOAD`.
pub(crate) fn library() -> String {
    let mut text = format!("#!lua name=fanwire_2\n{SOURCE}");
    for function in Function::ALL {
        text.push_str(&format!("redis.register_function('{}', {})\n", function.name(), function.local_name()));
    }
    text
}

/// The same functions as scripts.
#[derive(Debug)]
pub(crate) struct Scripts([Script; 10]);

impl Scripts {
    pub(crate) fn new() -> Self {
        Self(
            Function::ALL.map(|function| Script::new(&format!("{SOURCE}return {}(KEYS, ARGV)", function.local_name()))),
        )
    }

    pub(crate) fn get(&self, function: Function) -> &Script {
        &self.0[function as usize]
    }
}
