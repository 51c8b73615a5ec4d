//! Faults: real `fanwire` processes, a real Redis server, clients of a foreign WebSocket library, and what breaks between
//! them. Minutes of load, so a stage of its own: `./test faults` (`FANWIRE_FAULTS=long` for the full lengths).
//!
//! Each test breaks one thing under load, prints a line of figures, and has every subscriber's log judged by
//! `fanwire_testkit::oracle`. docs/reliability.md says what was found.
//!
//! - the faults: [`redis_down`], [`subscriber_leg`], [`network`], [`nodes`], [`half_open`], [`overload`], [`wrong_clock`],
//!   [`reload`], and [`all_at_once`]
//! - [`bench`]: a cluster under load, from its start to the verdict; [`figures`]: what is printed
//! - the parts of a cluster: [`gateway`], [`redis`], [`proxy`]; its users: [`publisher`], [`subscriber`], [`crowd`]
//! - where a gateway may live: [`home`], [`netns`], [`control_group`], [`clock`]

mod all_at_once;
mod bench;
mod clock;
mod control_group;
mod crowd;
mod figures;
mod gateway;
mod half_open;
mod home;
mod http;
mod netns;
mod network;
mod nodes;
mod overload;
mod proxy;
mod publisher;
mod redis;
mod redis_down;
mod reload;
mod resp;
mod subscriber;
mod subscriber_leg;
mod wrong_clock;

use std::time::Duration;

/// The shorter length, or the full one with `FANWIRE_FAULTS=long`.
fn long_or<T>(long: T, short: T) -> T {
    if is_long() { long } else { short }
}

#[allow(clippy::disallowed_methods, reason = "how long the faults last is up to whoever runs the tests")]
fn is_long() -> bool {
    std::env::var("FANWIRE_FAULTS").is_ok_and(|value| value == "long")
}

/// Waits for something that has to come, and says what did not.
async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(limit, work).await else { panic!("waited {limit:?} in vain: {what}") };
    done
}

/// Asks again and again until the answer is yes.
async fn until(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> bool) {
    within(limit, what, async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
