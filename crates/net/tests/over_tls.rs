//! The tests of plain connections once more, over TLS.
#![allow(clippy::duplicate_mod, reason = "each of the files is whole by itself")]
#![allow(clippy::unwrap_used, reason = "all of it is tests, though not all are test functions")]

#[path = "bad_input.rs"]
mod over_tls_bad_input;
#[path = "handshake.rs"]
mod over_tls_handshake;
#[path = "http.rs"]
mod over_tls_http;
