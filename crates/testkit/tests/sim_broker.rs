//! The simulated broker does what every broker must.

use std::cell::Cell;

use fanwire_testkit::conformance;
use fanwire_testkit::sim::{Server, SimBroker};
use tokio::task::LocalSet;

#[test]
fn one_node() {
    let seed = Cell::new(0);
    let make = async |dispatcher| {
        seed.set(seed.get() + 1);
        SimBroker::new(&Server::new(seed.get(), 1), 0, dispatcher, None)
    };
    paused(conformance::broker(make));
}

#[test]
fn two_nodes() {
    let node = Cell::new(0);
    paused(async {
        let server = Server::new(1, 2);
        let make = async |dispatcher| SimBroker::new(&server, node.replace(node.get() + 1), dispatcher, None);
        conformance::broker_of_two(make).await;
    });
}

fn paused(suite: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), suite);
}
