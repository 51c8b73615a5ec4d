//! The hot paths of a node, set up so that they can be measured alone.
//!
//! `benches/time.rs` measures nanoseconds, for a person who compares two versions on a quiet machine;
//! `benches/instructions.rs` counts instructions, which a noisy machine does not change, against budgets that `./test` keeps.
//!
//! Sockets are [`Sink`]s: what a path costs here is user space alone.

mod gap;
mod stage;
mod values;

pub use gap::Gap;
pub use stage::{Sink, Stage};
pub use values::{Encoding, broadcast, client_frames, publication};
