//! Keys, and a signer that signs anything, whether it makes sense or not.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use fanwire_auth::{Config, Reason, TokenError, Verifier};
use jsonwebtoken::{Algorithm, EncodingKey};
use p521::pkcs8::DecodePrivateKey;

/// The moment of every verification.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) const RSA: &str = include_str!("../keys/rsa.pem");
pub(crate) const RSA_PUBLIC: &str = include_str!("../keys/rsa.pub.pem");
pub(crate) const RSA_OTHER: &str = include_str!("../keys/rsa-other.pem");
pub(crate) const P256: &str = include_str!("../keys/p256.pem");
pub(crate) const P256_PUBLIC: &str = include_str!("../keys/p256.pub.pem");
pub(crate) const P384: &str = include_str!("../keys/p384.pem");
pub(crate) const P384_PUBLIC: &str = include_str!("../keys/p384.pub.pem");
pub(crate) const P521: &str = include_str!("../keys/p521.pem");
pub(crate) const P521_PUBLIC: &str = include_str!("../keys/p521.pub.pem");

pub(crate) fn hmac() -> Config {
    Config { hmac_secret: Some(SECRET.into()), ..Config::default() }
}

pub(crate) fn rsa(public_key: &str) -> Config {
    Config { rsa_public_key: Some(public_key.to_owned()), ..Config::default() }
}

pub(crate) fn ecdsa(public_key: &str) -> Config {
    Config { ecdsa_public_key: Some(public_key.to_owned()), ..Config::default() }
}

pub(crate) fn verifier(config: &Config) -> Verifier {
    Verifier::new(config).expect("a good configuration")
}

/// A token with these claims, signed with HS256 by [`SECRET`].
pub(crate) fn token(claims: &str) -> String {
    sign(r#"{"typ":"JWT","alg":"HS256"}"#, claims, SECRET.as_bytes())
}

/// A token with this header and these claims, signed by HS256 whatever the header says.
pub(crate) fn sign(header: &str, claims: &str, secret: &[u8]) -> String {
    sign_with(Algorithm::HS256, &EncodingKey::from_secret(secret), header, claims)
}

/// A token signed by the named algorithm with the secret or the private key in PEM.
pub(crate) fn sign_as(algorithm: &str, key: &str, claims: &str) -> String {
    sign_header(algorithm, &format!(r#"{{"alg":"{algorithm}"}}"#), key, claims)
}

/// The same with the id of a key.
pub(crate) fn sign_kid(algorithm: &str, kid: &str, key: &str, claims: &str) -> String {
    sign_header(algorithm, &format!(r#"{{"alg":"{algorithm}","kid":"{kid}"}}"#), key, claims)
}

/// A token with this header, signed with RS256.
pub(crate) fn sign_rs256(header: &str, key: &str, claims: &str) -> String {
    sign_header("RS256", header, key, claims)
}

fn sign_header(algorithm: &str, header: &str, key: &str, claims: &str) -> String {
    if algorithm == "ES512" {
        use p521::ecdsa::{Signature, SigningKey, signature::Signer};
        let message = format!("{}.{}", encode(header), encode(claims));
        let secret = p521::SecretKey::from_pkcs8_pem(key).expect("a key for P-521");
        let key = SigningKey::from_slice(&secret.to_bytes()).expect("a key for P-521");
        let signature: Signature = key.sign(message.as_bytes());
        return format!("{message}.{}", encode(&*signature.to_bytes()));
    }
    let (algorithm, key): (Algorithm, _) = match &algorithm[..2] {
        "HS" => (algorithm.parse().expect("known"), EncodingKey::from_secret(key.as_bytes())),
        "RS" | "PS" => (algorithm.parse().expect("known"), EncodingKey::from_rsa_pem(key.as_bytes()).expect("RSA key")),
        _ => (algorithm.parse().expect("known"), EncodingKey::from_ec_pem(key.as_bytes()).expect("EC key")),
    };
    sign_with(algorithm, &key, header, claims)
}

pub(crate) fn encode(part: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part)
}

/// `Invalid` for that reason.
pub(crate) fn invalid(reason: Reason) -> TokenError {
    TokenError::Invalid(reason)
}

/// The library's own entry, so that a missing or doubled crypto provider shows here as its panic.
fn sign_with(algorithm: Algorithm, key: &EncodingKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("signs");
    format!("{message}.{signature}")
}
