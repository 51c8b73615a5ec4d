//! Expected values: wildcards and captures.

use std::collections::HashMap;

use serde_json::Value;

/// What the names in a transcript stand for.
#[derive(Debug, Default)]
pub(super) struct Captures(HashMap<String, Value>);

impl Captures {
    /// Compares a value with what was expected; what names stand for is kept.
    ///
    /// Says where the first difference is.
    pub(super) fn check(&mut self, expected: &Value, got: &Value) -> Result<(), String> {
        self.compare(expected, got, "")
    }

    /// Puts in what names stand for: `"<name>"` as JSON, `<name>` as text.
    pub(super) fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = text.to_owned();
        for (name, value) in &self.0 {
            filled = filled.replace(&format!("\"<{name}>\""), &value.to_string());
            let bare = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            filled = filled.replace(&format!("<{name}>"), &bare);
        }
        match first_name(&filled) {
            Some(name) => Err(format!("nothing was captured under the name <{name}>")),
            None => Ok(filled),
        }
    }

    fn compare(&mut self, expected: &Value, got: &Value, path: &str) -> Result<(), String> {
        match (expected, got) {
            (Value::String(text), _) if text == "*" => Ok(()),
            (Value::String(text), _) if name_of(text).is_some() => {
                let known = self.0.entry(name_of(text).unwrap_or_default().to_owned()).or_insert_with(|| got.clone());
                if known == got { Ok(()) } else { Err(format!("{path}: {text} stands for {known}, not for {got}")) }
            }
            (Value::Object(expected), Value::Object(got)) => {
                if let Some(key) = got.keys().find(|key| !expected.contains_key(*key)) {
                    return Err(format!("{path}.{key} is there"));
                }
                for (key, value) in expected {
                    let path = format!("{path}.{key}");
                    let Some(got) = got.get(key) else { return Err(format!("{path} is not there")) };
                    self.compare(value, got, &path)?;
                }
                Ok(())
            }
            (Value::Array(expected), Value::Array(got)) => {
                if expected.len() != got.len() {
                    return Err(format!("{path} has {} elements, not {}", got.len(), expected.len()));
                }
                for (index, (expected, got)) in expected.iter().zip(got).enumerate() {
                    self.compare(expected, got, &format!("{path}[{index}]"))?;
                }
                Ok(())
            }
            _ if expected == got => Ok(()),
            _ => Err(format!("{path} differs")),
        }
    }
}

fn name_of(text: &str) -> Option<&str> {
    let name = text.strip_prefix('<')?.strip_suffix('>')?;
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')).then_some(name)
}

/// The first thing in a text that looks like a name.
fn first_name(text: &str) -> Option<&str> {
    let starts = text.match_indices('<').map(|(start, _)| start);
    starts.filter_map(|start| text[start..].find('>').and_then(|len| name_of(&text[start..=start + len]))).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_stand_for_one_thing() {
        let mut captures = Captures::default();
        captures.check(&json!({"a": "<x>", "b": "*"}), &json!({"a": 7, "b": [1]})).unwrap();
        captures.check(&json!(["<x>"]), &json!([7])).unwrap();
        assert!(captures.check(&json!("<x>"), &json!(8)).unwrap_err().contains("stands for 7"));
        assert_eq!(captures.fill("{\"a\":\"<x>\"} <x>").unwrap(), "{\"a\":7} 7");
        assert!(captures.fill("\"<y>\"").is_err());
        assert_eq!(captures.fill("1 < 2 > 1 <>").unwrap(), "1 < 2 > 1 <>");
    }

    #[test]
    fn differences_are_named() {
        let mut captures = Captures::default();
        let mut error = |expected: Value, got: Value| captures.check(&expected, &got).unwrap_err();
        assert_eq!(error(json!({"a": 1}), json!({"a": 2})), ".a differs");
        assert_eq!(error(json!({"a": 1}), json!({})), ".a is not there");
        assert_eq!(error(json!({}), json!({"a": 1})), ".a is there");
        assert_eq!(error(json!([1]), json!([1, 2])), " has 2 elements, not 1");
        assert_eq!(error(json!({"a": [{"b": "x"}]}), json!({"a": [{"b": "y"}]})), ".a[0].b differs");
    }
}
