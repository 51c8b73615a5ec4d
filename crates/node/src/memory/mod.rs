//! The broker and the presence of a single node: everything in its own memory.

mod broker;
mod presence;

pub use broker::MemoryBroker;
pub use presence::MemoryPresence;
