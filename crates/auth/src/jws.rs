//! The signed envelope: three parts, a header that promises little, a signature.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{Reason, claims::Object, jwks::Source, keys::Keys};

/// What a signature vouches for.
pub(crate) struct Signed<'a> {
    /// The claims, which are bytes so far.
    pub(crate) claims: Vec<u8>,
    /// The issuer whose tokens the key checks, if not everybody's.
    pub(crate) issuer: Option<&'a str>,
}

impl Signed<'_> {
    /// Reads the claims. Those made with a key of one issuer have to be that one's.
    pub(crate) fn parse(&self) -> Result<Object<'_>, Reason> {
        let claims = Object::parse(&self.claims)?;
        match self.issuer {
            Some(issuer) if claims.get::<String>("iss")?.as_deref() != Some(issuer) => Err(Reason::Issuer),
            _ => Ok(claims),
        }
    }
}

/// Checks a token's signature and returns its claims.
///
/// The keys of the configuration come first. Those of the sets are found by `kid`, which is a word to look up and nothing else; what would
/// bring a key along (`jku`, `jwk`, `x5u`, `x5c`) is not looked at.
pub(crate) fn verify<'a>(token: &str, keys: &Keys, sources: &'a [Source]) -> Result<Signed<'a>, Reason> {
    let (message, signature) = token.rsplit_once('.').ok_or(Reason::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Reason::Malformed)?;

    let header = decode(header)?;
    let header = Object::parse(&header)?;
    if header.has("crit") {
        return Err(Reason::Critical);
    }
    // It must be harmless, also where it selects nothing.
    let kid = header.get::<String>("kid").map_err(|_| Reason::KeyId)?.unwrap_or_default();
    if !is_key_id(&kid) {
        return Err(Reason::KeyId);
    }
    let algorithm = header.get::<String>("alg").ok().flatten().ok_or(Reason::Algorithm)?;

    // A fourth part would sit in the claims and fail here: the alphabet has no dot.
    let (claims, message, signature) = (decode(claims)?, message.as_bytes(), decode(signature)?);
    let refused = match keys.verify(&algorithm, message, &signature) {
        Ok(()) => return Ok(Signed { claims, issuer: None }),
        Err(refused) => refused,
    };
    if kid.is_empty() || sources.is_empty() || !IN_SETS.contains(&&*algorithm) {
        return Err(refused);
    }
    let mut refused = Reason::UnknownKey;
    for source in sources {
        for key in source.keys(&kid) {
            match key.verify(&algorithm, message, &signature) {
                Ok(()) => return Ok(Signed { claims, issuer: source.issuer() }),
                Err(other) => refused = other,
            }
        }
    }
    Err(refused)
}

/// The algorithms of public keys.
const IN_SETS: [&str; 7] = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"];

/// Some make ids of base64, so that there is a `/` in them; a path has dots, too.
pub(crate) fn is_key_id(kid: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-+/=".contains(&byte);
    kid.len() <= 128 && kid.bytes().all(allowed) && !kid.contains("..")
}

fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Malformed)
}
