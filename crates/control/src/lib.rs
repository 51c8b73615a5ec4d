//! The control plane: what backends ask of a node, as gRPC and as JSON over HTTP.
//!
//! Knows no HTTP server: a listener hands over requests and sends whatever comes back.
//!
//! - [`Api`]: from a request to a response
//! - [`ApiKey`]: one `[[api_key]]` of the configuration; [`Keys`]: who may ask, for which [`Scope`]
//! - [`Audit`]: who did what, in the log; [`CertificateName`]: what a listener may know of who calls
//! - [`Reload`]: the wish that the configuration is read again, for whoever can do it
//! - [`proto`]: the messages, the service, and a client for it, generated from `proto/fanwire/control/v1`
//!
//! Both forms are one API: the same messages, and the same methods behind them (`methods`).
//!
//! `POST /api/<method>` takes the method's parameters as a JSON object and answers `{"result": …}`, or
//! `{"error": {"code", "message"}}` with a code of [`Refusal`](fanwire_wire::Refusal). Both come with status 200; another
//! status means that no method was called. Unknown fields are ignored.

mod api;
mod audit;
mod caller;
mod document;
mod grpc;
mod health;
mod json;
mod keys;
mod methods;
mod metrics;
mod pace;
pub mod proto;
mod reflection;
mod types;

pub use api::Api;
pub use audit::Audit;
pub use caller::CertificateName;
pub use keys::{ApiKey, Error, Keys, Scope};
pub use methods::{Changes, Reload};
