//! The keys, one per family at most, and the one place where signatures are checked.

use std::{fs, path::Path};

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto::rust_crypto::DEFAULT_PROVIDER as CRYPTO};
use p521::ecdsa::{Signature as P521Signature, VerifyingKey as P521Key, signature::Verifier as _};

use crate::{Config, Error, Mistake, Reason, Secret};

#[derive(Debug)]
pub(crate) struct Keys {
    hmac: Option<DecodingKey>,
    rsa: Option<DecodingKey>,
    ecdsa: Option<EcdsaKey>,
}

/// A curve has one algorithm.
enum EcdsaKey {
    P256(DecodingKey),
    P384(DecodingKey),
    /// `jsonwebtoken` does not know this curve.
    P521(P521Key),
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

    /// Checks a signature by the algorithm a token names. Each name leads to the key of its own family or nowhere.
    pub(crate) fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Result<(), Reason> {
        let algorithm = match algorithm {
            "HS256" => Algorithm::HS256,
            "HS384" => Algorithm::HS384,
            "HS512" => Algorithm::HS512,
            "RS256" => Algorithm::RS256,
            "RS384" => Algorithm::RS384,
            "RS512" => Algorithm::RS512,
            "ES256" => Algorithm::ES256,
            "ES384" => Algorithm::ES384,
            "ES512" => return self.verify_es512(message, signature),
            _ => return Err(Reason::Algorithm),
        };
        let key = match (algorithm.family(), &self.ecdsa) {
            (AlgorithmFamily::Hmac, _) => self.hmac.as_ref(),
            (AlgorithmFamily::Rsa, _) => self.rsa.as_ref(),
            (AlgorithmFamily::Ec, Some(EcdsaKey::P256(key))) if algorithm == Algorithm::ES256 => Some(key),
            (AlgorithmFamily::Ec, Some(EcdsaKey::P384(key))) if algorithm == Algorithm::ES384 => Some(key),
            _ => None,
        };
        let key = key.ok_or(Reason::Algorithm)?;
        // Straight to the provider: the library's own entry asks a process-wide default, and panics without one.
        let verifier = (CRYPTO.verifier_factory)(&algorithm, key).map_err(|_| Reason::Signature)?;
        verifier.verify(message, &signature.to_vec()).map_err(|_| Reason::Signature)
    }

    fn verify_es512(&self, message: &[u8], signature: &[u8]) -> Result<(), Reason> {
        let Some(EcdsaKey::P521(key)) = &self.ecdsa else { return Err(Reason::Algorithm) };
        let signature = P521Signature::from_slice(signature).map_err(|_| Reason::Signature)?;
        key.verify(message, &signature).map_err(|_| Reason::Signature)
    }
}

fn hmac(config: &Config) -> Result<Option<DecodingKey>, Mistake> {
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
    Ok(Some(DecodingKey::from_secret(&secret)))
}

fn rsa(config: &Config) -> Result<Option<DecodingKey>, Mistake> {
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
    // Big-endian without leading zeros, so a modulus of 2048 bits has 256 bytes.
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < 2048 {
        return Err(Mistake::SmallRsaKey { bits });
    }
    Ok(Some(parsed))
}

fn ecdsa(config: &Config) -> Result<Option<EcdsaKey>, Mistake> {
    let key = "ecdsa_public_key";
    let Some(pem) = read_pem(key, config.ecdsa_public_key.as_deref(), config.ecdsa_public_key_file.as_deref())? else {
        return Ok(None);
    };
    let not_public_key = || Mistake::NotPublicKey { key };
    let parsed = DecodingKey::from_ec_pem(&pem).map_err(|_| not_public_key())?;
    // A point lies on one of the curves; making a verifier checks it.
    let fits = |algorithm| (CRYPTO.verifier_factory)(&algorithm, &parsed).is_ok();
    if fits(Algorithm::ES256) {
        return Ok(Some(EcdsaKey::P256(parsed)));
    }
    if fits(Algorithm::ES384) {
        return Ok(Some(EcdsaKey::P384(parsed)));
    }
    let point = parsed.try_get_as_bytes().map_err(|_| not_public_key())?;
    P521Key::from_sec1_bytes(point).map(|key| Some(EcdsaKey::P521(key))).map_err(|_| not_public_key())
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

impl std::fmt::Debug for EcdsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
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
