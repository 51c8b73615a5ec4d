//! Publications that depend on where their channel stands.

use fanwire_control::proto::{BatchRequest, Command, Position, PublishRequest, PublishStreamRequest};
use futures_util::StreamExt;
use futures_util::stream::iter;
use tonic::Code;

use super::grpc::{run_rpc, with_key};
use super::*;

#[test]
fn a_publication_may_expect_where_the_channel_stands() {
    run(async |_, api| {
        let publish = |expect: Value| json!({"channel": "news", "data": 1, "expect": expect});
        let first = result(api, "publish", publish(json!({}))).await;
        let epoch = first["epoch"].as_str().unwrap();
        assert_eq!(first, json!({"offset": 1, "epoch": epoch}), "offset 0 is where a channel begins");
        let second = result(api, "publish", publish(json!({"offset": 1, "epoch": epoch}))).await;
        assert_eq!(second["offset"], 2);
        for (expect, word) in [
            (json!({"offset": 1, "epoch": epoch}), "offset 2"),
            (json!({"offset": 3, "epoch": epoch}), epoch),
            (json!({"offset": 2, "epoch": "another"}), epoch),
            (json!({}), "the channel stands at"),
        ] {
            let refused = call(api, "publish", publish(expect)).await;
            assert_eq!(refused["error"]["code"], 113);
            assert_eq!(refused["error"]["position"], json!({"offset": 2, "epoch": epoch}));
            assert!(refused["error"]["message"].as_str().unwrap().contains(word), "{refused}");
        }
        let told = call(api, "publish", publish(json!({"offset": 1}))).await["error"]["position"].clone();
        assert_eq!(result(api, "publish", publish(told)).await["offset"], 3, "what it is told can be given back");
        assert_eq!(result(api, "publish", publish(Value::Null)).await["offset"], 4, "null expects nothing");
    });
}

#[test]
fn older_versions_are_skipped() {
    run(async |harness, api| {
        let client = harness.probe("user:42").await;
        client.subscribe("news").await.unwrap();
        harness.settle().await;
        let _ = client.take();
        let publish = |version: u64, epoch: &str| json!({"channel": "news", "data": [version, epoch], "version": version, "version_epoch": epoch});
        let first = result(api, "publish", publish(5, "")).await;
        let epoch = first["epoch"].clone();
        for (version, life, expected) in [
            (5, "", json!({"offset": 1, "epoch": epoch, "skipped": true})),
            (4, "", json!({"offset": 1, "epoch": epoch, "skipped": true})),
            (6, "", json!({"offset": 2, "epoch": epoch})),
            (1, "b", json!({"offset": 3, "epoch": epoch})),
            (u64::MAX, "b", json!({"offset": 4, "epoch": epoch})),
            (u64::MAX - 1, "b", json!({"offset": 4, "epoch": epoch, "skipped": true})),
        ] {
            assert_eq!(result(api, "publish", publish(version, life)).await, expected, "{version} {life:?}");
        }
        harness.settle().await;
        let seen = [json!([5, ""]), json!([6, ""]), json!([1, "b"]), json!([u64::MAX, "b"])];
        assert_eq!(client.take_publications(), seen);
        // For each channel of a broadcast by itself.
        let params = json!({"channels": ["news", "other", "bare:1"], "data": 1, "version": 1, "version_epoch": "b"});
        let responses = result(api, "broadcast", params).await["responses"].clone();
        assert_eq!(responses[0]["result"]["skipped"], true);
        assert_eq!((&responses[1]["result"]["offset"], &responses[1]["result"]["skipped"]), (&json!(1), &Value::Null));
        assert_eq!(responses[2]["error"]["code"], 108);
        let info = result(api, "info", json!({})).await;
        assert_eq!(info["nodes"][0]["publications"], 5, "what was skipped does not count");
    });
}

#[test]
fn conditions_that_make_no_sense_are_refused() {
    run(async |_, api| {
        for (fields, code, word) in [
            (json!({"channel": "bare:1", "expect": {}}), 108, "history"),
            (json!({"channel": "bare:1", "version": 1}), 108, "history"),
            (json!({"channel": "news", "expect": {}, "skip_history": true}), 108, "is kept"),
            (json!({"channel": "news", "expect": {}, "version": 1}), 107, "both expect and version"),
            (json!({"channel": "news", "version_epoch": "a"}), 107, "without version"),
            (json!({"channel": "news", "version": 1, "version_epoch": "a".repeat(256)}), 107, "longer than 255"),
            (json!({"channel": "news", "expect": {"epoch": "e".repeat(65)}}), 107, "epoch is too long"),
        ] {
            let mut params = fields.clone();
            params["data"] = json!(1);
            assert_eq!(error(api, "publish", params, word).await, code, "{fields}");
        }
    });
}

#[test]
fn the_first_answer_counts_for_a_key() {
    run(async |_, api| {
        let publish = |key: &str, condition: Value| {
            let mut params = json!({"channel": "news", "data": 1, "idempotency_key": key});
            params.as_object_mut().unwrap().extend(condition.as_object().unwrap().clone());
            params
        };
        let expecting = publish("a", json!({"expect": {"offset": 0}}));
        let first = result(api, "publish", expecting.clone()).await;
        assert_eq!(result(api, "publish", expecting).await, first, "the channel stands elsewhere by now");
        let versioned = publish("b", json!({"version": 1}));
        let second = result(api, "publish", versioned.clone()).await;
        assert_eq!(result(api, "publish", versioned).await, second, "it is its own version");
        assert_eq!(result(api, "publish", publish("c", json!({"version": 1}))).await["skipped"], true);
    });
}

#[test]
fn over_grpc_a_conflict_says_where_the_channel_stands() {
    run_rpc(async |_, mut client| {
        let publish = |offset: u64| PublishRequest {
            channel: "news".into(),
            data: "1".into(),
            expect: Some(Position { offset, epoch: String::new() }),
            ..Default::default()
        };
        let first = client.publish(with_key(publish(0))).await.unwrap().into_inner();
        let refused = client.publish(with_key(publish(0))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted);
        let told = |name| refused.metadata().get(name).unwrap().to_str().unwrap();
        assert_eq!((told("fanwire-code"), told("fanwire-offset"), told("fanwire-epoch")), ("113", "1", &*first.epoch));

        let command = |publish| Command { publish: Some(publish), ..Default::default() };
        let batch = BatchRequest { commands: vec![command(publish(1)), command(publish(1))], parallel: false };
        let replies = client.batch(with_key(batch)).await.unwrap().into_inner().replies;
        assert_eq!(replies[0].publish.as_ref().unwrap().offset, 2);
        let error = replies[1].error.as_ref().unwrap();
        assert_eq!((error.code, error.position.as_ref().unwrap().offset), (113, 2));

        // In a stream each may go on from the one before it.
        let requests = [2, 3, 3, 4].map(|offset| PublishStreamRequest { id: offset, publish: Some(publish(offset)) });
        let acknowledged = client.publish_stream(with_key(iter(requests))).await.unwrap().into_inner();
        let told: Vec<_> = acknowledged
            .map(|acknowledgement| {
                let acknowledgement = acknowledgement.unwrap();
                let at = acknowledgement.error.and_then(|error| error.position).map(|position| position.offset);
                (acknowledgement.result.map(|result| result.offset), at)
            })
            .collect()
            .await;
        assert_eq!(told, [(Some(3), None), (Some(4), None), (None, Some(4)), (Some(5), None)]);
    });
}
