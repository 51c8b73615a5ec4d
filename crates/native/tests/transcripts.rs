//! Plays the conversations of `transcripts/`, the specification of the protocol by example.

use std::path::Path;
use std::sync::Arc;

use fanwire_native::Native;
use fanwire_native::proto::{Command, Reply};
use fanwire_testkit::transcript::{Codec, run_dir_with};
use prost::Message;
use serde_json::Value;

#[test]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    run_dir_with(|| Arc::new(Native::new()), Some(Codec { encode, decode }), &folder);
}

/// The schema is the same in both encodings: what a transcript writes in JSON becomes protobuf.
fn encode(commands: &[Value]) -> Vec<u8> {
    let encode = |value: &Value| {
        // By way of text, where `bytes` fields are JSON values as they are written.
        let command: Command = serde_json::from_str(&value.to_string()).expect("the transcript holds a command");
        command.encode_length_delimited_to_vec()
    };
    commands.iter().flat_map(encode).collect()
}

/// And back; data that is not JSON becomes a string in hexadecimal.
fn decode(mut message: &[u8]) -> Result<Vec<Value>, String> {
    let mut replies = Vec::new();
    while !message.is_empty() {
        let mut reply = Reply::decode_length_delimited(&mut message).map_err(|error| error.to_string())?;
        if let Some(publication) = reply.push.as_mut().and_then(|push| push.r#pub.as_mut())
            && serde_json::from_slice::<Value>(&publication.data).is_err()
        {
            let hex: String = publication.data.iter().map(|byte| format!("{byte:02x}")).collect();
            publication.data = format!("\"{hex}\"").into();
        }
        replies.push(serde_json::to_value(&reply).map_err(|error| error.to_string())?);
    }
    Ok(replies)
}
