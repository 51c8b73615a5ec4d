//! What is asked, and what becomes of the answers.

use fanwire_node::Failure;
use fanwire_node::authorizer::Grant;
use fanwire_node::hooks::{BackendError, ConnectQuestion, Hooks, Renewal};
use fanwire_wire::{Channel, Disconnect, Payload};
use serde_json::json;
use std::sync::atomic::Ordering;

use crate::backend::saying;
use crate::{asker, hook};

fn channel() -> Channel {
    Channel::new("chat:1").expect("a good name")
}

#[tokio::test]
async fn questions_say_who_and_what() {
    let backend = saying(r#"{"result":{}}"#).await;
    let hooks = hook(&format!("http://{}/ask?x=1", backend.address), "include_meta = true");
    let question = ConnectQuestion {
        name: "js".to_owned(),
        version: "5".to_owned(),
        data: Some(Payload::json("[1]".into())),
        channels: vec!["news".to_owned()],
    };
    hooks.connect("a", asker(), question).await.unwrap();
    hooks.refresh("a", asker()).await.unwrap();
    hooks.subscribe("a", asker(), channel(), None).await.unwrap();
    hooks.publish("a", asker(), channel(), Payload::binary(vec![0, 1].into())).await.unwrap();
    hooks.rpc("a", asker(), "add".to_owned(), Some(Payload::json("{\"n\":1}".into()))).await.unwrap();
    hooks.sub_refresh("a", asker(), channel()).await.unwrap();

    let asked: Vec<_> = backend.asked.lock().iter().map(|asked| asked.json()).collect();
    let about = |more: serde_json::Value| {
        let mut value = json!({"client": "c1", "transport": "websocket", "protocol": "json", "encoding": "json"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        value
    };
    let meta = json!({"m": 1});
    assert_eq!(
        asked,
        [
            about(json!({"name": "js", "version": "5", "data": [1], "channels": ["news"]})),
            about(json!({"user": "42", "meta": meta})),
            about(json!({"user": "42", "channel": "chat:1", "meta": meta})),
            about(json!({"user": "42", "channel": "chat:1", "b64data": "AAE=", "meta": meta})),
            about(json!({"user": "42", "method": "add", "data": {"n": 1}, "meta": meta})),
            about(json!({"user": "42", "channel": "chat:1", "meta": meta})),
        ]
    );
    let asked = backend.asked.lock();
    assert!(asked.iter().all(|asked| asked.path == "/ask" && asked.headers["content-type"] == "application/json"));
    assert_eq!(backend.connections.load(Ordering::Relaxed), 1, "one connection serves one after the other");
}

#[tokio::test]
async fn headers_pass_only_if_allowed() {
    let backend = saying(r#"{"result":{}}"#).await;
    let url = format!("http://{}/", backend.address);
    let all = "headers = [\"Cookie\", \"X-Both\"]\nclient_headers = [\"Authorization\", \"X-Both\", \"X-Bad\"]\n\
               static_headers = { X-Key = \"k\" }";
    hook(&url, all).refresh("a", asker()).await.unwrap();
    hook(&url, "").refresh("a", asker()).await.unwrap();
    let asked = backend.asked.lock();
    let header = |index: usize, name: &str| asked[index].headers.get(name).map(String::as_str);
    assert_eq!(header(0, "cookie"), Some("b=2"), "the last of two lines; both are sent");
    assert_eq!(header(0, "authorization"), Some("Bearer x"));
    assert_eq!(header(0, "x-both"), Some("opening"), "what a proxy can vouch for has precedence");
    assert_eq!(header(0, "x-key"), Some("k"));
    for name in ["x-bad", "b"] {
        assert_eq!(header(0, name), None, "{name}");
    }
    for name in ["cookie", "authorization", "x-both", "x-key"] {
        assert_eq!(header(1, name), None, "{name}");
    }
}

#[tokio::test]
async fn answers_are_results_errors_or_ends() {
    let answered = async |json: &'static str| {
        let backend = saying(json).await;
        hook(&format!("http://{}/", backend.address), "").subscribe("a", asker(), channel(), None).await
    };
    let grant = answered(r#"{"result":{"info":{"a":1},"expire_at":1900000000}}"#).await.unwrap();
    assert_eq!(grant, Grant { info: Some("{\"a\":1}".into()), expire_at: Some(1_900_000_000), ..Grant::default() });
    let error = BackendError { code: 403, message: "no".into(), temporary: false };
    assert_eq!(answered(r#"{"error":{"code":403,"message":"no"}}"#).await, Err(Failure::Backend(error)));
    let end = Disconnect::Application { code: 4501, reason: "bye".into() };
    assert_eq!(answered(r#"{"disconnect":{"code":4501,"reason":"bye"}}"#).await, Err(Failure::Disconnect(end)));
}

#[tokio::test]
async fn a_refresh_without_a_result_is_the_end() {
    let backend = saying("{}").await;
    let hooks = hook(&format!("http://{}/", backend.address), "");
    assert_eq!(hooks.refresh("a", asker()).await, Ok(Renewal::Expired));
    assert_eq!(hooks.sub_refresh("a", asker(), channel()).await, Ok(Renewal::Expired));
}

#[tokio::test]
async fn everything_is_base64_where_that_is_wanted() {
    let backend = saying(r#"{"result":{"b64data":"AAE="}}"#).await;
    let hooks = hook(&format!("http://{}/", backend.address), "binary = true");
    let answer = hooks.rpc("a", asker(), String::new(), Some(Payload::json("1".into()))).await.unwrap();
    assert_eq!(answer.unwrap().bytes(), &[0, 1][..]);
    let asked = backend.asked.lock()[0].json();
    assert_eq!((&asked["b64data"], asked.get("data"), asked.get("method")), (&json!("MQ=="), None, None));
}
