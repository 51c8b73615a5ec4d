//! What each key may do, and how often.

use fanwire_control::{Changes, Reload, Scope};

use super::*;

/// Each method with the scope it needs, and parameters that are about the channel `chat:1`.
fn methods() -> Vec<(&'static str, Scope, Value)> {
    let channel = json!({"channel": "chat:1"});
    let user = json!({"user": "42"});
    let both = json!({"user": "42", "channel": "chat:1"});
    vec![
        ("publish", Scope::Publish, json!({"channel": "chat:1", "data": 1})),
        ("broadcast", Scope::Publish, json!({"channels": ["chat:1", "chat:2"], "data": 1})),
        ("presence", Scope::Read, channel.clone()),
        ("presence_stats", Scope::Read, channel.clone()),
        ("history", Scope::Read, channel.clone()),
        ("channels", Scope::Read, json!({})),
        ("connections", Scope::Read, json!({"channel": "chat:1"})),
        ("info", Scope::Read, json!({})),
        ("nodes", Scope::Read, json!({})),
        ("report", Scope::Read, json!({})),
        ("subscribe", Scope::Disconnect, both.clone()),
        ("unsubscribe", Scope::Disconnect, both),
        ("disconnect", Scope::Disconnect, user.clone()),
        ("refresh", Scope::Disconnect, user.clone()),
        ("revoke", Scope::Disconnect, user),
        ("history_remove", Scope::Admin, channel),
        ("drain", Scope::Admin, json!({})),
        ("rebalance", Scope::Admin, json!({})),
        ("reload", Scope::Admin, json!({"dry_run": true})),
    ]
}

/// One secret for each key of a test.
pub(crate) fn secret_of(name: &str) -> String {
    format!("{name}-0123456789abcdef")
}

pub(crate) fn key(name: &str) -> ApiKey {
    ApiKey { name: name.into(), secret: Some(secret_of(name)), ..ApiKey::default() }
}

fn patterns(patterns: &[&str]) -> Option<Vec<String>> {
    Some(patterns.iter().map(|&pattern| pattern.to_owned()).collect())
}

/// Runs `test` with these keys, on a namespace `chat` with everything on.
fn with(keys: &[ApiKey], test: impl AsyncFnOnce(&Harness, &Api)) {
    with_audit(keys, Audit::All, test);
}

pub(crate) fn with_audit(keys: &[ApiKey], audit: Audit, test: impl AsyncFnOnce(&Harness, &Api)) {
    let config = Config { namespaces: vec![Namespace::open("chat")], ..Config::default() };
    let keys = Keys::load(keys).expect("good keys");
    harness::run(config, async |harness| {
        let (reader, mut wishes) = tokio::sync::mpsc::channel::<Reload>(1);
        let reading = async move {
            while let Some(Reload { dry_run, answer }) = wishes.recv().await {
                assert!(dry_run);
                answer.send(Ok(Changes::default())).expect("somebody waits");
            }
        };
        tokio::task::spawn_local(reading);
        test(harness, &Api::new(Arc::clone(&harness.node), &keys, audit).with_reader(reader)).await;
    });
}

/// Posts with the key of a name.
async fn ask(api: &Api, name: &str, path: &str, params: &Value) -> (StatusCode, Value) {
    ask_with(api, &secret_of(name), path, params).await
}

async fn ask_with(api: &Api, secret: &str, path: &str, params: &Value) -> (StatusCode, Value) {
    let request = Request::post(path).header("X-API-Key", secret).body(params.to_string().into()).expect("a request");
    let response = api.handle(request).await;
    (response.status(), answer(&response))
}

#[test]
fn every_method_needs_its_scope_and_no_other() {
    let keys = Scope::ALL.map(|scope| ApiKey { scopes: Some(vec![scope]), ..key(scope.name()) });
    with(&keys, async |harness, api| {
        let _client = harness.probe("user:42").await;
        // The list of methods that a stranger to the API is told is complete: so must this one be.
        let (_, unknown) = ask(api, "admin", "/api/nothing", &json!({})).await;
        let told = unknown["error"]["message"].as_str().unwrap().split_once("and ").unwrap().1;
        let told: Vec<_> = told.split([',', ' ']).filter(|word| !word.is_empty() && *word != "or").collect();
        let listed: Vec<_> = methods().iter().map(|(method, ..)| *method).chain(["batch"]).collect();
        assert!(told.iter().all(|method| listed.contains(method)) && told.len() == listed.len(), "{told:?}");

        for (method, needed, params) in methods() {
            for scope in Scope::ALL {
                let (path, name) = (format!("/api/{method}"), scope.name());
                let (status, answer) = ask(api, name, &path, &params).await;
                let batch = json!({"commands": [{(method): params}]});
                let (batch_status, batch) = ask(api, name, "/api/batch", &batch).await;
                let line = json!({"method": method, "params": params});
                let (line_status, line) = ask(api, name, "/api", &line).await;
                assert_eq!((batch_status, line_status), (StatusCode::OK, StatusCode::OK));
                if scope == needed {
                    assert_eq!((status, &answer["error"]), (StatusCode::OK, &Value::Null), "{method} {name}");
                    assert!(batch["replies"][0][method].is_object(), "{method} {name}: {batch}");
                    assert!(line["result"].is_object(), "{method} {name}: {line}");
                } else {
                    let message = format!(
                        "permission denied: {method} needs the scope {}, which the key \"{name}\" lacks",
                        needed.name()
                    );
                    let error = json!({"code": 103, "message": message});
                    assert_eq!((status, answer), (StatusCode::FORBIDDEN, json!({"error": error})));
                    assert_eq!(batch, json!({"replies": [{"error": error}]}));
                    assert_eq!(line, json!({"error": error}));
                }
            }
        }
    });
}

#[test]
fn what_is_denied_is_not_done() {
    let keys = [ApiKey { scopes: Some(vec![Scope::Read]), ..key("reader") }, key("all")];
    with(&keys, async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("chat:1").await.unwrap();
        for (method, needed, params) in methods() {
            let (status, _) = ask(api, "reader", &format!("/api/{method}"), &params).await;
            assert_eq!(status == StatusCode::OK, needed == Scope::Read);
        }
        harness.settle().await;
        assert!(!client.is_gone());
        let (_, history) = ask(api, "all", "/api/history", &json!({"channel": "chat:1"})).await;
        assert_eq!(history["result"]["offset"], 0);
    });
}

#[test]
fn a_key_has_its_channels() {
    let keys = [
        ApiKey { channels: patterns(&["chat:1", "chat:public-*"]), ..key("some") },
        ApiKey { channels: patterns(&["chat:2"]), ..key("other") },
        key("all"),
    ];
    with(&keys, async |harness, api| {
        let client = harness.probe("user:42").await;
        for channel in ["chat:1", "chat:2", "chat:public-1"] {
            client.subscribe(channel).await.unwrap();
        }
        for (method, _, params) in methods() {
            let path = format!("/api/{method}");
            let about_a_channel = params.get("channel").or(params.get("channels")).is_some();
            let (status, answer) = ask(api, "other", &path, &params).await;
            if about_a_channel {
                assert_eq!((status, &answer["error"]["code"]), (StatusCode::FORBIDDEN, &json!(103)), "{method}");
                let message = answer["error"]["message"].as_str().unwrap();
                assert!(message.ends_with("the key \"other\" is not for the channel \"chat:1\""), "{message}");
            } else if method != "disconnect" {
                assert_eq!(status, StatusCode::OK, "{method}");
            }
        }
        // A list shows what the key is for, and no more.
        let client = harness.probe("user:43").await;
        for channel in ["chat:1", "chat:2", "chat:public-1"] {
            client.subscribe(channel).await.unwrap();
        }
        for (name, seen) in [
            ("some", &["chat:1", "chat:public-1"][..]),
            ("other", &["chat:2"]),
            ("all", &["chat:1", "chat:2", "chat:public-1"]),
        ] {
            let (_, answer) = ask(api, name, "/api/channels", &json!({})).await;
            let channels: Vec<_> = answer["result"]["channels"].as_object().unwrap().keys().collect();
            assert_eq!(channels, seen);
        }
        // One that is not permitted is enough: nothing is published.
        let names = json!({"channels": ["chat:1", "chat:2"], "data": 1});
        let (status, _) = ask(api, "some", "/api/broadcast", &names).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        // What the method does not look at opens nothing.
        for (method, params) in [
            ("publish", json!({"channel": "chat:2", "channels": ["chat:1"], "data": 1})),
            ("broadcast", json!({"channel": "chat:1", "channels": ["chat:2"], "data": 1})),
        ] {
            let (status, _) = ask(api, "some", &format!("/api/{method}"), &params).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method}");
        }
        for channel in ["chat:1", "chat:2"] {
            let (_, history) = ask(api, "all", "/api/history", &json!({"channel": channel})).await;
            assert_eq!(history["result"]["offset"], 0);
        }
    });
}

#[test]
fn a_key_has_its_rate() {
    let keys = [ApiKey { rate: 10, burst: 3, ..key("slow") }, key("fast")];
    with(&keys, async |harness, api| {
        let publish = json!({"channel": "chat:1", "data": 1});
        for _ in 0..3 {
            assert_eq!(ask(api, "slow", "/api/publish", &publish).await.0, StatusCode::OK);
        }
        let request = Request::post("/api/publish").header("X-API-Key", secret_of("slow"));
        let response = api.handle(request.body(publish.to_string().into()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "1");
        let message = "too many requests: the key \"slow\" has a rate of calls; again in 100 ms";
        assert_eq!(answer(&response), json!({"error": {"code": 111, "message": message}}));
        assert_eq!(ask(api, "fast", "/api/publish", &publish).await.0, StatusCode::OK);
        // In a batch each call counts for itself.
        harness.pass(Duration::from_millis(200)).await;
        let commands = vec![json!({"publish": publish}); 3];
        let (status, batch) = ask(api, "slow", "/api/batch", &json!({"commands": commands})).await;
        assert_eq!((status, &batch["replies"][1]["error"]), (StatusCode::OK, &Value::Null));
        assert_eq!(batch["replies"][2]["error"]["code"], 111);
        // A broadcast counts for as many channels as it has.
        harness.pass(Duration::from_millis(100)).await;
        let broadcast = json!({"channels": ["chat:1", "chat:2", "chat:3", "chat:4"], "data": 1});
        assert_eq!(ask(api, "slow", "/api/broadcast", &broadcast).await.0, StatusCode::OK);
        harness.pass(Duration::from_millis(300)).await;
        assert_eq!(ask(api, "slow", "/api/publish", &publish).await.0, StatusCode::TOO_MANY_REQUESTS);
        harness.pass(Duration::from_millis(100)).await;
        assert_eq!(ask(api, "slow", "/api/publish", &publish).await.0, StatusCode::OK);
    });
}

#[test]
fn keys_are_changed_while_the_node_runs() {
    let both = ApiKey { secret: Some(format!("{}\n{}", secret_of("old"), secret_of("new"))), ..key("backend") };
    let only = |name| ApiKey { secret: Some(secret_of(name)), ..both.clone() };
    with(&[only("old"), ApiKey { rate: 1, ..key("slow") }], async |_, api| {
        let info = async |secret| ask_with(api, &secret_of(secret), "/api/info", &json!({})).await.0;
        assert_eq!((info("old").await, info("new").await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
        assert_eq!((info("slow").await, info("slow").await), (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS));
        // First both secrets are good, then the new one alone.
        let slow = ApiKey { rate: 1, ..key("slow") };
        api.replace_keys(&Keys::load(&[both.clone(), slow.clone()]).unwrap());
        assert_eq!((info("old").await, info("new").await), (StatusCode::OK, StatusCode::OK));
        // A key that stayed the same is no faster for it.
        assert_eq!(info("slow").await, StatusCode::TOO_MANY_REQUESTS);
        api.replace_keys(&Keys::load(&[only("new"), ApiKey { rate: 2, ..slow }]).unwrap());
        assert_eq!((info("old").await, info("new").await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
        assert_eq!(info("slow").await, StatusCode::OK);
        api.replace_keys(&Keys::load(&[]).unwrap());
        assert_eq!((info("new").await, info("slow").await), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    });
}

#[test]
fn calls_are_counted_by_key() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    harness::run(Config::default(), async |harness| {
        let keys = [ApiKey { scopes: Some(vec![Scope::Read]), rate: 1, burst: 2, ..key("reader") }];
        let keys = Keys::load(&keys).unwrap();
        let node = Arc::clone(&harness.node);
        let api = metrics::with_local_recorder(&recorder, || Api::new(node, &keys, Audit::Off));
        ask(&api, "reader", "/api/info", &json!({})).await;
        ask(&api, "reader", "/api/publish", &json!({"channel": "a", "data": 1})).await;
        ask(&api, "reader", "/api/history", &json!({"channel": "nowhere:1"})).await;
        ask(&api, "reader", "/api/batch", &json!({"commands": [{"info": {}}]})).await;
        ask(&api, "reader", "/api/info", &json!([])).await;
        let text = recorder.handle().render();
        for (outcome, count) in
            [("ok", 1), ("denied", 1), ("error", 1), ("limited", 2), ("malformed", 0), ("unauthorized", 0)]
        {
            let line = format!("fanwire_api_key_requests_total{{key=\"reader\",outcome=\"{outcome}\"}} {count}\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        let denied = "fanwire_api_requests_total{method=\"publish\",outcome=\"denied\"} 1\n";
        assert!(text.contains(denied), "{text}");
    });
}
