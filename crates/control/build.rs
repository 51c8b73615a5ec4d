//! Compiles the API: protobuf by `prost`, JSON by `serde`, the service by `tonic`.

mod openapi;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use prost_build::Config;
use protox::prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

const ROOT: &str = "../../proto";
const FILE: &str = "../../proto/fanwire/control/v1/control.proto";

#[allow(clippy::disallowed_methods, reason = "cargo tells build scripts so")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let files = protox::compile([FILE], [ROOT])?;
    let mut config = Config::new();
    config.bytes(["."]).btree_map(["."]);
    let pool = DescriptorPool::from_file_descriptor_set(files.clone())?;
    json(&mut config, &pool);
    let (requests, responses) = (requests(&pool), responses(&pool));
    let document = openapi::document(&pool, &requests, &responses, ALWAYS)?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("openapi.json"), document)?;
    // What reflection answers.
    std::fs::write(Path::new(&out).join("control.bin"), pool.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).use_arc_self(true).compile_fds_with_config(files, config)?;
    Ok(())
}

/// Requests are read, and `null` in them is zero; what is written leaves out fields of zero value, but for those in
/// [`ALWAYS`]. A field of type `bytes` holds a JSON value as it is.
fn json(config: &mut Config, pool: &DescriptorPool) {
    for message in requests(pool) {
        let path = format!(".{}", message.full_name());
        config.message_attribute(&path, "#[derive(serde::Deserialize)] #[serde(default)]");
        for field in message.fields() {
            let codec = match field.kind() {
                Kind::Bytes if field.name() == "data" && PUBLISHED.contains(&message.name()) => "present",
                Kind::Bytes => "raw",
                _ => "zero",
            };
            let attribute = format!("#[serde(deserialize_with = \"crate::json::{codec}\")]");
            config.field_attribute(format!(".{}", field.full_name()), attribute);
        }
    }
    for message in responses(pool) {
        let path = format!(".{}", message.full_name());
        config.message_attribute(&path, "#[derive(serde::Serialize)]");
        for field in message.fields() {
            let name = format!("{}.{}", message.name(), field.name());
            let attribute = match field.kind() {
                _ if name == "Publication.data" => "flatten, serialize_with = \"crate::json::data_or_b64data\"",
                Kind::Bytes => {
                    "skip_serializing_if = \"crate::json::is_zero\", serialize_with = \"crate::json::as_it_is\""
                }
                _ if ALWAYS.contains(&&*name) => continue,
                _ => "skip_serializing_if = \"crate::json::is_zero\"",
            };
            config.field_attribute(format!(".{}", field.full_name()), format!("#[serde({attribute})]"));
        }
    }
}

/// What the methods read.
fn requests(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    reachable(pool.services().flat_map(|service| service.methods().map(|method| method.input()).collect::<Vec<_>>()))
}

/// What the methods write.
fn responses(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    reachable(pool.services().flat_map(|service| service.methods().map(|method| method.output()).collect::<Vec<_>>()))
}

/// These messages, and what they contain.
fn reachable(roots: impl Iterator<Item = MessageDescriptor>) -> Vec<MessageDescriptor> {
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    let mut waiting: Vec<_> = roots.collect();
    while let Some(message) = waiting.pop() {
        if !names.insert(message.full_name().to_owned()) {
            continue;
        }
        waiting.extend(message.fields().filter_map(|field| field.kind().as_message().cloned()));
        if !message.is_map_entry() {
            found.push(message);
        }
    }
    found
}

/// What is published with these: `null` is data, too.
const PUBLISHED: &[&str] = &["PublishRequest", "BroadcastRequest"];

/// Fields that libraries read without asking whether they are there.
const ALWAYS: &[&str] = &[
    "BatchResponse.replies",
    "BroadcastResponse.responses",
    "ChannelInfo.num_clients",
    "ChannelsResponse.channels",
    "ClientInfo.client",
    "ClientInfo.user",
    "Connection.client",
    "Connection.node",
    "Connection.num_subs",
    "Connection.protocol",
    "Connection.user",
    "ConnectionsResponse.connections",
    "DrainResponse.name",
    "DrainResponse.num_clients",
    "DrainResponse.uid",
    "Error.code",
    "Error.message",
    "HistoryResponse.epoch",
    "HistoryResponse.offset",
    "HistoryResponse.publications",
    "HotChannel.channel",
    "HotChannel.deliveries_per_second",
    "HotChannel.num_clients",
    "HotChannel.publications_per_second",
    "InfoResponse.nodes",
    "NodeInfo.age_ms",
    "NodeInfo.delivered_bytes",
    "NodeInfo.deliveries",
    "NodeInfo.median_us",
    "NodeInfo.name",
    "NodeInfo.num_channels",
    "NodeInfo.num_clients",
    "NodeInfo.num_subs",
    "NodeInfo.num_users",
    "NodeInfo.num_workers",
    "NodeInfo.p99_us",
    "NodeInfo.publications",
    "NodeInfo.state",
    "NodeInfo.uid",
    "NodeInfo.uptime",
    "NodeInfo.version",
    "NodeInfo.waiting_bytes",
    "NodeMoves.moving",
    "NodeMoves.name",
    "NodeMoves.num_clients",
    "NodeMoves.uid",
    "NodesResponse.nodes",
    "Position.epoch",
    "Position.offset",
    "PresenceResponse.presence",
    "PresenceStatsResponse.num_clients",
    "PresenceStatsResponse.num_users",
    "Publication.offset",
    "Publication.time",
    "RebalanceResponse.keep",
    "RebalanceResponse.nodes",
    "ReloadResponse.changed",
    "ReloadResponse.needs_restart",
    "ReportResponse.channels",
    "ReportResponse.clients",
    "SlowClient.client",
    "SlowClient.protocol",
    "SlowClient.user",
    "SlowClient.waiting_bytes",
];
