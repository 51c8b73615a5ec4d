//! Who a client is and what it may subscribe to, as far as signed tokens say so.
//!
//! - [`Config`]: the section `[token]`, which keys to trust; [`Error`] lists everything that is wrong with it
//! - [`Verifier`]: from a token to a [`ConnectionToken`] or a [`SubscriptionToken`], or a [`TokenError`]
//! - `jwks`: key sets that are fetched, and kept up to date
//! - [`mint`]: makes tokens, for the command line and for tests
//!
//! Tokens are JWTs in compact form. The configuration alone decides which algorithms are accepted and which key checks
//! them; a token's header only names one of them. Nothing in a token decides which file or address this
//! crate opens; one whose key is not known makes it fetch the configured key sets again, at most twice a minute.

mod authorizer;
mod claims;
mod config;
mod jwks;
mod jws;
mod keys;
pub mod mint;
mod token;
mod verifier;

pub use config::{Config, Error, Jwks, Mistake, Secret};
pub use fanwire_wire::Overrides;
pub use token::{ConnectionToken, Grant, Reason, SubscriptionToken, TokenError};
pub use verifier::{LEEWAY, MAX_TOKEN_SIZE, Verifier};
