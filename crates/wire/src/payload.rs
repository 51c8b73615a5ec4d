//! Application data.

use bytes::Bytes;

/// Application data as it was published: never parsed again, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    kind: PayloadKind,
}

/// What the bytes of a [`Payload`] are known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// One JSON value in UTF-8.
    Json,
    /// UTF-8 that is not JSON.
    Text,
    /// Anything else, and what its publisher declared to be binary.
    Binary,
}

impl Payload {
    /// Wraps bytes that the caller knows to be one valid JSON value, for example because a parser produced them.
    #[must_use]
    pub fn json(bytes: Bytes) -> Self {
        Self { bytes, kind: PayloadKind::Json }
    }

    /// Wraps text: JSON if it parses as such.
    #[must_use]
    pub fn text(text: Bytes) -> Self {
        let kind = match () {
            () if is_json(&text) => PayloadKind::Json,
            () if std::str::from_utf8(&text).is_ok() => PayloadKind::Text,
            () => PayloadKind::Binary,
        };
        Self { bytes: text, kind }
    }

    /// Wraps bytes that are to stay binary, whatever they contain.
    #[must_use]
    pub fn binary(bytes: Bytes) -> Self {
        Self { bytes, kind: PayloadKind::Binary }
    }

    /// Wraps bytes whose publisher did not say what they are: JSON if they parse as such, else binary.
    #[must_use]
    pub fn detect(bytes: Bytes) -> Self {
        let kind = if is_json(&bytes) { PayloadKind::Json } else { PayloadKind::Binary };
        Self { bytes, kind }
    }

    /// Wraps bytes that another node has looked at already. What claims to be text and is not stays binary.
    pub(crate) fn declared(bytes: Bytes, kind: PayloadKind) -> Self {
        let kind = match kind {
            PayloadKind::Json | PayloadKind::Text if std::str::from_utf8(&bytes).is_err() => PayloadKind::Binary,
            kind => kind,
        };
        Self { bytes, kind }
    }

    /// The data.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the data is.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        self.kind
    }

    /// Appends the data as one JSON value: JSON as it is, text as a string.
    ///
    /// Binary data is appended if it happens to be JSON.
    ///
    /// # Errors
    ///
    /// [`NotJson`] if binary data cannot stand in a JSON message; `out` is unchanged then.
    pub fn write_json(&self, out: &mut impl bytes::BufMut) -> Result<(), NotJson> {
        match self.kind {
            PayloadKind::Json => out.put_slice(&self.bytes),
            PayloadKind::Text => {
                let text = String::from_utf8_lossy(&self.bytes);
                // Serializing a string into memory has no way to fail.
                let quoted = serde_json::to_vec(&text).unwrap_or_default();
                out.put_slice(&quoted);
            }
            PayloadKind::Binary if is_json(&self.bytes) => out.put_slice(&self.bytes),
            PayloadKind::Binary => return Err(NotJson),
        }
        Ok(())
    }
}

/// Binary data that has no place in a JSON message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("payload is not JSON")]
pub struct NotJson;

fn is_json(bytes: &[u8]) -> bool {
    // The parser does not look into strings that it skips.
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(payload: &Payload) -> Result<String, NotJson> {
        let mut out = Vec::new();
        payload.write_json(&mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn kinds_are_found_once_and_kept() {
        assert_eq!(Payload::text("{\"a\":1}".into()).kind(), PayloadKind::Json);
        assert_eq!(Payload::text("hello \"you\"".into()).kind(), PayloadKind::Text);
        assert_eq!(Payload::binary("{}".into()).kind(), PayloadKind::Binary);
        assert_eq!(Payload::detect("[1]".into()).kind(), PayloadKind::Json);
        assert_eq!(Payload::detect("hello".into()).kind(), PayloadKind::Binary);
        assert_eq!(Payload::text(Bytes::from_static(b"\xff")).kind(), PayloadKind::Binary);
        assert_eq!(Payload::detect(Bytes::from_static(b"\"\xff\"")).kind(), PayloadKind::Binary);
    }

    #[test]
    fn in_a_json_message() {
        assert_eq!(json_of(&Payload::text("hello \"you\"".into())).unwrap(), "\"hello \\\"you\\\"\"");
        assert_eq!(json_of(&Payload::json("{\"a\": 1}".into())).unwrap(), "{\"a\": 1}");
        assert_eq!(json_of(&Payload::binary("{}".into())).unwrap(), "{}");
        assert_eq!(json_of(&Payload::binary(Bytes::from_static(&[0, 1]))), Err(NotJson));
    }
}
