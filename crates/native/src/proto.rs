//! The messages of `proto/fanwire/client/v1/client.proto`, for protobuf (`prost`) and JSON (`serde`).

include!(concat!(env!("OUT_DIR"), "/fanwire.client.v1.rs"));
