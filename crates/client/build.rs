//! Compiles the messages of the native protocol, and those of publishing over gRPC.

use std::error::Error;

const ROOT: &str = "../../proto";
const CLIENT: &str = "../../proto/fanwire/client/v1/client.proto";
const CONTROL: &str = "../../proto/fanwire/control/v1/control.proto";

/// What is used of the control API.
const PUBLISHING: [&str; 6] =
    ["Error", "Position", "PublishRequest", "PublishResponse", "PublishStreamRequest", "PublishStreamResponse"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in [CLIENT, CONTROL] {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut files = protox::compile([CLIENT, CONTROL], [ROOT])?;
    for file in files.file.iter_mut().filter(|file| file.package() == "fanwire.control.v1") {
        file.service.clear();
        file.message_type.retain(|message| PUBLISHING.contains(&message.name()));
        // Comments are found by the numbers of messages, which are others after this.
        file.source_code_info = None;
    }
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
