//! The memory broker and presence do what every one must.

use fanwire_node::{MemoryBroker, MemoryPresence};
use fanwire_testkit::conformance;
use tokio::task::LocalSet;

#[test]
fn memory_broker() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, conformance::broker(async |dispatcher| MemoryBroker::new(dispatcher)));
}

#[tokio::test]
async fn memory_presence() {
    conformance::presence(&MemoryPresence::default()).await;
}
