//! Who may use the control plane.

use std::path::PathBuf;
use std::{fmt, fs};

use serde::Deserialize;
use subtle::ConstantTimeEq;

/// One `[[api_key]]`: its secret is given in place or in a file.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKey {
    /// Whose key it is; the name appears in logs.
    pub name: String,
    /// The secret: at least 16 characters of printable ASCII. Default: none.
    pub secret: Option<String>,
    /// A file with the secret; white space around it does not count. Default: none.
    pub secret_file: Option<PathBuf>,
}

/// The shortest secret, in bytes.
const MIN_SECRET: usize = 16;

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
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), None) => Ok(secret.clone()),
            (None, Some(path)) => fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("cannot read secret_file {}: {error}", path.display())),
            (Some(_), Some(_)) => Err("has both secret and secret_file; keep one of them".to_owned()),
            (None, None) => Err("needs secret or secret_file".to_owned()),
        };
        match secret {
            Err(mistake) => mistakes.push(mistake),
            Ok(secret) if secret.len() < MIN_SECRET => {
                mistakes.push(format!("secret has {} bytes and needs {MIN_SECRET}", secret.len()));
            }
            Ok(secret) if !secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
                mistakes.push("secret has a character that an HTTP header cannot carry".to_owned());
            }
            Ok(secret) if mistakes.is_empty() => return Ok(Key { name: self.name.clone(), secret }),
            Ok(_) => {}
        }
        Err(mistakes.into_iter().map(|mistake| format!("api_key {:?}: {mistake}", self.name)).collect())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("secret_file", &self.secret_file)
            .finish_non_exhaustive()
    }
}

/// The keys of a node, ready to be compared with what requests carry.
#[derive(Clone, Debug)]
pub struct Keys(Access);

#[derive(Clone, Debug)]
enum Access {
    Open,
    Listed(Vec<Key>),
}

#[derive(Clone)]
struct Key {
    name: String,
    secret: String,
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
        for key in keys {
            match key.read() {
                Err(found) => mistakes.extend(found),
                Ok(key) => {
                    if listed.iter().any(|other| other.name == key.name) {
                        mistakes.push(format!("api_key {:?}: defined twice", key.name));
                    }
                    if let Some(other) = listed.iter().find(|other| other.secret == key.secret) {
                        mistakes.push(format!("api_key {:?}: has the secret of {:?}", key.name, other.name));
                    }
                    listed.push(key);
                }
            }
        }
        if mistakes.is_empty() { Ok(Self(Access::Listed(listed))) } else { Err(Error { mistakes }) }
    }

    /// For development: everyone who reaches the listener may ask, except pages in a browser.
    #[must_use]
    pub fn open() -> Self {
        Self(Access::Open)
    }

    /// Whether no key is asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.0, Access::Open)
    }

    /// Finds the name of the key with this secret.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<&str> {
        let Access::Listed(keys) = &self.0 else { return None };
        // Looks at every key in full, so that the time taken tells nothing but lengths.
        keys.iter().fold(None, |found, key| {
            let same = bool::from(key.secret.as_bytes().ct_eq(secret));
            if same { Some(&*key.name) } else { found }
        })
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
        ApiKey { name: name.into(), secret: Some(secret.into()), secret_file: None }
    }

    #[test]
    fn a_secret_leads_to_its_name() {
        let keys = Keys::load(&[key("one", "0123456789abcdef"), key("two", "fedcba9876543210")]).unwrap();
        assert_eq!(keys.find(b"0123456789abcdef"), Some("one"));
        assert_eq!(keys.find(b"fedcba9876543210"), Some("two"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdeF", b"0123456789abcdef0"] {
            assert_eq!(keys.find(wrong), None);
        }
        assert_eq!(Keys::load(&[]).unwrap().find(b""), None);
        assert!(Keys::open().is_open() && !keys.is_open());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(key("a", "0123456789abcdef").mistakes().is_empty());
        let both = ApiKey { secret_file: Some("/nowhere".into()), ..key("a", "0123456789abcdef") };
        let unreadable = ApiKey { secret: None, ..both.clone() };
        for (wrong, word) in [
            (key("a", "0123456789abcde"), "needs 16"),
            (key("a", "0123456789 abcdef"), "header"),
            (key("", "0123456789abcdef"), "needs a name"),
            (ApiKey { name: "a".into(), ..ApiKey::default() }, "needs secret or secret_file"),
            (both, "both"),
            (unreadable, "cannot read"),
        ] {
            let mistakes = wrong.mistakes();
            assert!(mistakes.len() == 1 && mistakes[0].contains(word), "{mistakes:?}");
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
    fn a_section_is_read_strictly() {
        let read = toml::from_str::<ApiKey>("name = \"a\"\nsecret_file = \"/run/secrets/api\"").unwrap();
        assert_eq!(read.secret_file, Some("/run/secrets/api".into()));
        assert!(toml::from_str::<ApiKey>("name = \"a\"\nsceret = \"x\"").is_err());
    }
}
