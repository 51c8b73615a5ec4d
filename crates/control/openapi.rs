//! The OpenAPI document of the HTTP API, from the same descriptors as its types.

use std::error::Error;

use protox::prost_reflect::prost_types::FileDescriptorProto;
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

/// Every code an answer may have in its `error`; a test compares them with the refusals there are.
const CODES: &[u32] = &[100, 101, 102, 103, 104, 107, 108, 110, 111, 112, 113, 503, 504];

/// Which half of the API a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// Read by the server: `null` is the same as nothing.
    Request,
    /// Written by the server.
    Response,
}

/// Writes the document. `requests` and `responses` are the messages of each half, `always` the fields that answers always have.
pub(crate) fn document(
    pool: &DescriptorPool,
    requests: &[MessageDescriptor],
    responses: &[MessageDescriptor],
    always: &[&str],
) -> Result<String, Box<dyn Error>> {
    let file = pool.files().find(|file| file.services().len() > 0).ok_or("there is no service")?;
    let comments = Comments(file.file_descriptor_proto());
    let mut schemas = Map::new();
    for (half, messages) in [(Half::Request, requests), (Half::Response, responses)] {
        for message in messages {
            schemas.insert(schema_name(message, half), object(message, half, always, &comments));
        }
    }
    schemas.insert("Refused".to_owned(), refused());
    let mut paths = Map::new();
    for method in file.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        // A stream has no form in HTTP and JSON.
        if method.is_client_streaming() || method.is_server_streaming() {
            continue;
        }
        let name = snake(method.name());
        let operation = json!({
            "operationId": name,
            "summary": comments.at(method.path()),
            "requestBody": { "content": { "application/json": { "schema": reference(&method.input(), Half::Request) } } },
            "responses": answers(&method.output()),
        });
        paths.insert(format!("/api/{name}"), json!({ "post": operation }));
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fanwire control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What backends ask of any node of a cluster. A method that was called answers with status 200, whether it \
                            succeeded or not: look at `error`. Fields are added in later versions, never changed.",
        },
        "servers": [{ "url": "http://127.0.0.1:8010" }],
        "security": [{ "key": [] }, { "authorization": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
                "authorization": { "type": "apiKey", "in": "header", "name": "Authorization", "description": "apikey, a space, and the secret" },
            },
        },
    });
    Ok(serde_json::to_string_pretty(&document)?)
}

/// What a method may answer.
fn answers(output: &MessageDescriptor) -> Value {
    let result = reference(output, Half::Response);
    // A batch has no `result` around its replies.
    let success = if output.name() == "BatchResponse" {
        result
    } else {
        json!({ "type": "object", "required": ["result"], "properties": { "result": result } })
    };
    let refused = json!({ "$ref": "#/components/schemas/Refused" });
    let error = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": refused } } });
    let text = |description: &str| json!({ "description": description, "content": { "text/plain": { "schema": { "type": "string" } } } });
    let called = json!({ "anyOf": [success, refused] });
    json!({
        "200": { "description": "The method was called.", "content": { "application/json": { "schema": called } } },
        "400": error("The body is no JSON object, or a field has a wrong type."),
        "401": error("No key, or an unknown one."),
        "403": error("The key is not for this; or there are no keys, and a page in a browser asks."),
        "408": text("The body took too long."),
        "413": text("The body is too large."),
        "429": error("The key has used up its rate. `Retry-After` says when to come again, in seconds."),
    })
}

fn refused() -> Value {
    let error = json!({
        "type": "object",
        "required": ["code", "message"],
        "properties": {
            "code": { "type": "integer", "enum": CODES, "description": "Why; docs/api.md has the list." },
            "message": { "type": "string", "description": "For people." },
            "position": {
                "type": "object",
                "description": "With code 113: where the channel's stream ends.",
                "required": ["offset", "epoch"],
                "properties": {
                    "offset": { "type": "integer", "minimum": 0, "maximum": u64::MAX },
                    "epoch": { "type": "string" },
                },
            },
        },
    });
    json!({ "type": "object", "required": ["error"], "properties": { "error": error } })
}

fn object(message: &MessageDescriptor, half: Half, always: &[&str], comments: &Comments<'_>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in message.fields() {
        let comment = comments.at(field.path());
        let must = match half {
            Half::Request => comment.starts_with("Required.") || comment.starts_with("From 1 to"),
            Half::Response => always.contains(&&*format!("{}.{}", message.name(), field.name())),
        };
        let mut schema = value(&field, half);
        if !comment.is_empty() {
            schema["description"] = comment.into();
        }
        if message.name() == "Publication" && field.name() == "data" {
            properties
                .insert("b64data".to_owned(), json!({ "type": "string", "description": "Binary data, in base64." }));
            required.push("data".to_owned());
        }
        if must {
            required.push(field.name().to_owned());
        }
        properties.insert(field.name().to_owned(), schema);
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    let comment = comments.at(message.path());
    if !comment.is_empty() {
        schema["description"] = comment.into();
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// A field's value.
fn value(field: &FieldDescriptor, half: Half) -> Value {
    let schema = if field.is_map() {
        let values = field.kind().as_message().map(MessageDescriptor::map_entry_value_field);
        json!({ "type": "object", "additionalProperties": values.map(|values| kind(&values, half)) })
    } else if field.is_list() {
        json!({ "type": "array", "items": kind(field, half) })
    } else {
        kind(field, half)
    };
    match (half, schema.get("type").cloned()) {
        (Half::Request, Some(name)) => {
            let mut schema = schema;
            schema["type"] = json!([name, "null"]);
            schema
        }
        (Half::Request, None) if schema.get("$ref").is_some() => json!({ "anyOf": [schema, { "type": "null" }] }),
        _ => schema,
    }
}

fn kind(field: &FieldDescriptor, half: Half) -> Value {
    match field.kind() {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Double | Kind::Float => json!({ "type": "number" }),
        Kind::Uint32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Kind::Uint64 => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
        Kind::Int32 => json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX }),
        Kind::Int64 => json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX }),
        Kind::String => json!({ "type": "string" }),
        // Any JSON.
        Kind::Bytes => json!({}),
        Kind::Message(message) => reference(&message, half),
        other => panic!("{}: {other:?} has no form in JSON yet", field.full_name()),
    }
}

fn reference(message: &MessageDescriptor, half: Half) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", schema_name(message, half)) })
}

/// Messages of both halves look different in each.
fn schema_name(message: &MessageDescriptor, half: Half) -> String {
    let name = message.name();
    match half {
        Half::Request if !name.ends_with("Request") => format!("{name}Given"),
        _ => name.to_owned(),
    }
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// The comments of a file, by the path of what they are about.
struct Comments<'a>(&'a FileDescriptorProto);

impl Comments<'_> {
    fn at(&self, path: &[i32]) -> String {
        let locations = self.0.source_code_info.iter().flat_map(|info| &info.location);
        let comment = locations
            .filter(|location| location.path == path)
            .find_map(|location| location.leading_comments.as_deref());
        comment.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
