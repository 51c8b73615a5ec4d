//! What Redis answers, in the forms that are needed.

use bytes::Bytes;
use redis::Value;

/// The bytes of a string.
pub(crate) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::VerbatimString { text, .. } => Some(text.into()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// The same as text.
pub(crate) fn text(value: Value) -> Option<String> {
    bytes(value).and_then(|bytes| String::from_utf8(bytes.into()).ok())
}

/// A number, however it is written.
pub(crate) fn number<T: std::str::FromStr>(value: Value) -> Option<T> {
    text(value)?.parse().ok()
}

/// The items of a list; names and values of a map take turns.
pub(crate) fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(key, value)| [key, value]).collect(),
        _ => Vec::new(),
    }
}

/// The names in a map, each with its value.
pub(crate) fn pairs(map: Value) -> impl Iterator<Item = (Value, Value)> {
    let mut items = items(map).into_iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
}

/// The value of a name in a map.
pub(crate) fn field(map: Value, name: &str) -> Option<Value> {
    pairs(map).find_map(|(key, value)| (text(key).as_deref() == Some(name)).then_some(value))
}
