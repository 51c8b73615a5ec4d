//! Hooks that change while the node runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanwire_hooks::{Backends, Wanted};
use fanwire_node::hooks::{Hooks, Kept, Renewal};
use futures_util::future::{join_all, pending, ready};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::backend::{Said, saying, serve};
use crate::{asker, section, unanswered};

const FINE: &str = r#"{"result":{}}"#;

fn on() -> Result<Renewal, fanwire_node::Failure> {
    Ok(Renewal::Until { expire_at: None, info: None })
}

#[tokio::test]
async fn a_hook_that_stays_keeps_its_connections() {
    let (stays, before, after) = tokio::join!(saying(FINE), saying(FINE), saying(FINE));
    let url = |backend: &crate::backend::Backend| format!("http://{}/", backend.address);
    let stay = section("stays", &url(&stays), "headers = [\"cookie\"]");
    let running = [stay.clone(), section("moves", &url(&before), ""), section("goes", &url(&before), "")];
    let hooks = Backends::new(&running, &Handle::current()).unwrap();
    for name in ["stays", "moves", "goes"] {
        assert_eq!(hooks.refresh(name, asker()).await, on());
    }
    let same = Wanted::new(&running).unwrap();
    assert_eq!(hooks.changed(&same), Vec::<String>::new());

    let wanted =
        [stay, section("moves", &url(&after), "client_headers = [\"X-New\"]"), section("comes", &url(&after), "")];
    let wanted = Wanted::new(&wanted).unwrap();
    assert_eq!(hooks.changed(&wanted), ["comes", "goes", "moves"]);
    // The node has a clone.
    let clone = hooks.clone();
    hooks.replace(wanted);
    for (name, expected) in [("stays", on()), ("moves", on()), ("comes", on()), ("goes", unanswered())] {
        assert_eq!(clone.refresh(name, asker()).await, expected, "{name}");
    }
    let connections = |backend: &crate::backend::Backend| backend.connections.load(Ordering::Relaxed);
    assert_eq!((connections(&stays), before.asked.lock().len(), after.asked.lock().len()), (1, 2, 2));
    let kept = Kept { headers: vec!["cookie".to_owned()], client_headers: vec!["x-new".to_owned()] };
    assert_eq!(*clone.keeps(), kept);
}

#[tokio::test]
async fn what_is_wrong_is_told_and_changes_nothing() {
    let mistakes = Wanted::new(&[section("a", "http://x/", ""), section("a", "ftp://x/", "")]).unwrap_err();
    let told = mistakes.join("\n");
    assert!(told.contains("defined twice") && told.contains("url: must be"), "{told}");
}

#[tokio::test]
async fn the_sins_of_a_backend_are_not_those_of_the_next() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let silent = serve(Arc::new(|_| Box::pin(pending()))).await;
    let url = format!("http://{}/", silent.address);
    let hooks = Backends::new(&[section("a", &url, "timeout = \"50ms\"")], &Handle::current()).unwrap();
    join_all((0..20).map(|_| hooks.refresh("a", asker()))).await;
    assert!(handle.render().contains("fanwire_hook_open{hook=\"a\"} 1"), "{}", handle.render());

    // One is under way to the old backend while the new one takes its place: its failure says nothing about the new one.
    let (come, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&come), Arc::clone(&go));
    let slow = serve(Arc::new(move |_| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        Box::pin(async move {
            tell.notify_one();
            wait.notified().await;
            Said::Json(FINE)
        })
    }))
    .await;
    hooks.replace(Wanted::new(&[section("a", &format!("http://{}/", slow.address), "timeout = \"30s\"")]).unwrap());
    assert!(handle.render().contains("fanwire_hook_open{hook=\"a\"} 0"), "{}", handle.render());
    let under_way = tokio::spawn(hooks.refresh("a", asker()));
    come.notified().await;
    let good = serve(Arc::new(|_| Box::pin(ready(Said::Json(FINE))))).await;
    hooks.replace(Wanted::new(&[section("a", &format!("http://{}/", good.address), "")]).unwrap());
    assert_eq!(hooks.refresh("a", asker()).await, on());
    assert!(handle.render().contains("fanwire_hook_in_flight{hook=\"a\"} 1"), "{}", handle.render());
    go.notify_one();
    assert_eq!(under_way.await.unwrap(), on(), "answered by whom it was asked");
    assert!(handle.render().contains("fanwire_hook_in_flight{hook=\"a\"} 0"), "{}", handle.render());
}
