//! Keys, routes, and bodies that lead to no call.

use super::*;

async fn status(api: &Api, request: http::request::Builder) -> StatusCode {
    api.handle(request.body(Bytes::new()).expect("a request")).await.status()
}

fn to(uri: &str) -> http::request::Builder {
    Request::post(uri)
}

#[test]
fn keys_open_the_door() {
    run(async |_, api| {
        let info = "/api/info";
        for admitted in [
            to(info).header("X-API-Key", SECRET),
            to(info).header("x-api-key", SECRET),
            to(info).header("Authorization", format!("apikey {SECRET}")),
            to(info).header("Authorization", format!("ApiKey  {SECRET}")),
            to(&format!("/api/info?api_key={SECRET}")),
            to(&format!("/api/info?x=y&api_key=%30{}", &SECRET[1..])),
            // With a key it matters to nobody whose page it is.
            to(info).header("X-API-Key", SECRET).header("Origin", "https://example.com"),
        ] {
            assert_eq!(status(api, admitted).await, StatusCode::OK);
        }
        for refused in [
            to(info),
            to(info).header("X-API-Key", ""),
            to(info).header("X-API-Key", "0123456789abcdeF"),
            to(info).header("X-API-Key", "0123456789abcdef0"),
            to(info).header("Authorization", SECRET),
            to(info).header("Authorization", format!("Bearer {SECRET}")),
            to(info).header("Authorization", vec![0xff; 20]),
            to("/api/info?api_key="),
            to(&format!("/api/info?xapi_key={SECRET}")),
            to("/api/info?api_key=%"),
            // The header counts, right or wrong.
            to(&format!("/api/info?api_key={SECRET}")).header("X-API-Key", "wrong"),
            // Who has no key learns nothing about methods.
            to("/api/nothing"),
            Request::get(info),
        ] {
            let shown = format!("{refused:?}");
            let response = api.handle(refused.body(Bytes::new()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{shown}");
            assert_eq!(response.headers()["www-authenticate"], "apikey");
            assert_eq!(answer(&response), json!({"error": {"code": 101, "message": "unauthorized"}}));
        }
    });
}

#[test]
fn without_keys_nobody_or_everybody_may_ask() {
    run(async |harness, _| {
        let closed = Api::new(Arc::clone(&harness.node), &Keys::load(&[]).unwrap(), Audit::All);
        assert_eq!(status(&closed, to("/api/info")).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&closed, to("/api/info").header("X-API-Key", "")).await, StatusCode::UNAUTHORIZED);
        let open = Api::new(Arc::clone(&harness.node), &Keys::open(), Audit::All);
        assert_eq!(status(&open, to("/api/info")).await, StatusCode::OK);
        assert_eq!(status(&open, to("/api/info").header("X-API-Key", "whatever")).await, StatusCode::OK);
        for origin in ["https://example.com", "null", "http://127.0.0.1:8010"] {
            assert_eq!(status(&open, to("/api/info").header("Origin", origin)).await, StatusCode::FORBIDDEN);
        }
    });
}

#[test]
fn paths_and_verbs() {
    run(async |_, api| {
        for path in ["/api/nothing", "/api/rpc", "/api/info/", "/api/INFO", "/apiinfo", "/"] {
            let (status, answer) = post(api, path, "{}").await;
            assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!(104)), "{path}");
            assert!(answer["error"]["message"].as_str().unwrap().contains("history_remove"));
        }
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let response = api.handle(request(method, "/api/publish", "")).await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()["allow"], "POST");
            assert_eq!(answer(&response)["error"]["code"], 107);
        }
    });
}

#[test]
fn bodies_that_cannot_be_read() {
    run(async |_, api| {
        for (method, body, word) in [
            ("publish", "{", "EOF"),
            ("publish", "nonsense", "object"),
            ("publish", "null", "object"),
            ("publish", "[\"channel\", [], {}]", "object"),
            ("publish", "{} {}", "trailing"),
            ("publish", "{\"channel\": 5}", "expected a string"),
            ("publish", "{\"channel\": \"a\", \"data\": }", "line 1"),
            ("publish", "{\"channel\": \"a\", \"data\": \"\u{1}\"}", "control character"),
            ("publish", "{\"channel\": \"a\", \"tags\": {\"a\": 1}}", "expected a string"),
            ("history", "{\"channel\": \"a\", \"limit\": 1e10}", "i32"),
            ("history", "{\"channel\": \"a\", \"since\": {\"offset\": -1}}", "u64"),
            ("disconnect", "{\"user\": \"42\", \"disconnect\": {\"code\": -1}}", "u32"),
            ("subscribe", "{\"user\": \"42\", \"override\": {\"presence\": true}}", "Flag"),
            ("batch", "[]", "object"),
            ("batch", "{\"commands\": 1}", "sequence"),
        ] {
            let (status, answer) = post(api, &format!("/api/{method}"), body).await;
            assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(107)), "{body}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("bad request: ") && message.contains(word), "{body}: {message}");
        }
        let response =
            api.handle(request(Method::POST, "/api/publish", &b"{\"channel\":\"a\",\"data\":\"\xff\"}"[..])).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    });
}

#[test]
fn nothing_and_unknown_fields_are_fine() {
    run(async |_, api| {
        for body in ["", " \n", "{}", " {\"since_version_9\": [1, {}]}"] {
            assert_eq!(post(api, "/api/channels", body).await, (StatusCode::OK, json!({"result": {"channels": {}}})));
        }
    });
}

#[test]
fn calls_are_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    run(async |harness, _| {
        let api = metrics::with_local_recorder(&recorder, || Api::new(Arc::clone(&harness.node), &keys(), Audit::All));
        let batch = json!({"commands": [{"info": {}}, {"publish": {}}]});
        for (path, body) in
            [("/api/info", "{}"), ("/api/info", "["), ("/api/batch", &batch.to_string()), ("/api/x", "")]
        {
            post(&api, path, body).await;
        }
        assert_eq!(status(&api, to("/api/info")).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&api, to("/api/secret-of-a-stranger")).await, StatusCode::UNAUTHORIZED);
        let text = recorder.handle().render();
        for (method, outcome, count) in [
            ("info", "ok", 2),
            ("info", "malformed", 1),
            ("info", "unauthorized", 1),
            ("publish", "error", 1),
            ("batch", "ok", 1),
            ("unknown", "error", 1),
            ("unknown", "unauthorized", 1),
            ("history", "ok", 0),
        ] {
            let line = format!("fanwire_api_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}} {count}\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        assert!(text.contains("fanwire_api_seconds_count{method=\"info\"} 3\n"), "{text}");
        assert!(!text.contains("stranger"));
    });
}

#[test]
fn a_listener_may_answer_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    run(async |_, api| is_send(api.handle(request(Method::POST, "/api/info", ""))));
}
