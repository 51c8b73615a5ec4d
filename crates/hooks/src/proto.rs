//! The messages of `proto/fanwire/hooks/v1/hooks.proto`, and which answers which.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in the schema")]

include!(concat!(env!("OUT_DIR"), "/fanwire.hooks.v1.rs"));
