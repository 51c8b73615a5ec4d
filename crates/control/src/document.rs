//! The OpenAPI document of the HTTP API. build.rs makes it from the descriptors that the types come from.

/// Where it is served, with `GET` and to everyone: it says nothing but what this version can do.
pub(crate) const PATH: &str = "/api/openapi.json";

/// The document.
pub(crate) const DOCUMENT: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fanwire_wire::Refusal;
    use serde_json::Value;

    use super::*;
    use crate::methods::Method;
    use crate::types::Fault;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("JSON")
    }

    #[test]
    fn every_method_is_there() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<_> = paths.keys().map(String::as_str).collect();
        let names: Vec<_> = Method::ALL.iter().map(|method| format!("/api/{}", method.name())).collect();
        assert_eq!(described, names.iter().map(String::as_str).collect());
        assert!(paths.values().all(|path| path["post"]["summary"] != ""));
    }

    #[test]
    fn every_code_is_there() {
        // These are for clients alone.
        let clients = [Refusal::AlreadySubscribed, Refusal::LimitExceeded, Refusal::TokenExpired];
        let codes = Refusal::ALL.iter().filter(|refusal| !clients.contains(refusal));
        let expected: BTreeSet<_> = codes.map(|refusal| u64::from(Fault::from(*refusal).code())).collect();
        let document = document();
        let listed = &document["components"]["schemas"]["Refused"]["properties"]["error"]["properties"]["code"]["enum"];
        let listed: BTreeSet<_> = listed.as_array().expect("codes").iter().filter_map(Value::as_u64).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn references_lead_somewhere() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let mut waiting = vec![&document];
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                        let name = target.strip_prefix("#/components/schemas/").expect("a schema");
                        assert!(schemas.contains_key(name), "{target}");
                    }
                    waiting.extend(fields.values());
                }
                Value::Array(values) => waiting.extend(values),
                _ => {}
            }
        }
    }
}
