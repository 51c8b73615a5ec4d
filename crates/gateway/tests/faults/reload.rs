//! The configuration changes under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::bench::{Bench, Setup, config};
use crate::figures::say;
use crate::{long_or, until};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a stage of its own: ./test faults"]
async fn f28_reload() {
    let provider = Provider::start().await;
    let setup = Setup::default();
    let mut bench = Bench::start(setup).await;
    bench.fault_begins().await;
    let rounds: u32 = long_or(50, 10);
    for round in 1..=rounds {
        let mut wanted = config(bench.redis.address(), &setup);
        wanted += &format!("[token]\nhmac_secret = \"the secret of round {round}, which is long enough\"\n");
        wanted += &format!("[[token.jwks]]\nurl = \"http://{}/{round}\"\n", provider.address);
        wanted += &format!("[admission]\nsubscribes = {}\n", 10_000 + round);
        wanted += &format!("[[namespace]]\nname = \"round{round}\"\nhistory_size = {round}\nhistory_ttl = \"1m\"\n");
        for gateway in &bench.gateways {
            gateway.configure(&wanted);
            gateway.signal(Signal::HUP);
        }
        for gateway in &bench.gateways {
            let applied =
                async || gateway.metric("fanwire_config_reloads_total", "\"applied\"").await >= f64::from(round);
            until(30 * SECOND, "the configuration is read", applied).await;
        }
    }
    let all = u64::from(rounds) * bench.gateways.len() as u64;
    until(30 * SECOND, "every key set is read", async || provider.reads.load(Ordering::Relaxed) >= all).await;
    // What is wrong changes nothing.
    for gateway in &bench.gateways {
        gateway.configure("[client]\nno_such_key = 1\n");
        gateway.signal(Signal::HUP);
        let refused = async || gateway.metric("fanwire_config_valid", "").await == 0.0;
        until(30 * SECOND, "the mistake is found", refused).await;
    }
    bench.fault_ends();
    say(&format!("  {rounds} configurations, {} key sets read", provider.reads.load(Ordering::Relaxed)));
    let figures = bench.finish(long_or("F28 50 configurations under load", "F28 10 configurations under load")).await;
    figures.assert_clean().assert_unnoticed();
    assert_eq!(figures.resubscribed, 0, "nobody was disconnected");
}

/// A provider of keys, gone with its owner. It has one, and is asked for it again and again.
struct Provider {
    address: SocketAddr,
    reads: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// The key of RFC 8037, appendix A.2.
const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, reads) = (listener.local_addr().expect("an address"), Arc::<AtomicU64>::default());
        let counted = Arc::clone(&reads);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    request.push(byte);
                }
                let length = KEYS.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{KEYS}");
                if stream.write_all(answer.as_bytes()).await.is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { address, reads, task }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}
