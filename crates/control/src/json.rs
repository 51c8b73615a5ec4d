//! How the messages of the API look in JSON. `proto/` gives each field its name, build.rs one of these codecs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

/// Whether a field is left out.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads a field whose `null` means zero.
pub(crate) fn zero<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads any JSON value; none for `null`.
pub(crate) fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let raw: Option<Box<RawValue>> = Option::deserialize(deserializer)?;
    Ok(raw.map(into_bytes).unwrap_or_default())
}

/// The same, but `null` is a value.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(into_bytes)
}

/// Writes a JSON value.
pub(crate) fn as_it_is<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_slice::<&RawValue>(value).map_err(S::Error::custom)?.serialize(serializer)
}

/// Writes JSON as `data`; anything else as `b64data`, beside a `data` of `null` that libraries insist on.
pub(crate) fn data_or_b64data<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Data<'a> {
        data: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        b64data: Option<String>,
    }
    let data = serde_json::from_slice(value).ok();
    Data { b64data: data.is_none().then(|| STANDARD.encode(value)), data }.serialize(serializer)
}

fn into_bytes(raw: Box<RawValue>) -> Bytes {
    String::from(Box::<str>::from(raw)).into()
}
