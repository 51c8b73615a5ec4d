//! The memory broker and presence do what every one must.

use std::sync::Arc;

use fanwire_node::{Dispatcher, MemoryBroker, MemoryPresence};
use fanwire_testkit::conformance;
use tokio::task::LocalSet;

#[test]
fn memory_broker() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, conformance::broker(async |dispatcher| MemoryBroker::new(dispatcher)));
}

#[tokio::test]
async fn memory_presence() {
    let make = async |dispatcher: Arc<Dispatcher>| {
        let broker = MemoryBroker::new(Arc::clone(&dispatcher));
        let pair: conformance::Pair = (Box::new(broker), Arc::new(MemoryPresence::new(dispatcher)));
        pair
    };
    LocalSet::new().run_until(conformance::presence(make)).await;
}
