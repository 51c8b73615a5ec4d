//! `presence`, `presence_stats`, `history`, `history_remove` and `channels`.

use super::*;

#[test]
fn presence_names_everyone() {
    run(async |harness, api| {
        let one = harness.probe("user:42;info={\"name\": \"Ada\"}").await;
        let two = harness.probe("user:42").await;
        for client in [&one, &two] {
            client.subscribe("room").await.unwrap();
        }
        harness.settle().await;
        let (id, other) = (one.client.id(), two.client.id());
        let expected = json!({"presence": {
            &id: {"client": id, "user": "42", "conn_info": {"name": "Ada"}},
            &other: {"client": other, "user": "42"},
        }});
        assert_eq!(result(api, "presence", json!({"channel": "room"})).await, expected);
        let stats = result(api, "presence_stats", json!({"channel": "room"})).await;
        assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
        assert_eq!(result(api, "presence", json!({"channel": "empty"})).await, json!({"presence": {}}));
        let stats = result(api, "presence_stats", json!({"channel": "empty"})).await;
        assert_eq!(stats, json!({"num_clients": 0, "num_users": 0}));
        let asked = json!({"channel": "room", "users": ["42", "7", "42"]});
        let stats = result(api, "presence_stats", asked).await;
        assert_eq!(stats, json!({"num_clients": 2, "num_users": 1, "users": {"42": 2, "7": 0}}));
        let stats = result(api, "presence_stats", json!({"channel": "room", "users": []})).await;
        assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
        let many: Vec<_> = (0..1001).map(|n| n.to_string()).collect();
        assert_eq!(
            error(api, "presence_stats", json!({"channel": "room", "users": many}), "more than 1000").await,
            107
        );
    });
}

#[test]
fn refusals() {
    run(async |harness, api| {
        for method in ["presence", "presence_stats", "history", "history_remove"] {
            for (params, code, word) in [
                (json!({}), 107, "empty"),
                (json!({"channel": "a b"}), 107, "channel name"),
                (json!({"channel": "nowhere:1"}), 102, "unknown channel"),
                (json!({"channel": "bare:1"}), 108, "not available"),
            ] {
                assert_eq!(error(api, method, params, word).await, code, "{method}");
            }
        }
        harness.faults.go_down();
        for method in ["history", "history_remove"] {
            assert_eq!(error(api, method, json!({"channel": "a"}), "broker unavailable").await, 503);
        }
    });
}

#[test]
fn history_in_parts() {
    run(async |_, api| {
        for number in 1..=5 {
            result(api, "publish", json!({"channel": "news", "data": number})).await;
        }
        let top = result(api, "history", json!({"channel": "news"})).await;
        let epoch = top["epoch"].as_str().unwrap();
        assert_eq!(top, json!({"publications": [], "offset": 5, "epoch": epoch}));
        for (params, expected) in [
            (json!({"limit": 0}), json!([])),
            (json!({"limit": null, "since": null, "reverse": null}), json!([])),
            (json!({"limit": -1}), json!([1, 2, 3, 4, 5])),
            (json!({"limit": 2}), json!([1, 2])),
            (json!({"limit": 2, "since": {"offset": 2, "epoch": epoch}}), json!([3, 4])),
            (json!({"limit": 100, "since": {"offset": 4}}), json!([5])),
            (json!({"limit": 2, "reverse": true}), json!([5, 4])),
            (json!({"limit": -1, "reverse": true, "since": {"offset": 3, "epoch": epoch}}), json!([2, 1])),
        ] {
            let mut asked = params.clone();
            asked["channel"] = json!("news");
            let history = result(api, "history", asked).await;
            assert_eq!((&history["offset"], &history["epoch"]), (&json!(5), &json!(epoch)));
            let publications = history["publications"].as_array().unwrap();
            assert_eq!(publications.iter().map(|found| found["data"].clone()).collect::<Value>(), expected, "{params}");
            assert!(publications.iter().all(|found| found["offset"] == found["data"]));
        }
        let old = json!({"channel": "news", "limit": 1, "since": {"offset": 1, "epoch": "other"}});
        assert_eq!(error(api, "history", old, "unrecoverable").await, 112);
        let long = json!({"channel": "news", "limit": 1, "since": {"offset": 1, "epoch": "e".repeat(65)}});
        assert_eq!(error(api, "history", long, "epoch is too long").await, 107);
    });
}

#[test]
fn history_shows_all_of_a_publication() {
    run(async |harness, api| {
        let client = harness.probe("user:42;info={\"name\": \"Ada\"}").await;
        result(api, "publish", json!({"channel": "news", "data": {"x": 1}, "tags": {"lang": "en"}})).await;
        result(api, "publish", json!({"channel": "news", "b64data": "AAH/"})).await;
        let text = fanwire_wire::Payload::text("say \"hi\"".into());
        client.client.publish("news", text).await.unwrap();
        let history = result(api, "history", json!({"channel": "news", "limit": -1})).await;
        let mut found = history["publications"].as_array().unwrap().clone();
        for publication in &mut found {
            let time = publication["time"].take().as_i64().unwrap();
            assert!(time > 1_700_000_000_000, "{time} is not in milliseconds");
        }
        let info = json!({"client": client.client.id(), "user": "42", "conn_info": {"name": "Ada"}});
        let expected = [
            json!({"data": {"x": 1}, "tags": {"lang": "en"}, "offset": 1, "time": null}),
            json!({"data": null, "b64data": "AAH/", "offset": 2, "time": null}),
            json!({"data": "say \"hi\"", "info": info, "offset": 3, "time": null}),
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn a_removed_history_keeps_its_position() {
    run(async |_, api| {
        let published = result(api, "publish", json!({"channel": "news", "data": 1})).await;
        assert_eq!(result(api, "history_remove", json!({"channel": "news"})).await, json!({}));
        let history = result(api, "history", json!({"channel": "news", "limit": -1})).await;
        assert_eq!(history, json!({"publications": [], "offset": 1, "epoch": published["epoch"]}));
    });
}

#[test]
fn channels_are_those_with_subscribers() {
    run(async |harness, api| {
        let one = harness.probe("user:1").await;
        let two = harness.probe("user:2").await;
        for (client, channel) in [(&one, "room-1"), (&two, "room-1"), (&one, "room-2"), (&one, "news")] {
            client.subscribe(channel).await.unwrap();
        }
        result(api, "publish", json!({"channel": "silent", "data": 1})).await;
        let all = json!({"news": {"num_clients": 1}, "room-1": {"num_clients": 2}, "room-2": {"num_clients": 1}});
        let rooms = json!({"room-1": {"num_clients": 2}, "room-2": {"num_clients": 1}});
        for (params, expected) in [
            (json!({}), &all),
            (json!({"pattern": ""}), &all),
            (json!({"pattern": null}), &all),
            (json!({"pattern": "*"}), &all),
            (json!({"pattern": "room-*"}), &rooms),
            (json!({"pattern": "*oo*-*"}), &rooms),
            (json!({"pattern": "news"}), &json!({"news": {"num_clients": 1}})),
            (json!({"pattern": "new"}), &json!({})),
        ] {
            assert_eq!(result(api, "channels", params).await["channels"], *expected);
        }
    });
}

#[test]
fn channels_come_page_by_page() {
    run(async |harness, api| {
        let client = harness.probe("user:1").await;
        for channel in ["a-1", "a-2", "b-1", "b-2", "c-1"] {
            client.subscribe(channel).await.unwrap();
        }
        let page = async |params| {
            let page = result(api, "channels", params).await;
            let names: Vec<_> = page["channels"].as_object().unwrap().keys().cloned().collect();
            (names.join(" "), page["cursor"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(page(json!({"limit": 2})).await, ("a-1 a-2".into(), "a-2".into()));
        assert_eq!(page(json!({"limit": 2, "cursor": "a-2"})).await, ("b-1 b-2".into(), "b-2".into()));
        assert_eq!(page(json!({"limit": 2, "cursor": "b-2"})).await, ("c-1".into(), String::new()));
        assert_eq!(page(json!({"limit": 1, "cursor": "a-1", "pattern": "*-1"})).await, ("b-1".into(), "b-1".into()));
        assert_eq!(page(json!({"limit": 5})).await.1, "");
        assert_eq!(page(json!({"cursor": "c-1"})).await, (String::new(), String::new()));
        assert_eq!(error(api, "channels", json!({"limit": 10_001}), "limit is more than 10000").await, 107);
        assert_eq!(error(api, "channels", json!({"cursor": "x".repeat(300)}), "channel").await, 107);
    });
}
