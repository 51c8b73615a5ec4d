//! Several calls in one request.

use super::*;

#[test]
fn each_command_has_its_own_reply() {
    run(async |_, api| {
        for parallel in [json!(false), json!(true), json!(null)] {
            let commands = json!([
                {"publish": {"channel": "bare:1", "data": 1}},
                {"publish": {"channel": "nowhere:1", "data": 1}},
                {"presence_stats": {"channel": "room"}, "future_field": 1},
                {"publish": {"channel": 5}},
                {"rpc": {}},
                {},
                {"batch": {"commands": []}},
                {"info": {}, "channels": {}},
                {"info": null, "channels": {}},
                [],
            ]);
            let batch = json!({"commands": commands, "parallel": parallel});
            let mut answer = call(api, "batch", batch).await;
            let replies = answer["replies"].as_array_mut().unwrap();
            let codes: Vec<_> =
                replies.iter().map(|reply| reply["error"]["code"].as_u64().unwrap_or_default()).collect();
            assert_eq!(codes, [0, 102, 0, 107, 104, 104, 104, 107, 0, 107]);
            assert_eq!(replies[0], json!({"publish": {}}));
            assert_eq!(replies[2], json!({"presence_stats": {"num_clients": 0, "num_users": 0}}));
            assert_eq!(replies[8], json!({"channels": {"channels": {}}}));
            assert_eq!(answer.as_object().unwrap().len(), 1);
        }
    });
}

#[test]
fn commands_run_in_their_order_unless_they_need_not() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        // Each publication takes as long as it likes.
        harness.faults.dawdle(1, Duration::from_millis(50));
        let in_order: Vec<_> = (0..100).map(|data| json!(data)).collect();
        let commands: Vec<_> = (0..100).map(|data| json!({"publish": {"channel": "news", "data": data}})).collect();
        call(api, "batch", json!({"commands": commands})).await;
        harness.settle().await;
        assert_eq!(client.take_publications(), in_order);
        call(api, "batch", json!({"commands": commands, "parallel": true})).await;
        harness.settle().await;
        let mut arrived = client.take_publications();
        assert_ne!(arrived, in_order);
        arrived.sort_by_key(Value::as_u64);
        assert_eq!(arrived, in_order);
    });
}

#[test]
fn batches_are_bounded() {
    run(async |_, api| {
        assert_eq!(call(api, "batch", json!({})).await, json!({"replies": []}));
        let commands = |count| json!({"commands": vec![json!({"channels": {}}); count]});
        assert_eq!(call(api, "batch", commands(1000)).await["replies"].as_array().unwrap().len(), 1000);
        let (status, answer) = post(api, "/api/batch", &commands(1001).to_string()).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(107)));
    });
}

#[test]
fn the_older_form_answers_line_by_line() {
    run(async |_, api| {
        let body = concat!(
            "{\"method\": \"publish\", \"params\": {\"channel\": \"bare:1\", \"data\": 1}}\n",
            "{\"id\": 7, \"method\": \"presence_stats\", \"params\": {\"channel\": \"room\"}}\n",
            "{\"method\": \"publish\", \"params\": {\"channel\": \"nowhere:1\", \"data\": 1}}{\"method\": \"channels\"}\n",
            "{\"id\": 8, \"method\": \"rpc\", \"params\": null}",
        );
        let expected = concat!(
            "{\"result\":{}}\n",
            "{\"id\":7,\"result\":{\"num_clients\":0,\"num_users\":0}}\n",
            "{\"error\":{\"code\":102,\"message\":\"unknown channel\"}}\n",
            "{\"result\":{\"channels\":{}}}\n",
            "{\"id\":8,\"error\":{\"code\":104,\"message\":\"method not found\"}}",
        );
        for path in ["/api", "/api/"] {
            let response = api.handle(request(Method::POST, path, body)).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(str::from_utf8(response.body()).unwrap(), expected);
        }
        for body in ["", " ", "{}", "{\"method\": \"info\"}\n{", "[]", &"{\"method\": \"info\"}".repeat(1001)] {
            let (status, answer) = post(api, "/api", body).await;
            assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(107)));
        }
    });
}
