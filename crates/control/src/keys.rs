//! Who may use the control plane, and for what.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, fs};

use fanwire_wire::Pattern;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::pace::Pace;

/// One `[[api_key]]`: its secret is given in place or in a file.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKey {
    /// Whose key it is; the name appears in logs and metrics. At most 64 bytes.
    pub name: String,
    /// The secret: at least 16 characters of printable ASCII. Several, one on a line, are all good. Default: none.
    pub secret: Option<String>,
    /// A file with the secret, or with several, one on a line; white space around each does not count. Default: none.
    pub secret_file: Option<PathBuf>,
    /// What it may do. Default: everything.
    pub scopes: Option<Vec<Scope>>,
    /// The channels it may do it with, as [patterns](Pattern). Default: all.
    pub channels: Option<Vec<String>>,
    /// The calls a second on the average, each channel of a broadcast counted; 0 for any number. Default: 0.
    pub rate: u32,
    /// The calls at once, after a pause; 0 for as many as `rate`. Default: 0.
    pub burst: u32,
}

/// What a key may be for. Each stands for itself: none includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To publish.
    Publish,
    /// To see what is there.
    Read,
    /// To steer the connections of users.
    Disconnect,
    /// To change what the cluster keeps, and the nodes themselves.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Disconnect, Self::Admin];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Disconnect => "disconnect",
            Self::Admin => "admin",
        }
    }
}

/// The shortest secret, in bytes.
const MIN_SECRET: usize = 16;

/// The most secrets of one key: the one in use, those on their way in and out.
const MAX_SECRETS: usize = 8;

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// The most channel patterns of one key: each may be compared with every channel of a call.
const MAX_PATTERNS: usize = 100;

impl ApiKey {
    /// Everything that is wrong with it, in words for who wrote the configuration.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        self.read().err().unwrap_or_default()
    }

    fn read(&self) -> Result<Key, Vec<String>> {
        let mut mistakes = Vec::new();
        if self.name.is_empty() {
            mistakes.push("needs a name".to_owned());
        }
        if self.name.len() > MAX_NAME || self.name.chars().any(char::is_control) {
            mistakes.push(format!("name must have at most {MAX_NAME} bytes, on one line"));
        }
        let secrets = self.secrets().unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            Vec::new()
        });
        if self.scopes.as_ref().is_some_and(Vec::is_empty) {
            mistakes.push("scopes is empty, so it may do nothing".to_owned());
        }
        let patterns = self.channels.as_ref().map(|channels| {
            if channels.is_empty() || channels.len() > MAX_PATTERNS {
                mistakes.push(format!("channels must have from 1 to {MAX_PATTERNS} patterns"));
            }
            let pattern = |text: &String| Pattern::new(text).map_err(|error| format!("channels: {text:?}: {error}"));
            let patterns = channels.iter().map(pattern);
            patterns.filter_map(|pattern| pattern.map_err(|mistake| mistakes.push(mistake)).ok()).collect()
        });
        if self.burst > 0 && self.rate == 0 {
            mistakes.push("burst has no meaning without rate".to_owned());
        }
        if mistakes.is_empty() {
            Ok(Key {
                name: self.name.as_str().into(),
                secrets,
                scopes: self.scopes.clone().unwrap_or(Scope::ALL.to_vec()),
                channels: patterns,
                rate: (self.rate > 0).then_some((self.rate, if self.burst == 0 { self.rate } else { self.burst })),
            })
        } else {
            Err(mistakes.into_iter().map(|mistake| format!("api_key {:?}: {mistake}", self.name)).collect())
        }
    }

    fn secrets(&self) -> Result<Vec<String>, String> {
        let text = match (&self.secret, &self.secret_file) {
            (Some(secret), None) => secret.clone(),
            (None, Some(path)) => fs::read_to_string(path)
                .map_err(|error| format!("cannot read secret_file {}: {error}", path.display()))?,
            (Some(_), Some(_)) => return Err("has both secret and secret_file; keep one of them".to_owned()),
            (None, None) => return Err("needs secret or secret_file".to_owned()),
        };
        let secrets: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        match secrets.iter().map(String::len).min() {
            None => Err(format!("secret has 0 bytes and needs {MIN_SECRET}")),
            Some(shortest) if shortest < MIN_SECRET => {
                Err(format!("secret has {shortest} bytes and needs {MIN_SECRET}"))
            }
            _ if secrets.len() > MAX_SECRETS => Err(format!("has more than {MAX_SECRETS} secrets")),
            _ if !secrets.iter().all(|secret| secret.bytes().all(|byte| byte.is_ascii_graphic())) => {
                Err("secret has a character that an HTTP header cannot carry".to_owned())
            }
            _ => Ok(secrets),
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("secret_file", &self.secret_file)
            .field("scopes", &self.scopes)
            .field("channels", &self.channels)
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

/// The keys of a node, as they were read: secrets included, files and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Option<Vec<Key>>);

/// One key, read and found good.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: Arc<str>,
    secrets: Vec<String>,
    pub(crate) scopes: Vec<Scope>,
    /// `None` for all.
    pub(crate) channels: Option<Vec<Pattern>>,
    /// Calls a second, and at once; `None` for any number.
    rate: Option<(u32, u32)>,
}

impl Keys {
    /// Reads all secrets. Without any key every request is refused.
    ///
    /// # Errors
    ///
    /// All mistakes of all keys, and names or secrets that are given twice.
    pub fn load(keys: &[ApiKey]) -> Result<Self, Error> {
        let mut listed: Vec<Key> = Vec::with_capacity(keys.len());
        let mut mistakes = Vec::new();
        if keys.len() > MAX_KEYS {
            mistakes.push(format!("api_key: more than {MAX_KEYS}"));
        }
        for key in keys {
            match key.read() {
                Err(found) => mistakes.extend(found),
                Ok(key) => {
                    if listed.iter().any(|other| other.name == key.name) {
                        mistakes.push(format!("api_key {:?}: defined twice", key.name));
                    }
                    let shares = |other: &&Key| other.secrets.iter().any(|secret| key.secrets.contains(secret));
                    if let Some(other) = listed.iter().find(shares) {
                        mistakes.push(format!("api_key {:?}: has a secret of {:?}", key.name, other.name));
                    }
                    listed.push(key);
                }
            }
        }
        if mistakes.is_empty() { Ok(Self(Some(listed))) } else { Err(Error { mistakes }) }
    }

    /// For development: everyone who reaches the listener may ask, except pages in a browser.
    #[must_use]
    pub fn open() -> Self {
        Self(None)
    }

    /// Whether no key is asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// The names of the keys that are not the same in `other`: new, gone, or with another secret or other rights.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let (mine, others) = (self.listed(), other.listed());
        let missing_in = |keys: &[Key], key: &Key| !keys.contains(key);
        let changed = others.iter().filter(|key| missing_in(mine, key));
        let gone = mine.iter().filter(|key| !others.iter().any(|other| other.name == key.name));
        changed.chain(gone).map(|key| key.name.to_string()).collect()
    }

    pub(crate) fn listed(&self) -> &[Key] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// The most keys: every one of them is compared with the secret of every request.
const MAX_KEYS: usize = 1000;

impl Key {
    /// Whether this is one of its secrets. Looks at each in full, so that the time taken tells nothing but lengths.
    pub(crate) fn opens(&self, secret: &[u8]) -> bool {
        self.secrets.iter().fold(false, |found, own| found | bool::from(own.as_bytes().ct_eq(secret)))
    }

    /// A new measure of its calls.
    pub(crate) fn pace(&self) -> Option<Pace> {
        self.rate.map(|(rate, burst)| Pace::new(rate, burst))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// API keys that cannot be used, with all of their mistakes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("; "))]
pub struct Error {
    /// The mistakes, in the order of the configuration; never empty.
    pub mistakes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, secret: &str) -> ApiKey {
        ApiKey { name: name.into(), secret: Some(secret.into()), ..ApiKey::default() }
    }

    #[test]
    fn a_key_opens_with_each_of_its_secrets() {
        let keys = Keys::load(&[key("one", "\n 0123456789abcdef \r\nfedcba9876543210\n")]).unwrap();
        let [one] = keys.listed() else { panic!("{keys:?}") };
        assert!(one.opens(b"0123456789abcdef") && one.opens(b"fedcba9876543210"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdeF", b"0123456789abcdef0", b"\n"] {
            assert!(!one.opens(wrong));
        }
        assert!(Keys::load(&[]).unwrap().listed().is_empty());
        assert!(Keys::open().is_open() && !keys.is_open());
    }

    #[test]
    fn mistakes_are_named() {
        let good = || key("a", "0123456789abcdef");
        assert!(good().mistakes().is_empty());
        let both = ApiKey { secret_file: Some("/nowhere".into()), ..good() };
        let unreadable = ApiKey { secret: None, ..both.clone() };
        let channels = |channels: &[&str]| Some(channels.iter().map(|&channel| channel.to_owned()).collect());
        for (wrong, word) in [
            (key("a", "0123456789abcde"), "needs 16"),
            (key("a", " \n "), "needs 16"),
            (key("a", "0123456789abcdef\nshort"), "has 5 bytes"),
            (key("a", "0123456789 abcdef"), "header"),
            (key("a", &"0123456789abcdef\n".repeat(9)), "more than 8"),
            (key("", "0123456789abcdef"), "needs a name"),
            (key(&"a".repeat(65), "0123456789abcdef"), "at most 64"),
            (ApiKey { name: "a".into(), ..ApiKey::default() }, "needs secret or secret_file"),
            (both, "both"),
            (unreadable, "cannot read"),
            (ApiKey { scopes: Some(Vec::new()), ..good() }, "nothing"),
            (ApiKey { channels: channels(&[]), ..good() }, "from 1 to 100"),
            (ApiKey { channels: channels(&["chat:*", "{a}"]), ..good() }, "\"{a}\""),
            (ApiKey { burst: 5, ..good() }, "without rate"),
        ] {
            let mistakes = wrong.mistakes();
            assert!(mistakes.len() == 1 && mistakes[0].contains(word), "{word}: {mistakes:?}");
        }
        assert_eq!(ApiKey::default().mistakes().len(), 2);
    }

    #[test]
    fn all_mistakes_of_all_keys_are_reported() {
        let keys = [key("a", "0123456789abcdef"), key("a", "0123456789abcdef"), key("b", "short")];
        assert_eq!(Keys::load(&keys).unwrap_err().mistakes.len(), 3);
    }

    #[test]
    fn secrets_are_not_shown() {
        let keys = [key("backend", "0123456789abcdef")];
        for shown in [format!("{keys:?}"), format!("{:?}", Keys::load(&keys).unwrap())] {
            assert!(shown.contains("backend") && !shown.contains("0123"), "{shown}");
        }
    }

    #[test]
    fn what_changed_is_told_by_name() {
        let load = |keys: &[ApiKey]| Keys::load(keys).unwrap();
        let (a, b) = (key("a", "0123456789abcdef"), key("b", "fedcba9876543210"));
        let before = load(&[a.clone(), b.clone()]);
        assert!(before.changed(&load(&[b, a.clone()])).is_empty());
        assert_eq!(before.changed(&load(&[ApiKey { rate: 1, ..a.clone() }])), ["a", "b"]);
        assert_eq!(before.changed(&load(&[a, key("b", "0000000000000000")])), ["b"]);
        assert_eq!(Keys::open().changed(&before), ["a", "b"]);
    }

    #[test]
    fn a_section_is_read_strictly() {
        let text = "name = \"a\"\nsecret_file = \"/run/secrets/api\"\nscopes = [\"publish\", \"admin\"]\nrate = 5";
        let read = toml::from_str::<ApiKey>(text).unwrap();
        assert_eq!(read.secret_file, Some("/run/secrets/api".into()));
        assert_eq!(read.scopes, Some(vec![Scope::Publish, Scope::Admin]));
        assert_eq!(read.rate, 5);
        for wrong in ["sceret = \"x\"", "scopes = [\"everything\"]", "rate = -1"] {
            assert!(toml::from_str::<ApiKey>(&format!("name = \"a\"\n{wrong}")).is_err(), "{wrong}");
        }
        for scope in Scope::ALL {
            let read = toml::from_str::<ApiKey>(&format!("scopes = [\"{}\"]", scope.name())).unwrap();
            assert_eq!(read.scopes, Some(vec![scope]));
        }
    }
}
