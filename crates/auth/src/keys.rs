//! The keys, of the configuration one per family at most, and the one place where signatures are checked.

use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::rust_crypto::DEFAULT_PROVIDER as CRYPTO};
use p521::ecdsa::{Signature as P521Signature, VerifyingKey as P521Key, signature::Verifier as _};

use crate::{Config, Error, Mistake, Reason, Secret};

#[derive(Debug)]
pub(crate) struct Keys {
    hmac: Option<Key>,
    rsa: Option<Key>,
    ecdsa: Option<Key>,
}

/// A key, whose type decides which algorithms it checks.
pub(crate) enum Key {
    Hmac(DecodingKey),
    /// With the one algorithm it is for, if it is said.
    Rsa(DecodingKey, Option<String>),
    // A curve has one algorithm.
    P256(DecodingKey),
    P384(DecodingKey),
    /// `jsonwebtoken` does not know this curve.
    P521(P521Key),
    Ed25519(DecodingKey),
}

impl Keys {
    pub(crate) fn load(config: &Config) -> Result<Self, Error> {
        let mut mistakes = Vec::new();
        let keys = Self {
            hmac: noting(hmac(config), &mut mistakes),
            rsa: noting(rsa(config), &mut mistakes),
            ecdsa: noting(ecdsa(config), &mut mistakes),
        };
        for (key, value) in [("audience", &config.audience), ("issuer", &config.issuer)] {
            if value.as_deref() == Some("") {
                mistakes.push(Mistake::Empty { key });
            }
        }
        if mistakes.is_empty() { Ok(keys) } else { Err(Error { mistakes }) }
    }

    pub(crate) fn any(&self) -> bool {
        self.hmac.is_some() || self.rsa.is_some() || self.ecdsa.is_some()
    }

    /// Checks a signature by the algorithm a token names. Each name leads to the key of its own type or nowhere.
    pub(crate) fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Result<(), Reason> {
        let keys = [&self.hmac, &self.rsa, &self.ecdsa].into_iter().flatten();
        let key = { keys }.find(|key| key.checks(algorithm)).ok_or(Reason::Algorithm)?;
        key.verify(algorithm, message, signature)
    }
}

impl Key {
    /// An RSA key in the words of a key set; none for one too small to be safe, or too large to be checked in time.
    pub(crate) fn rsa(modulus: &str, exponent: &str, algorithm: Option<&str>) -> Option<Self> {
        let (n, e) = (decode(modulus)?, decode(exponent)?);
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        let trivial = e.iter().rev().skip(1).all(|byte| *byte == 0) && e.last().is_none_or(|byte| *byte < 3);
        if !(2048..=4096).contains(&bits(&n)) || !odd(&n) || !odd(&e) || trivial || e.len() > 8 {
            return None;
        }
        let key = DecodingKey::from_rsa_components(modulus, exponent).ok()?;
        let key = Self::Rsa(key, algorithm.map(str::to_owned));
        key.is_sound("RS256").then_some(key)
    }

    /// A point on a curve.
    pub(crate) fn ec(curve: &str, x: &str, y: &str) -> Option<Self> {
        let point = || DecodingKey::from_ec_components(x, y).ok();
        let key = match curve {
            "P-256" => Self::P256(point()?),
            "P-384" => Self::P384(point()?),
            "P-521" => {
                let (x, y) = (decode(x)?, decode(y)?);
                let point = [&[4][..], &x, &y].concat();
                return P521Key::from_sec1_bytes(&point).ok().map(Self::P521);
            }
            _ => return None,
        };
        key.is_sound(if curve == "P-256" { "ES256" } else { "ES384" }).then_some(key)
    }

    pub(crate) fn ed25519(x: &str) -> Option<Self> {
        let key = Self::Ed25519(DecodingKey::from_ed_components(x).ok()?);
        (decode(x)?.len() == 32 && key.is_sound("EdDSA")).then_some(key)
    }

    /// Whether this key is for that algorithm.
    pub(crate) fn checks(&self, algorithm: &str) -> bool {
        match self {
            Self::Hmac(_) => matches!(algorithm, "HS256" | "HS384" | "HS512"),
            Self::Rsa(_, only) => {
                matches!(algorithm, "RS256" | "RS384" | "RS512") && only.as_deref().is_none_or(|only| only == algorithm)
            }
            Self::P256(_) => algorithm == "ES256",
            Self::P384(_) => algorithm == "ES384",
            Self::P521(_) => algorithm == "ES512",
            Self::Ed25519(_) => algorithm == "EdDSA",
        }
    }

    /// Checks a signature by an algorithm that this key is for.
    pub(crate) fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Result<(), Reason> {
        if !self.checks(algorithm) {
            return Err(Reason::Algorithm);
        }
        let key = match self {
            Self::P521(key) => {
                let signature = P521Signature::from_slice(signature).map_err(|_| Reason::Signature)?;
                return key.verify(message, &signature).map_err(|_| Reason::Signature);
            }
            Self::Hmac(key) | Self::Rsa(key, _) | Self::P256(key) | Self::P384(key) | Self::Ed25519(key) => key,
        };
        let algorithm = algorithm.parse::<Algorithm>().map_err(|_| Reason::Algorithm)?;
        // Straight to the provider: the library's own entry asks a process-wide default, and panics without one.
        let verifier = (CRYPTO.verifier_factory)(&algorithm, key).map_err(|_| Reason::Signature)?;
        verifier.verify(message, &signature.to_vec()).map_err(|_| Reason::Signature)
    }

    /// Whether a verifier can be made of it: a point may lie beside its curve.
    fn is_sound(&self, algorithm: &str) -> bool {
        let Ok(algorithm) = algorithm.parse::<Algorithm>() else { return false };
        match self {
            Self::P521(_) => true,
            Self::Hmac(key) | Self::Rsa(key, _) | Self::P256(key) | Self::P384(key) | Self::Ed25519(key) => {
                (CRYPTO.verifier_factory)(&algorithm, key).is_ok()
            }
        }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// The length of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let number = &number[number.iter().position(|byte| *byte != 0).unwrap_or(number.len())..];
    number.len() * 8 - number.first().map_or(0, |byte| byte.leading_zeros() as usize)
}

fn hmac(config: &Config) -> Result<Option<Key>, Mistake> {
    let inline = config.hmac_secret.as_ref().map(Secret::expose);
    let Some(secret) = read("hmac_secret", inline, config.hmac_secret_file.as_deref())? else { return Ok(None) };
    // With a public key as the secret, everybody could sign.
    if contains(&secret, "-----BEGIN") {
        return Err(Mistake::PemAsSecret);
    }
    if !config.allow_weak_secret {
        if secret.len() < 32 {
            return Err(Mistake::ShortSecret { size: secret.len() });
        }
        if KNOWN_SECRETS.iter().any(|known| secret == known.as_bytes()) {
            return Err(Mistake::KnownSecret);
        }
    }
    Ok(Some(Key::Hmac(DecodingKey::from_secret(&secret))))
}

fn rsa(config: &Config) -> Result<Option<Key>, Mistake> {
    let key = "rsa_public_key";
    let Some(pem) = read_pem(key, config.rsa_public_key.as_deref(), config.rsa_public_key_file.as_deref())? else {
        return Ok(None);
    };
    let parse = || {
        let parsed = DecodingKey::from_rsa_pem(&pem)?;
        let (modulus, _) = (CRYPTO.key_utils.rsa_pub_components_from_public_key)(parsed.try_get_as_bytes()?)?;
        Ok::<_, jsonwebtoken::errors::Error>((parsed, modulus))
    };
    let (parsed, modulus) = parse().map_err(|_| Mistake::NotPublicKey { key })?;
    let bits = bits(&modulus);
    if bits < 2048 {
        return Err(Mistake::SmallRsaKey { bits });
    }
    Ok(Some(Key::Rsa(parsed, None)))
}

fn ecdsa(config: &Config) -> Result<Option<Key>, Mistake> {
    let key = "ecdsa_public_key";
    let Some(pem) = read_pem(key, config.ecdsa_public_key.as_deref(), config.ecdsa_public_key_file.as_deref())? else {
        return Ok(None);
    };
    let not_public_key = || Mistake::NotPublicKey { key };
    let parsed = DecodingKey::from_ec_pem(&pem).map_err(|_| not_public_key())?;
    // A point lies on one of the curves; making a verifier checks it.
    let fits = |algorithm| (CRYPTO.verifier_factory)(&algorithm, &parsed).is_ok();
    if fits(Algorithm::ES256) {
        return Ok(Some(Key::P256(parsed)));
    }
    if fits(Algorithm::ES384) {
        return Ok(Some(Key::P384(parsed)));
    }
    let point = parsed.try_get_as_bytes().map_err(|_| not_public_key())?;
    P521Key::from_sec1_bytes(point).map(|key| Some(Key::P521(key))).map_err(|_| not_public_key())
}

/// A PEM document that is meant to be public.
fn read_pem(key: &'static str, inline: Option<&str>, file: Option<&Path>) -> Result<Option<Vec<u8>>, Mistake> {
    let Some(pem) = read(key, inline, file)? else { return Ok(None) };
    if contains(&pem, "PRIVATE KEY-----") {
        return Err(Mistake::PrivateKey { key });
    }
    // A certificate has a key too, with a name and an end that nobody would check.
    if !contains(&pem, " PUBLIC KEY-----") {
        return Err(Mistake::NotPublicKey { key });
    }
    Ok(Some(pem))
}

/// The value of `key`, given in place or in a file.
fn read(key: &'static str, inline: Option<&str>, file: Option<&Path>) -> Result<Option<Vec<u8>>, Mistake> {
    let value = match (inline, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(Mistake::GivenTwice { key }),
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(path)) => {
            let mut value =
                fs::read(path).map_err(|source| Mistake::Unreadable { key, path: path.to_owned(), source })?;
            let end = value.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
            value.truncate(end);
            value
        }
    };
    if value.is_empty() { Err(Mistake::Empty { key }) } else { Ok(Some(value)) }
}

/// Puts a mistake to the others, so that all are reported together.
fn noting<T>(result: Result<Option<T>, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    result.unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    })
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "Hmac([redacted])",
            Self::Rsa(..) => "Rsa",
            Self::Ed25519(_) => "Ed25519",
            Self::P256(_) => "P256",
            Self::P384(_) => "P384",
            Self::P521(_) => "P521",
        })
    }
}

/// Secrets long enough to pass, which a JWT debugger on the web shows to everyone.
const KNOWN_SECRETS: [&str; 3] = [
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-384-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
];
