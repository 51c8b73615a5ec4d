//! The library of functions: how it is loaded and called.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::{Cmd, Script};

const SOURCE: &str = concat!(include_str!("functions.lua"), include_str!("presence/functions.lua"));

/// How many functions there are.
const COUNT: usize = 10;

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

/// A function with what it is given. All keys are of one partition.
pub(crate) struct Call<'a> {
    pub(crate) function: Function,
    pub(crate) keys: &'a [String],
    pub(crate) args: &'a [Bytes],
}

impl Function {
    const ALL: [Self; COUNT] = [
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
    fn name(self) -> &'static str {
        match self {
            Self::Publish => "fanwire_3_publish",
            Self::PublishOnce => "fanwire_3_publish_once",
            Self::History => "fanwire_3_history",
            Self::PresenceAdd => "fanwire_3_presence_add",
            Self::PresenceRemove => "fanwire_3_presence_remove",
            Self::PresenceEnter => "fanwire_3_presence_enter",
            Self::PresenceCheck => "fanwire_3_presence_check",
            Self::PresenceCondemn => "fanwire_3_presence_condemn",
            Self::PresenceRenew => "fanwire_3_presence_renew",
            Self::PresenceClaim => "fanwire_3_presence_claim",
        }
    }

    /// The text of the same as a script.
    fn code(self) -> String {
        format!("{SOURCE}return {}(KEYS, ARGV)", self.local_name())
    }
}

impl Call<'_> {
    /// The command for a server with the library.
    pub(crate) fn function(&self) -> Cmd {
        self.command("FCALL", self.function.name())
    }

    /// The command for a server that permits scripts only, and has seen this one.
    pub(crate) fn known_script(&self) -> Cmd {
        self.command("EVALSHA", SCRIPTS[self.function as usize].get_hash())
    }

    /// The same for one that has not.
    pub(crate) fn script(&self) -> Cmd {
        self.command("EVAL", &self.function.code())
    }

    fn command(&self, name: &str, function: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(function).arg(self.keys.len()).arg(self.keys);
        for arg in self.args {
            command.arg(&**arg);
        }
        command
    }
}

/// The library for `FUNCTION LOAD`.
pub(crate) fn library() -> &'static str {
    &LIBRARY
}

static LIBRARY: LazyLock<String> = LazyLock::new(|| {
    let mut text = format!("#!lua name=fanwire_3\n{SOURCE}");
    for function in Function::ALL {
        text.push_str(&format!("redis.register_function('{}', {})\n", function.name(), function.local_name()));
    }
    text
});

/// Known by their hashes.
static SCRIPTS: LazyLock<[Script; COUNT]> =
    LazyLock::new(|| Function::ALL.map(|function| Script::new(&function.code())));
