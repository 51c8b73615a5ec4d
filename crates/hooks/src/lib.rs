//! Hooks: backends that decide about clients, asked over HTTP or gRPC.
//!
//! - [`HookConfig`]: the sections `[[hook]]`, where backends are and how they are asked
//! - [`Backends`]: all of them, as the node knows them; [`Wanted`] takes their place while the node runs
//!
//! The path of a question: `backends` (which hook; words of the node → messages of `proto/fanwire/hooks/v1`) → `hook` (limits, deadline,
//! retries, `breaker`) → `transport` (HTTP or gRPC) → `convert` (→ words of the node).
//!
//! A backend that is slow or dead costs the clients that ask it a temporary refusal, after the hook's timeout at most, and nobody
//! else anything: questions run on the shared runtime, so many of them at a time and no more, and none waits in a queue.

mod backends;
mod breaker;
mod config;
mod convert;
mod event;
mod hook;
mod json;
mod metrics;
mod proto;
mod transport;

pub use backends::{Backends, Wanted};
pub use config::HookConfig;
