//! The library of functions: how it is loaded and called.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::{Cmd, Script};

const SOURCE: &str = concat!(include_str!("functions.lua"), include_str!("presence/functions.lua"));

/// The library's name on the server, and how its functions' names begin. Nodes of two versions use a server side by side, so
/// whoever changes what a function does changes the number.
const NAME: &str = "fanwire_5";

/// How many functions there are.
const COUNT: usize = 9;

/// One of the library's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Publish,
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
        &NAMES[self as usize]
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
    let mut text = format!("#!lua name={NAME}\n{SOURCE}");
    for function in Function::ALL {
        text.push_str(&format!("redis.register_function('{}', {})\n", function.name(), function.local_name()));
    }
    text
});

static NAMES: LazyLock<[String; COUNT]> =
    LazyLock::new(|| Function::ALL.map(|function| format!("{NAME}_{}", function.local_name())));

/// Known by their hashes.
static SCRIPTS: LazyLock<[Script; COUNT]> =
    LazyLock::new(|| Function::ALL.map(|function| Script::new(&function.code())));
