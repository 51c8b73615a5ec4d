//! The command line and the client library, against a real gateway.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod commands;
mod library;
mod publisher;
mod secure;
mod server;

#[allow(clippy::print_stdout, unreachable_pub, reason = "this is what the documentation shows")]
#[path = "../../../client/snippets/publish.rs"]
mod publish;
#[allow(clippy::print_stdout, unreachable_pub, reason = "this is what the documentation shows")]
#[path = "../../../client/snippets/stream.rs"]
mod stream;
#[allow(clippy::print_stdout, unreachable_pub, reason = "this is what the documentation shows")]
#[path = "../../../client/snippets/subscribe.rs"]
mod subscribe;
