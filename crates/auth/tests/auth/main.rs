//! Tokens of every kind against verifiers of every kind.

mod algorithms;
mod claims;
mod config;
mod envelope;
mod jwks;
mod support;
