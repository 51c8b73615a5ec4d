//! The library of functions: how it is loaded and called.

use redis::Script;

const SOURCE: &str = include_str!("functions.lua");

/// One of the library's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Publish,
    PublishOnce,
    History,
}

impl Function {
    const ALL: [Self; 3] = [Self::Publish, Self::PublishOnce, Self::History];

    fn local_name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::PublishOnce => "publish_once",
            Self::History => "history",
        }
    }

    /// Its name on the server.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "fanwire_1_publish",
            Self::PublishOnce => "fanwire_1_publish_once",
            Self::History => "fanwire_1_history",
        }
    }
}

/// The library for `FUNCTION LOAD`.
pub(crate) fn library() -> String {
    let mut text = format!("#!lua name=fanwire_1\n{SOURCE}");
    for function in Function::ALL {
        text.push_str(&format!("redis.register_function('{}', {})\n", function.name(), function.local_name()));
    }
    text
}

/// The same functions as scripts.
#[derive(Debug)]
pub(crate) struct Scripts([Script; 3]);

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
