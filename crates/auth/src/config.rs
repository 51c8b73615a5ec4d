//! The configuration, and what can be wrong with it.

use std::{error::Error as _, fmt, io, path::PathBuf, time::Duration};

use fanwire_node::config::duration;

use serde::Deserialize;

/// The section `[token]`: at most one key per family, each given in place or in a file, and any number of key sets.
///
/// Without any key every token is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The secret for HS256, HS384 and HS512: at least 32 bytes. Default: none.
    pub hmac_secret: Option<Secret>,
    /// A file with the secret; line breaks at its end do not count. Default: none.
    pub hmac_secret_file: Option<PathBuf>,
    /// For tests only: takes an HMAC secret that is short or publicly known. Default: false.
    pub allow_weak_secret: bool,
    /// The public key for RS256, RS384 and RS512, as PEM: 2048 to 4096 bits. Default: none.
    pub rsa_public_key: Option<String>,
    /// A file with that key. Default: none.
    pub rsa_public_key_file: Option<PathBuf>,
    /// The public key for ES256 (P-256), ES384 (P-384) or ES512 (P-521), as PEM. Default: none.
    pub ecdsa_public_key: Option<String>,
    /// A file with that key. Default: none.
    pub ecdsa_public_key_file: Option<PathBuf>,
    /// Key sets that are fetched. Default: none.
    pub jwks: Vec<Jwks>,
    /// What every token must have in `aud`. Default: not asked for.
    pub audience: Option<String>,
    /// What every token must have in `iss`. Default: not asked for.
    pub issuer: Option<String>,
}

/// A section `[[token.jwks]]`: a set of public keys that is fetched, and found by their `kid`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwks {
    /// Where it is: `https`, or `http` on this machine.
    pub url: String,
    /// What tokens checked by its keys must have in `iss`. Default: anything that fits `token.issuer`.
    #[serde(default)]
    pub issuer: Option<String>,
    /// How long its keys are trusted while it cannot be read. Default: 24h.
    #[serde(default = "max_stale", with = "duration")]
    pub max_stale: Duration,
}

fn max_stale() -> Duration {
    Duration::from_secs(24 * 3600)
}

/// A text that is not shown when it is printed for debugging.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A configuration that cannot be used, with all of its mistakes.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The mistakes, in the order of the configuration's keys; never empty.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{mistake}")?;
            if let Some(cause) = mistake.source() {
                write!(f, ": {cause}")?;
            }
        }
        Ok(())
    }
}

/// One thing that is wrong with a configuration; the text begins with the key it is about.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A key is given in place and in a file.
    #[error("token.{key}: token.{key}_file is given too; keep one of them")]
    GivenTwice {
        /// The key without `_file`.
        key: &'static str,
    },
    /// A named file cannot be read.
    #[error("token.{key}_file: cannot read {}", path.display())]
    Unreadable {
        /// The key without `_file`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A value is there, and nothing is in it.
    #[error("token.{key}: is empty")]
    Empty {
        /// The key.
        key: &'static str,
    },
    /// The HMAC secret is a PEM document, so probably the public key of something.
    #[error(
        "token.hmac_secret: holds a PEM document; public keys belong to token.rsa_public_key or token.ecdsa_public_key"
    )]
    PemAsSecret,
    /// The HMAC secret is short enough to be guessed.
    #[error("token.hmac_secret: has {size} bytes and needs 32; token.allow_weak_secret takes it for tests")]
    ShortSecret {
        /// Its length in bytes.
        size: usize,
    },
    /// The HMAC secret stands in public documentation.
    #[error("token.hmac_secret: is a well-known example; token.allow_weak_secret takes it for tests")]
    KnownSecret,
    /// A private key was given, which a server that only verifies has no use for.
    #[error("token.{key}: holds a private key; give the public one")]
    PrivateKey {
        /// The key.
        key: &'static str,
    },
    /// A public key cannot be understood.
    #[error("token.{key}: is not a PEM public key of this kind (BEGIN PUBLIC KEY)")]
    NotPublicKey {
        /// The key.
        key: &'static str,
    },
    /// A key set cannot be fetched from where it is said to be.
    #[error("token.jwks[{index}]: {problem}")]
    Jwks {
        /// Its place in the list.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// The RSA key is too small to be safe.
    #[error("token.rsa_public_key: has {bits} bits and needs 2048")]
    SmallRsaKey {
        /// The length of its modulus.
        bits: usize,
    },
}
