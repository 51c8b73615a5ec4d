//! Compiles the messages of hooks: protobuf by `prost`, JSON by `serde`.

use std::error::Error;

use prost_build::Config;
use protox::prost_reflect::{DescriptorPool, Kind};

const ROOT: &str = "../../proto";
const FILE: &str = "../../proto/fanwire/hooks/v1/hooks.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let files = protox::compile([FILE], [ROOT])?;
    let mut config = Config::new();
    config.bytes(["."]).btree_map(["."]);
    config.message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]");
    config.message_attribute(".", "#[serde(default)]");
    let pool = DescriptorPool::from_file_descriptor_set(files.clone())?;
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        for field in message.fields() {
            let codec = if field.kind() == Kind::Bytes { "raw" } else { "zero" };
            let mut attribute = format!("with = \"crate::json::{codec}\"");
            if !ALWAYS.contains(&field.name()) {
                attribute.push_str(", skip_serializing_if = \"crate::json::is_zero\"");
            }
            config.field_attribute(format!(".{}", field.full_name()), format!("#[serde({attribute})]"));
        }
    }
    config.compile_fds(files)?;
    Ok(())
}

/// Fields that backends read without asking whether they are there.
const ALWAYS: &[&str] = &["client", "transport", "protocol", "encoding", "user", "channel"];
