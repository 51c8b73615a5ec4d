//! Compiles the protocol's messages: protobuf by `prost`, JSON by `serde`.

use std::error::Error;

use prost_build::Config;
use protox::prost_reflect::{DescriptorPool, Kind};

const ROOT: &str = "../../proto";
const FILE: &str = "../../proto/fanwire/client/v1/client.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let files = protox::compile([FILE], [ROOT])?;
    let mut config = Config::new();
    config.bytes(["."]).btree_map(["."]);
    config.message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]");
    config.message_attribute(".", "#[serde(default)]");
    json_fields(&mut config, &DescriptorPool::from_file_descriptor_set(files.clone())?);
    config.compile_fds(files)?;
    Ok(())
}

/// A field of zero value is left out, but for those in [`ALWAYS`]; `null` is read as zero. A field of type `bytes` holds a
/// JSON value as it is.
fn json_fields(config: &mut Config, pool: &DescriptorPool) {
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        for field in message.fields() {
            let name = field.full_name().trim_start_matches("fanwire.client.v1.").to_owned();
            let codec = match field.kind() {
                Kind::Bytes => "raw",
                Kind::Message(entry) if entry.name() == "SubscribeResultEntry" => "entries",
                _ => "zero",
            };
            let mut attribute = format!("with = \"crate::codec::json::{codec}\"");
            if !ALWAYS.contains(&name.as_str()) {
                attribute.push_str(", skip_serializing_if = \"crate::codec::json::is_zero\"");
            }
            config.field_attribute(format!(".{}", field.full_name()), format!("#[serde({attribute})]"));
        }
    }
}

/// Fields that clients read without asking whether they are there.
const ALWAYS: &[&str] = &[
    "ClientInfo.user",
    "ClientInfo.client",
    "HistoryResult.publications",
    "HistoryResult.epoch",
    "HistoryResult.offset",
    "PresenceResult.presence",
    "PresenceStatsResult.num_clients",
    "PresenceStatsResult.num_users",
];
