//! What the tests of all crates share. A development dependency only.
//!
//! - [`harness`]: one node on the current thread, on a paused clock, with fake connections
//! - [`transcript`]: conversations written down in text files, played against a protocol
//! - [`conformance`]: what every broker and every presence must do
//! - [`oracle`]: what subscribers saw against what was published
//! - [`Lan`]: several nodes that hear each other
//! - [`sim`]: a cluster with everything that can go wrong, as a seed decides
//! - [`FakeSocket`], [`TokenBook`], [`HookBook`], [`FaultyBroker`], [`Probe`]: the parts the harness is made of
//! - [`Random`]: chance that repeats itself; [`free_port`]: for servers that cannot choose

pub mod conformance;
mod faults;
pub mod harness;
mod hooks;
mod lan;
pub mod oracle;
mod port;
mod probe;
mod random;
pub mod sim;
mod socket;
mod tokens;
pub mod transcript;

pub use faults::{Faults, FaultyBroker};
pub use harness::{FakeClient, Harness};
pub use hooks::HookBook;
pub use lan::Lan;
pub use port::free_port;
pub use probe::Probe;
pub use random::Random;
pub use socket::{FakeSocket, Frame};
pub use tokens::TokenBook;
