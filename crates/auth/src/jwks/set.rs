//! What a key set says (RFC 7517): the public keys in it that can check signatures, by their id.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::jws::is_key_id;
use crate::keys::Key;

/// Keys by their id.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet(Vec<(String, Arc<Key>)>);

/// The most keys in a set that are looked at.
const MAX_KEYS: usize = 64;

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// A key as it is written (RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part, which has no business here.
    d: Option<Value>,
}

impl KeySet {
    /// Reads a document. Keys that are of no use here are passed over; one without any that is would lock everybody out.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(json).map_err(|error| format!("it is no key set: {error}"))?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!("it has more than {MAX_KEYS} keys"));
        }
        let keys = document.keys.into_iter().filter_map(|key| read(serde_json::from_value(key).ok()?));
        let keys: Vec<_> = keys.map(|(kid, key)| (kid, Arc::new(key))).collect();
        if keys.is_empty() { Err("it has no key that could check a token".to_owned()) } else { Ok(Self(keys)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn find(&self, kid: &str) -> Vec<Arc<Key>> {
        self.0.iter().filter(|(id, _)| id == kid).map(|(_, key)| Arc::clone(key)).collect()
    }
}

/// The type of a key decides what it checks, and `alg` may narrow that. Secrets (`oct`) are never taken: a set is public.
fn read(jwk: Jwk) -> Option<(String, Key)> {
    let kid = jwk.kid.filter(|kid| is_key_id(kid) && !kid.is_empty())?;
    let signs = jwk.usage.is_none_or(|usage| usage == "sig")
        && jwk.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    if !signs || jwk.d.is_some() {
        return None;
    }
    let key = match (&*jwk.kty, jwk.crv.as_deref()) {
        ("RSA", _) => Key::rsa(&jwk.n?, &jwk.e?, jwk.alg.as_deref()),
        ("EC", Some(curve)) => Key::ec(curve, &jwk.x?, &jwk.y?),
        ("OKP", Some("Ed25519")) => Key::ed25519(&jwk.x?),
        _ => None,
    }?;
    jwk.alg.is_none_or(|algorithm| key.checks(&algorithm)).then_some((kid, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn parse(keys: &str) -> Result<usize, String> {
        KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes()).map(|set| set.len())
    }

    #[test]
    fn keys_that_check_nothing_are_passed_over() {
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{X}"}}"#);
        assert_eq!(parse(&good), Ok(1));
        for useless in [
            r#"{"kty":"oct","kid":"a","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#.to_owned(),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"../a","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"X25519","kid":"a","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{X}","use":"enc"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{X}","key_ops":["sign"]}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{X}","alg":"HS256"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{X}","alg":"RS256"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{X}","d":"{X}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{X}","y":"{X}"}}"#),
            r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}"#.to_owned(),
            r#"{"kty":"RSA","kid":"a"}"#.to_owned(),
            r#"{"kty":7}"#.to_owned(),
            "null".to_owned(),
        ] {
            assert_eq!(parse(&useless), Err("it has no key that could check a token".to_owned()), "{useless}");
            assert_eq!(parse(&format!("{useless},{good}")), Ok(1), "{useless}");
        }
    }

    #[test]
    fn documents_are_bounded() {
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{X}"}}"#);
        assert_eq!(parse(&vec![&*good; 64].join(",")), Ok(64));
        assert!(parse(&vec![&*good; 65].join(",")).is_err());
        for bad in ["", "[]", "{}", "null", r#"{"keys":{}}"#, "<html>"] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
