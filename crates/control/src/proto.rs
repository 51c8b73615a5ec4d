//! The messages and the service of `proto/fanwire/control/v1/control.proto`, for gRPC (`tonic`) and JSON (`serde`).

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/fanwire.control.v1.rs"));
