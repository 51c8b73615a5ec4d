//! One node believes that it is another day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::bench::{Bench, Setup};
use crate::clock::Clock;
use crate::crowd::{Attention, Crowd, open};
use crate::figures::say;
use crate::gateway::Gateway;
use crate::home::Home;
use crate::long_or;

const SECRET: &str = "a secret of thirty-two bytes or more";
const TOKENS: &str = "[token]\nhmac_secret = \"a secret of thirty-two bytes or more\"";

/// Codes of the native protocol: the token has expired.
const EXPIRED: u64 = 109;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f20_wrong_clock() {
    // Who comes back asks for what it missed: the node remembers by its clock, too.
    let setup = Setup { client: "anonymous = true", more: TOKENS, ..Setup::default() };
    let mut bench = Bench::start_in(setup, Home::Clock(Clock::new())).await;
    let connect = json!({ "token": token(Duration::from_secs(3600)) });
    let crowd =
        Crowd::gather(bench.gateways[0].public, 50, connect.clone(), |_| "plain:0".to_owned(), Attention::Full).await;
    bench.fault_begins().await;
    bench.restless(true).await;
    for (offset, refused) in [("+1d", Some(EXPIRED)), ("-1h", Some(EXPIRED)), ("+0", None)] {
        let Home::Clock(clock) = bench.home() else { unreachable!() };
        clock.set(offset);
        sleep(Duration::from_secs(long_or(20, 3))).await;
        assert_eq!(answer(&bench.gateways[0], &connect).await["error"]["code"].as_u64(), refused, "at {offset}");
        assert!(answer(&bench.gateways[1], &connect).await["connect"].is_object(), "the others know better");
        for gateway in &bench.gateways {
            let expired = gateway.metric("fanwire_disconnects_total", "\"expired\"").await;
            assert_eq!(expired, 0.0, "at {offset}: a term that runs is measured by what runs on");
        }
    }
    bench.fault_ends();
    bench.until_ready().await;
    bench.restless(false).await;
    assert_eq!(crowd.left(), 0, "everybody is still there");
    let stays = bench.gateways[0].metric("fanwire_nodes", "").await;
    say(&format!("  it sees {stays} nodes"));
    let figures = bench.finish("F20 the clock of one node a day ahead, then an hour behind").await;
    figures.assert_clean();
    assert_eq!((figures.report.told, figures.report.failed_recoveries), (0, 0), "nobody lost anything");
}

/// What a gateway answers to somebody who connects.
async fn answer(gateway: &Gateway, connect: &Value) -> Value {
    open(gateway.public, connect, None).await.1
}

/// A token made now, by the right clock, for so long.
fn token(lives: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({ "sub": "ann", "iat": now, "exp": now + lives.as_secs() });
    fanwire_auth::mint::hs256(&claims, SECRET.as_bytes()).expect("a token")
}
