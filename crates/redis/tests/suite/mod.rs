//! Everything a broker and a presence must do.

use std::cell::Cell;
use std::sync::Arc;

use fanwire_node::Dispatcher;
use fanwire_redis::{Config, Redis};
use fanwire_testkit::conformance;
use tokio::task::LocalSet;

/// Runs all suites; `config` makes the configuration of a node with this prefix.
pub(crate) async fn suite(config: impl Fn(&str) -> Config) {
    let case = Cell::new(0);
    let broker = async |dispatcher| {
        case.set(case.get() + 1);
        start(&config(&format!("fanwire-{}", case.get())), dispatcher).broker
    };
    let presence = async |prefix: &str, dispatcher| {
        let Redis { broker, presence, .. } = start(&config(prefix), dispatcher);
        let pair: conformance::Pair = (Box::new(broker), Arc::new(presence));
        pair
    };
    let suites = async {
        conformance::broker(broker).await;
        conformance::broker_of_two(async |dispatcher| start(&config("fanwire-both"), dispatcher).broker).await;
        conformance::presence(async |dispatcher| presence("fanwire-one", dispatcher).await).await;
        conformance::presence_of_two(async |dispatcher| presence("fanwire-two", dispatcher).await).await;
    };
    LocalSet::new().run_until(suites).await;
}

pub(crate) fn start(config: &Config, dispatcher: Arc<Dispatcher>) -> Redis {
    fanwire_redis::start(config, dispatcher).expect("a good configuration")
}
