//! Everything a broker and a presence must do.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::Dispatcher;
use fanwire_redis::{Config, Health, Redis};
use fanwire_testkit::conformance;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// Runs all suites; `config` makes the configuration of a node with this prefix. They are not about time: an answer may take
/// as long as it does on a busy machine.
pub(crate) async fn suite(config: impl Fn(&str) -> Config) {
    let config = |prefix: &str| Config { timeout: Duration::from_secs(10), ..config(prefix) };
    let case = Cell::new(0);
    let broker = async |dispatcher| {
        case.set(case.get() + 1);
        up(start(&config(&format!("fanwire-{}", case.get())), dispatcher)).await.broker
    };
    let presence = async |prefix: &str, dispatcher| {
        let Redis { broker, presence, .. } = up(start(&config(prefix), dispatcher)).await;
        let pair: conformance::Pair = (Box::new(broker), Arc::new(presence));
        pair
    };
    let suites = async {
        conformance::broker(broker).await;
        conformance::broker_of_two(async |dispatcher| up(start(&config("fanwire-both"), dispatcher)).await.broker)
            .await;
        conformance::presence(async |dispatcher| presence("fanwire-one", dispatcher).await).await;
        conformance::presence_of_two(async |dispatcher| presence("fanwire-two", dispatcher).await).await;
    };
    LocalSet::new().run_until(suites).await;
}

/// Waits until everything arrives: many TLS handshakes in a debug build take their time.
async fn up(redis: Redis) -> Redis {
    until_up(&redis.health).await;
    redis
}

pub(crate) async fn until_up(health: &Health) {
    let up = async {
        while !health.is_up() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), up).await.expect("connected");
}

pub(crate) fn start(config: &Config, dispatcher: Arc<Dispatcher>) -> Redis {
    fanwire_redis::start(config, dispatcher).expect("a good configuration")
}
