//! Compiles what nodes tell each other.

use std::error::Error;

const ROOT: &str = "../../proto";
const FILE: &str = "../../proto/fanwire/cluster/v1/cluster.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    prost_build::Config::new().bytes(["."]).compile_fds(protox::compile([FILE], [ROOT])?)?;
    Ok(())
}
