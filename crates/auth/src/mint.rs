//! Makes tokens.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::rust_crypto::DEFAULT_PROVIDER as CRYPTO};
use serde::Serialize;

/// Signs claims with HS256.
///
/// # Errors
///
/// If the claims cannot be written as JSON.
pub fn hs256(claims: &impl Serialize, secret: &[u8]) -> Result<String, Error> {
    let claims = serde_json::to_vec(claims).map_err(Error::Claims)?;
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"typ":"JWT","alg":"HS256"}"#), encode(&claims));
    let signer = (CRYPTO.signer_factory)(&Algorithm::HS256, &EncodingKey::from_secret(secret)).map_err(Error::Key)?;
    let signature = signer.sign(message.as_bytes());
    Ok(format!("{message}.{}", encode(&signature)))
}

/// A token that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The claims are not JSON.
    #[error("the claims cannot be written as JSON")]
    Claims(#[source] serde_json::Error),
    /// The secret does not sign.
    #[error("the secret cannot be used")]
    Key(#[source] jsonwebtoken::errors::Error),
}
