//! Clients' own tokens, as a backend makes them.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use crate::error::Error;

/// Signs a token for each client.
pub(crate) struct Signer(EncodingKey);

#[derive(Serialize)]
struct Claims {
    sub: String,
    exp: u64,
}

/// The end of 2099: later than any run.
const NEVER: u64 = 4_102_444_799;

impl Signer {
    /// A signer of HS256 tokens; `None` for an empty secret.
    pub(crate) fn new(secret: &str) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(EncodingKey::from_secret(secret.as_bytes())))
    }

    /// The token of the `number`th client.
    pub(crate) fn token(&self, number: u32) -> Result<String, Error> {
        let claims = Claims { sub: format!("client-{number}"), exp: NEVER };
        encode(&Header::default(), &claims, &self.0).map_err(|error| Error::Setup(format!("sign a token: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_its_client() {
        let signer = Signer::new("a secret of at least thirty-two bytes").unwrap();
        let (one, two) = (signer.token(1).unwrap(), signer.token(2).unwrap());
        assert_eq!(one.split('.').count(), 3);
        assert!(one.starts_with("eyJ") && one != two);
        assert!(Signer::new("").is_none());
    }
}
