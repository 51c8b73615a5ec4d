//! The messages of `proto/fanwire/client/v1/client.proto`.

include!(concat!(env!("OUT_DIR"), "/fanwire.client.v1.rs"));
