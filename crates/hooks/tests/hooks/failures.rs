//! Backends that are slow, dead, broken, or say nonsense.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire_node::hooks::{Hooks, Renewal};
use fanwire_wire::{Channel, Payload};
use futures_util::future::{join_all, pending, ready};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::backend::{Said, saying, serve};
use crate::{asker, hook, unanswered};

const FINE: &str = r#"{"result":{}}"#;

/// One that would go on, if only there were an answer.
fn on() -> Result<Renewal, fanwire_node::Failure> {
    Ok(Renewal::Until { expire_at: None, info: None })
}

#[tokio::test]
async fn nonsense_is_no_answer() {
    for said in [
        || Said::Status(500, FINE),
        || Said::Status(404, FINE),
        || Said::Json("{\"result\":"),
        || Said::Json("[1]"),
        || Said::Json("<html>"),
        || Said::Json(""),
        || Said::Json(r#"{"error":{"message":"no code"}}"#),
        || Said::Json(r#"{"disconnect":{"code":7}}"#),
        || Said::Json(r#"{"result":{"expire_at":-1}}"#),
        || Said::Body(format!("{{\"result\":{{\"b64info\":\"{}\"}}}}", "A".repeat(2 << 20)).into()),
    ] {
        let backend = serve(Arc::new(move |_| Box::pin(ready(said())))).await;
        let hooks = hook(&format!("http://{}/", backend.address), "timeout = \"10s\"");
        assert_eq!(hooks.refresh("a", asker()).await, unanswered());
        assert_eq!(backend.asked.lock().len(), 1, "asking again would bring the same");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = saying(FINE).await;
    let to = format!("http://{}/", elsewhere.address);
    let backend = serve(Arc::new(move |_| Box::pin(ready(Said::Redirect(to.clone()))))).await;
    let hooks = hook(&format!("http://{}/", backend.address), "");
    assert_eq!(hooks.refresh("a", asker()).await, unanswered());
    assert!(elsewhere.asked.lock().is_empty());
}

#[tokio::test]
async fn a_backend_that_hangs_costs_the_timeout() {
    let backend = serve(Arc::new(|_| Box::pin(pending()))).await;
    let hooks = hook(&format!("http://{}/", backend.address), "timeout = \"50ms\"\nretries = 5");
    assert_eq!(hooks.refresh("a", asker()).await, unanswered());
    assert_eq!(backend.asked.lock().len(), 1, "there is no time for another");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(hook(&url, "").refresh("a", asker()).await, unanswered());
    assert_eq!(hook("http://does-not-exist.invalid/", "").refresh("a", asker()).await, unanswered());
}

#[tokio::test]
async fn what_may_be_repeated_is() {
    let recovering =
        || serve(Arc::new(|n| Box::pin(ready(if n == 0 { Said::Status(503, "") } else { Said::Json(FINE) }))));
    let backend = recovering().await;
    let hooks = hook(&format!("http://{}/", backend.address), "timeout = \"10s\"");
    assert_eq!(hooks.refresh("a", asker()).await, on());
    assert_eq!(backend.asked.lock().len(), 2);
    // A publication may have had an effect.
    let backend = recovering().await;
    let hooks = hook(&format!("http://{}/", backend.address), "timeout = \"10s\"");
    let channel = Channel::new("chat").unwrap();
    assert_eq!(hooks.publish("a", asker(), channel, Payload::json("1".into())).await, unanswered());
    assert_eq!(hooks.rpc("a", asker(), String::new(), None).await, Ok(None));
    assert_eq!(backend.asked.lock().len(), 2);
}

#[tokio::test]
async fn more_than_allowed_are_refused_at_once() {
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let backend = serve(Arc::new(move |_| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            gate.notified().await;
            Said::Json(FINE)
        })
    }))
    .await;
    let hooks = hook(&format!("http://{}/", backend.address), "timeout = \"30s\"\nmax_in_flight = 3");
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(hooks.refresh("a", asker()))).collect();
    while backend.asked.lock().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(hooks.refresh("a", asker()).await, unanswered());
    assert_eq!(backend.asked.lock().len(), 3);
    // Whoever gives up makes room.
    waiting[0].abort();
    while hooks.refresh("a", asker()).now_or_pending().await.is_some() {
        tokio::task::yield_now().await;
    }
    go.notify_waiters();
    for waiting in waiting.into_iter().skip(1) {
        assert_eq!(waiting.await.unwrap(), on());
    }
}

#[tokio::test]
async fn a_dead_backend_is_left_alone_until_it_answers() {
    let well = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&well);
    let backend = serve(Arc::new(move |_| {
        let said = if state.load(Ordering::Relaxed) { Said::Json(FINE) } else { Said::Status(503, "") };
        Box::pin(ready(said))
    }))
    .await;
    let hooks = hook(&format!("http://{}/", backend.address), "retries = 0");
    for _ in 0..200 {
        assert_eq!(hooks.refresh("a", asker()).await, unanswered());
    }
    // Ten in a row, and perhaps a probe, on a slow machine.
    let asked = backend.asked.lock().len();
    assert!((10..20).contains(&asked), "{asked}");
    well.store(true, Ordering::Relaxed);
    while hooks.refresh("a", asker()).await == unanswered() {
        tokio::task::yield_now().await;
    }
    assert_eq!(join_all((0..20).map(|_| hooks.refresh("a", asker()))).await, vec![on(); 20]);
}

#[tokio::test]
async fn odd_requests_of_one_client_shut_nobody_out() {
    let backend =
        serve(Arc::new(|n| Box::pin(ready(if n < 50 { Said::Status(500, "") } else { Said::Json(FINE) })))).await;
    let hooks = hook(&format!("http://{}/", backend.address), "");
    for _ in 0..50 {
        assert_eq!(hooks.refresh("a", asker()).await, unanswered());
    }
    assert_eq!(hooks.refresh("a", asker()).await, on());
}

#[test]
fn metrics_tell_what_happened() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let backend =
                serve(Arc::new(|n| Box::pin(ready(if n < 1 { Said::Json(FINE) } else { Said::Status(503, "") }))))
                    .await;
            let hooks = hook(&format!("http://{}/", backend.address), "retries = 0");
            for _ in 0..12 {
                let _ = hooks.refresh("a", asker()).await;
            }
        });
    });
    let text = handle.render();
    let count = |outcome: &str| {
        let series = format!("fanwire_hook_requests_total{{hook=\"a\",event=\"refresh\",outcome=\"{outcome}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&*series))
            .unwrap_or_else(|| panic!("{outcome}:\n{text}"))
            .to_owned()
    };
    assert_eq!([count("ok"), count("status"), count("open"), count("timeout")], ["1", "10", "1", "0"]);
    for line in [
        "fanwire_hook_open{hook=\"a\"} 1",
        "fanwire_hook_in_flight{hook=\"a\"} 0",
        "fanwire_hook_seconds_count{hook=\"a\"} 11",
    ] {
        assert!(text.contains(line), "{line} not in:\n{text}");
    }
}

/// Polls a question a few times: what has no place is refused at once.
trait NowOrPending: Future + Sized + Unpin {
    async fn now_or_pending(self) -> Option<Self::Output> {
        tokio::time::timeout(Duration::from_millis(20), self).await.ok()
    }
}

impl<F: Future + Unpin> NowOrPending for F {}
