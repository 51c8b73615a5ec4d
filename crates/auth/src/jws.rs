//! The signed envelope: three parts, a header that promises little, a signature.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{Reason, claims::Object, keys::Keys};

/// Checks a token's signature and returns its claims, which are bytes so far.
pub(crate) fn verify(token: &str, keys: &Keys) -> Result<Vec<u8>, Reason> {
    let (message, signature) = token.rsplit_once('.').ok_or(Reason::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Reason::Malformed)?;

    let header = decode(header)?;
    let header = Object::parse(&header)?;
    if header.has("crit") {
        return Err(Reason::Critical);
    }
    // There is one key per family, so `kid` selects nothing; it must be harmless all the same. What would bring a key
    // along (`jku`, `jwk`, `x5u`, `x5c`) is not looked at.
    let kid = header.get::<String>("kid").map_err(|_| Reason::KeyId)?;
    if kid.is_some_and(|kid| !is_key_id(&kid)) {
        return Err(Reason::KeyId);
    }
    let algorithm = header.get::<String>("alg").ok().flatten().ok_or(Reason::Algorithm)?;

    // A fourth part would sit in the claims and fail here: the alphabet has no dot.
    let claims = decode(claims)?;
    keys.verify(&algorithm, message.as_bytes(), &decode(signature)?)?;
    Ok(claims)
}

fn is_key_id(kid: &str) -> bool {
    kid.len() <= 128 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Malformed)
}
