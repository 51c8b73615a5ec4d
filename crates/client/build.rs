//! Compiles the messages of the native protocol.

use std::error::Error;

const ROOT: &str = "../../proto";
const FILE: &str = "../../proto/fanwire/client/v1/client.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let files = protox::compile([FILE], [ROOT])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
