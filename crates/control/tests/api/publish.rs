//! `publish` and `broadcast`.

use fanwire_testkit::FakeClient;

use super::*;

#[test]
fn a_publication_reaches_its_subscribers() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        harness.settle().await;
        let _ = client.take();
        let tags = json!({"lang": "en", "a": "b"});
        let published = result(api, "publish", json!({"channel": "news", "data": {"x": 1}, "tags": tags})).await;
        harness.settle().await;
        assert_eq!(published["offset"], 1);
        let epoch = published["epoch"].as_str().unwrap();
        let expected = json!({
            "pub": {"x": 1}, "channel": "news", "epoch": epoch, "offset": 1, "prev": 0,
            "tags": [["a", "b"], ["lang", "en"]],
        });
        assert_eq!(client.take(), [expected]);
    });
}

#[test]
fn an_event_has_a_name() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        harness.settle().await;
        let _ = client.take();
        // As long as it may be; what is left empty is no name.
        let long = "e".repeat(255);
        for event in ["order.paid", &long, ""] {
            result(api, "publish", json!({"channel": "news", "data": 1, "event": event})).await;
        }
        result(api, "broadcast", json!({"channels": ["news"], "data": 1, "event": "to all"})).await;
        harness.settle().await;
        let events: Vec<_> = client.take().iter().map(|publication| publication["event"].clone()).collect();
        assert_eq!(events, [json!("order.paid"), json!(long), json!(null), json!("to all")]);
        let history = result(api, "history", json!({"channel": "news", "limit": -1})).await;
        assert_eq!(history["publications"][0]["event"], "order.paid");
        assert_eq!(history["publications"][2]["event"], json!(null), "{history}");
    });
}

#[test]
fn who_is_excluded_does_not_get_it() {
    run(async |harness, api| {
        let [ann, bob, eve] = [harness.probe("").await, harness.probe("").await, harness.probe("").await];
        for client in [&ann, &bob, &eve] {
            client.subscribe("news").await.unwrap();
        }
        let but_to = |client: &FakeClient, n: i32| json!({"channel": "news", "data": n, "exclude": client.client.id()});
        result(api, "publish", but_to(&ann, 1)).await;
        let all = json!({"channels": ["news"], "data": 2, "exclude": bob.client.id()});
        result(api, "broadcast", all).await;
        // Nobody's.
        let stranger = "846cfebd-e818-4fc8-a0f4-0ed53926708f";
        result(api, "publish", json!({"channel": "news", "data": 3, "exclude": stranger})).await;
        harness.settle().await;
        let seen = [&ann, &bob, &eve].map(|client| client.take_publications());
        assert_eq!(seen, [json!([2, 3]), json!([1, 3]), json!([1, 2, 3])].map(|all| all.as_array().unwrap().clone()));
        let history = result(api, "history", json!({"channel": "news", "limit": -1})).await;
        assert_eq!(history["publications"].as_array().unwrap().len(), 3, "everything is kept");
    });
}

#[test]
fn data_is_any_json_and_stays_as_it_is() {
    run(async |harness, api| {
        let texts = ["{\"b\": 1.0,  \"a\":[1e400, \"\\u00e4ä\"]}", "null", "0", "\"text\"", "[\n1 ]", "false"];
        for text in texts {
            let body = format!("{{\"channel\": \"news\", \"data\": {text}}}");
            let (status, answer) = post(api, "/api/publish", &body).await;
            assert!(status == StatusCode::OK && answer["result"]["offset"].is_u64(), "{answer}");
        }
        let channel = fanwire_wire::Channel::new("news").unwrap();
        let all = fanwire_node::HistoryRequest { limit: -1, ..Default::default() };
        let history = harness.node.history(&channel, all.clone()).await.unwrap();
        let kept: Vec<_> = history.publications.iter().map(|publication| publication.payload.clone()).collect();
        assert_eq!(kept, texts.map(|text| fanwire_wire::Payload::json(text.into())));
    });
}

#[test]
fn base64_carries_bytes() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        for params in [
            json!({"channel": "news", "b64data": "AAH/"}),
            json!({"channel": "news", "b64data": "eyJ4IjoxfQ=="}),
            // Fields that libraries fill in without a value.
            json!({"channel": "news", "b64data": "AA==", "data": null}),
            json!({"channel": "news", "b64data": "", "data": 1, "tags": null, "idempotency_key": "", "version": 0}),
        ] {
            result(api, "publish", params).await;
        }
        harness.settle().await;
        assert_eq!(
            client.take_publications(),
            [json!({"bytes": [0, 1, 255]}), json!({"x": 1}), json!({"bytes": [0]}), json!(1)]
        );
    });
}

#[test]
fn a_channel_without_history_has_no_position() {
    run(async |_, api| {
        assert_eq!(result(api, "publish", json!({"channel": "bare:1", "data": 1})).await, json!({}));
        let skipping = json!({"channel": "news", "data": 1, "skip_history": true, "delta": true});
        assert_eq!(result(api, "publish", skipping).await, json!({}));
        assert_eq!(result(api, "history", json!({"channel": "news"})).await["offset"], 0);
    });
}

#[test]
fn an_idempotency_key_is_applied_once() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        let params = json!({"channel": "news", "data": 1, "idempotency_key": "k"});
        let first = result(api, "publish", params.clone()).await;
        assert_eq!(result(api, "publish", params).await, first);
        harness.settle().await;
        assert_eq!(client.take_publications().len(), 1);
    });
}

#[test]
fn refusals() {
    run(async |harness, api| {
        for (params, code, word) in [
            (json!({"data": 1}), 107, "channel name is empty"),
            (json!({"channel": "a b", "data": 1}), 107, "channel name"),
            (json!({"channel": "a".repeat(256), "data": 1}), 107, "255"),
            (json!({"channel": "nowhere:1", "data": 1}), 102, "unknown channel"),
            (json!({"channel": "a"}), 107, "neither data nor b64data"),
            (json!({"channel": "a", "b64data": ""}), 107, "neither data nor b64data"),
            (json!({"channel": "a", "data": 1, "b64data": "AA=="}), 107, "both data and b64data"),
            (json!({"channel": "a", "b64data": "ä"}), 107, "b64data is not base64"),
            (json!({"channel": "a", "data": 1, "idempotency_key": "k".repeat(256)}), 107, "idempotency_key"),
            (json!({"channel": "a", "data": 1, "event": "e".repeat(256)}), 107, "event is longer"),
            (json!({"channel": "a", "data": 1, "exclude": "ann"}), 107, "exclude is not the id"),
        ] {
            assert_eq!(error(api, "publish", params, word).await, code);
        }
        harness.faults.go_down();
        assert_eq!(error(api, "publish", json!({"channel": "a", "data": 1}), "broker unavailable").await, 503);
    });
}

#[test]
fn a_broadcast_goes_to_all_and_each_channel_answers_for_itself() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        for channel in ["a", "b"] {
            client.subscribe(channel).await.unwrap();
        }
        let channels = ["a", "nowhere:1", "", "bare:1", "b"];
        let params = json!({"channels": channels, "data": {"x": 1}, "idempotency_key": "k", "tags": {"t": "1"}});
        let mut responses = result(api, "broadcast", params.clone()).await["responses"].take();
        assert_eq!(responses[1], json!({"error": {"code": 102, "message": "unknown channel"}}));
        assert_eq!(responses[2]["error"]["code"], 107);
        assert_eq!(responses[3], json!({"result": {}}));
        for index in [0, 4] {
            let epoch = responses[index]["result"]["epoch"].take();
            assert_eq!(responses[index], json!({"result": {"offset": 1, "epoch": null}}));
            assert!(epoch.is_string());
        }
        // The key counts per channel.
        result(api, "broadcast", params).await;
        harness.settle().await;
        assert_eq!(client.take_publications(), [json!({"x": 1}), json!({"x": 1})]);
    });
}

#[test]
fn a_broadcast_is_bounded_and_checked_as_a_whole() {
    run(async |_, api| {
        let names = |count: usize| (0..count).map(|index| format!("bare:{index}")).collect::<Vec<_>>();
        let answer = result(api, "broadcast", json!({"channels": names(1000), "data": 1})).await;
        assert_eq!(answer["responses"].as_array().unwrap().len(), 1000);
        for (params, word) in [
            (json!({"channels": names(1001), "data": 1}), "1000"),
            (json!({"channels": [], "data": 1}), "channels is empty"),
            (json!({"data": 1}), "channels is empty"),
            (json!({"channels": ["a"]}), "neither"),
        ] {
            assert_eq!(error(api, "broadcast", params, word).await, 107);
        }
    });
}

#[test]
fn what_was_refused_is_told_from_what_may_have_been_applied() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        harness.settle().await;
        let _ = client.take();
        let publication = |n: i32| json!({"channel": "news", "data": n, "idempotency_key": format!("key {n}")});
        harness.faults.go_down();
        assert_eq!(error(api, "publish", publication(1), "nothing was applied").await, 503);
        assert_eq!(error(api, "history", json!({"channel": "news"}), "broker unavailable").await, 503);
        harness.faults.lose_answers();
        assert_eq!(error(api, "publish", publication(2), "outcome unknown").await, 504);
        harness.faults.heal();
        harness.settle().await;
        assert_eq!(client.take_publications(), [2], "it was applied");
        assert_eq!(result(api, "publish", publication(2)).await["offset"], 1, "the same key settles it");
        assert_eq!(result(api, "publish", publication(1)).await["offset"], 2);
        harness.settle().await;
        assert_eq!(client.take_publications(), [1], "and nothing comes twice");
    });
}
