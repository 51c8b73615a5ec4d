//! `subscribe`, `unsubscribe`, `disconnect` and `refresh`, as connected clients see them.

use std::rc::Rc;

use bytes::BytesMut;
use fanwire_node::clock::unix_ms;
use fanwire_node::protocol::{Accepted, Event, Opening, Rejection};
use fanwire_node::{Client, Encoder, Protocol, Session};
use fanwire_testkit::{FakeClient, Frame};
use fanwire_wire::frame::{self, Opcode};
use fanwire_wire::{Broadcast, Disconnect, Message};
use futures_util::future::LocalBoxFuture;

use super::*;

/// Two connections of user 42, and a stranger's.
async fn three(harness: &Harness) -> [FakeClient; 3] {
    let clients = [harness.probe("user:42").await, harness.probe("user:42").await, harness.probe("user:7").await];
    harness.settle().await;
    for client in &clients {
        let _ = client.take();
    }
    clients
}

fn in_seconds(seconds: u64) -> u64 {
    unix_ms() / 1000 + seconds
}

/// Takes what the core told a client, without joins and leaves of others.
fn told(client: &FakeClient) -> Vec<Value> {
    let foreign = |frame: &Value| frame.get("join").is_some() || frame.get("leave").is_some();
    client.take().into_iter().filter(|frame| !foreign(frame)).collect()
}

#[test]
fn a_users_connections_are_subscribed_and_unsubscribed() {
    run(async |harness, api| {
        let [one, two, stranger] = three(harness).await;
        let params = json!({"user": "42", "channel": "bare:1"});
        assert_eq!(result(api, "subscribe", params.clone()).await, json!({}));
        harness.settle().await;
        for client in [&one, &two] {
            assert_eq!(told(client), [json!({"subscribed": "bare:1"})]);
        }
        // Once more changes nothing.
        result(api, "subscribe", params.clone()).await;
        result(api, "publish", json!({"channel": "bare:1", "data": 1})).await;
        harness.settle().await;
        for client in [&one, &two] {
            assert_eq!(told(client), [json!({"pub": 1, "channel": "bare:1"})]);
        }
        assert_eq!(result(api, "unsubscribe", params).await, json!({}));
        result(api, "publish", json!({"channel": "bare:1", "data": 2})).await;
        harness.settle().await;
        for client in [&one, &two] {
            assert_eq!(told(client), [json!({"unsubscribed": "bare:1", "code": 2000})]);
        }
        assert!(told(&stranger).is_empty());
    });
}

#[test]
fn one_connection_alone_may_be_meant() {
    run(async |harness, api| {
        let [one, two, stranger] = three(harness).await;
        let ids = [one.client.id(), two.client.id(), stranger.client.id()];
        for (field, channel) in [("client", "bare:1"), ("session", "bare:2")] {
            result(api, "subscribe", json!({"user": "42", "channel": channel, field: ids[0]})).await;
            // A stranger's connection is none of the user's.
            result(api, "subscribe", json!({"user": "42", "channel": channel, field: ids[2]})).await;
            harness.settle().await;
            assert_eq!(told(&one), [json!({"subscribed": channel})]);
            assert!(told(&two).is_empty() && told(&stranger).is_empty());
        }
        result(api, "unsubscribe", json!({"user": "42", "channel": "bare:1", "client": ids[1]})).await;
        result(api, "refresh", json!({"user": "42", "session": ids[1], "client": ids[1]})).await;
        harness.settle().await;
        assert!(told(&one).is_empty());
        assert_eq!(told(&two), [json!({"refreshed": null})]);
        result(api, "disconnect", json!({"user": "42", "client": ids[1], "session": ""})).await;
        harness.settle().await;
        assert!(!one.is_gone() && two.is_gone() && !stranger.is_gone());
    });
}

#[test]
fn a_subscription_comes_with_its_terms() {
    run(async |harness, api| {
        let [one, ..] = three(harness).await;
        let value = |value: bool| json!({"value": value});
        let params = json!({
            "user": "42", "channel": "cheap:1", "client": one.client.id(),
            "info": {"role": "admin"}, "b64data": "eyJ4IjoxfQ==", "expire_at": in_seconds(2),
            "override": {"force_positioning": value(true), "presence": value(false), "join_leave": null},
        });
        result(api, "subscribe", params).await;
        harness.settle().await;
        let mut told = told(&one);
        assert!(told[0]["epoch"].take().is_string());
        assert_eq!(told, [json!({"subscribed": "cheap:1", "epoch": null, "offset": 0})]);
        // The term is over, and its grace too.
        harness.pass(Duration::from_secs(5)).await;
        assert_eq!(one.take(), [json!({"unsubscribed": "cheap:1", "code": 2501})]);
    });
}

#[test]
fn options_of_the_namespace_are_overridden() {
    run(async |harness, api| {
        let [one, two, _] = three(harness).await;
        let subscribe = async |client: &FakeClient, channel: &str, overrides: Value| {
            let params = json!({"user": "42", "channel": channel, "client": client.client.id(), "override": overrides});
            result(api, "subscribe", params).await;
            harness.settle().await;
        };
        let on = json!({"value": true});
        for option in ["force_recovery", "force_positioning"] {
            let channel = format!("cheap:{option}");
            subscribe(&one, &channel, json!({ option: on })).await;
            assert!(told(&one)[0]["epoch"].is_string());
        }
        subscribe(&one, "cheap:none", json!({"force_recovery": {"value": false}, "force_positioning": null})).await;
        assert_eq!(told(&one), [json!({"subscribed": "cheap:none"})]);

        subscribe(&one, "room", json!({"presence": {}})).await;
        subscribe(&two, "room", json!({})).await;
        let presence = result(api, "presence", json!({"channel": "room"})).await;
        assert_eq!(presence["presence"].as_object().unwrap().keys().collect::<Vec<_>>(), [&two.client.id()]);

        // The first hears of others, the second is heard of, the third is neither.
        subscribe(&one, "bare:1", json!({"force_push_join_leave": on, "join_leave": {"value": false}})).await;
        let _ = one.take();
        subscribe(&two, "bare:1", json!({"join_leave": on})).await;
        let third = harness.probe("user:42").await;
        subscribe(&third, "bare:1", json!({})).await;
        assert_eq!(one.take(), [json!({"join": two.client.id(), "channel": "bare:1"})]);
        assert_eq!(third.take(), [json!({"subscribed": "bare:1"})]);
    });
}

#[test]
fn a_subscription_goes_on_where_it_was() {
    run(async |harness, api| {
        let [one, ..] = three(harness).await;
        for number in 1..=3 {
            result(api, "publish", json!({"channel": "news", "data": number})).await;
        }
        let params =
            json!({"user": "42", "channel": "news", "client": one.client.id(), "recover_since": {"offset": 1}});
        result(api, "subscribe", params).await;
        harness.settle().await;
        let told = told(&one);
        assert_eq!((&told[0]["subscribed"], &told[0]["offset"]), (&json!("news"), &json!(1)));
    });
}

#[test]
fn information_about_a_subscriber_is_for_others() {
    run(async |harness, api| {
        let [one, two, _] = three(harness).await;
        let subscribe = |client: &FakeClient, field: &str, info: Value| {
            let params = json!({"user": "42", "channel": "room", "client": client.client.id(), field: info});
            async move { result(api, "subscribe", params).await }
        };
        subscribe(&one, "info", json!({"role": "admin"})).await;
        subscribe(&two, "b64info", json!("WzFd")).await;
        harness.settle().await;
        let presence = result(api, "presence", json!({"channel": "room"})).await;
        assert_eq!(presence["presence"][one.client.id()]["chan_info"], json!({"role": "admin"}));
        assert_eq!(presence["presence"][two.client.id()]["chan_info"], json!([1]));
    });
}

#[test]
fn subscriptions_that_make_no_sense() {
    run(async |harness, api| {
        let [one, ..] = three(harness).await;
        for (change, code, word) in [
            (json!({"user": ""}), 107, "user is empty"),
            (json!({"channel": ""}), 107, "channel name is empty"),
            (json!({"channel": "nowhere:1"}), 102, "unknown channel"),
            (json!({"client": "a", "session": "b"}), 107, "different connections"),
            (json!({"info": 1, "b64info": "MQ=="}), 107, "both info and b64info"),
            (json!({"b64info": "AAH/"}), 107, "does not hold JSON"),
            (json!({"b64data": "?"}), 107, "not base64"),
            (json!({"expire_at": 1}), 110, "expired"),
            (json!({"recover_since": {"epoch": "e".repeat(65)}}), 107, "epoch is too long"),
        ] {
            let mut params = json!({"user": "42", "channel": "room"});
            params.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert_eq!(error(api, "subscribe", params, word).await, code);
        }
        for (params, code) in [
            (json!({"channel": "room"}), 107),
            (json!({"user": "42"}), 107),
            (json!({"user": "42", "channel": "nowhere:1"}), 102),
        ] {
            assert_eq!(error(api, "unsubscribe", params, "").await, code);
        }
        harness.settle().await;
        assert!(told(&one).is_empty());
    });
}

#[test]
fn a_users_connections_are_ended() {
    run(async |harness, api| {
        let [one, two, stranger] = three(harness).await;
        let params = json!({"user": "42", "whitelist": [two.client.id()]});
        assert_eq!(result(api, "disconnect", params).await, json!({}));
        harness.settle().await;
        assert_eq!(one.socket.take(), [Frame::Close(3503, "force disconnect".into())]);
        assert_eq!(one.client.ended(), Some(Disconnect::ForceDisconnect));
        assert!(one.is_gone() && !two.is_gone() && !stranger.is_gone());
        assert_eq!(result(api, "disconnect", json!({"user": "42"})).await, json!({}));
        harness.settle().await;
        assert!(two.is_gone() && !stranger.is_gone());
    });
}

#[test]
fn the_backend_chooses_the_close_code() {
    run(async |harness, api| {
        for (code, reason, expected) in [
            (0, "", "force disconnect"),
            (3011, "ignored", "force reconnect"),
            (3014, "", "state invalidated"),
            (3500, "", "invalid token"),
            (3503, "", "force disconnect"),
            (4000, "come back", "come back"),
            (4999, "", ""),
        ] {
            let client = harness.probe("user:42").await;
            let params = json!({"user": "42", "disconnect": {"code": code, "reason": reason}});
            result(api, "disconnect", params).await;
            harness.settle().await;
            let code = if code == 0 { 3503 } else { code };
            assert_eq!(client.socket.take(), [Frame::Close(code, expected.into())]);
        }
        let client = harness.probe("user:42").await;
        for code in [1000, 1001, 1002, 1009, 2999, 3000, 3002, 3499, 3999, 5000, 65535] {
            let params = json!({"user": "42", "disconnect": {"code": code}});
            assert_eq!(error(api, "disconnect", params, "disconnect code").await, 107);
        }
        let long = json!({"user": "42", "disconnect": {"code": 4000, "reason": "x".repeat(124)}});
        assert_eq!(error(api, "disconnect", long, "123 bytes").await, 107);
        let many = json!({"user": "42", "whitelist": vec!["x"; 1001]});
        assert_eq!(error(api, "disconnect", many, "whitelist").await, 107);
        assert_eq!(error(api, "disconnect", json!({}), "user is empty").await, 107);
        harness.settle().await;
        assert!(!client.is_gone());
    });
}

#[test]
fn a_connections_term_is_changed() {
    run(async |harness, api| {
        let [one, two, stranger] = three(harness).await;
        let result = async |params| assert_eq!(result(api, "refresh", params).await, json!({}));
        result(json!({"user": "42", "client": one.client.id(), "expire_at": in_seconds(60)})).await;
        result(json!({"user": "42", "client": two.client.id(), "expire_at": 0, "expired": false})).await;
        harness.settle().await;
        let refreshed = told(&one);
        assert!(
            refreshed.len() == 1 && (58..=60).contains(&refreshed[0]["refreshed"].as_u64().unwrap()),
            "{refreshed:?}"
        );
        assert_eq!(told(&two), [json!({"refreshed": null})]);
        // One second of the past is as good as `expired`.
        result(json!({"user": "42", "client": two.client.id(), "expire_at": 1})).await;
        result(json!({"user": "7", "expired": true})).await;
        harness.settle().await;
        for gone in [&two, &stranger] {
            assert_eq!(gone.socket.take(), [Frame::Close(3005, "connection expired".into())]);
        }
        assert!(!one.is_gone());
        for (params, code, word) in [
            (json!({"expired": true}), 107, "user is empty"),
            (json!({"user": "42", "info": {"name": "Ada"}}), 108, "info"),
        ] {
            assert_eq!(error(api, "refresh", params, word).await, code);
        }
    });
}

#[test]
fn data_is_for_the_subscriber_itself() {
    run(async |harness, api| {
        let client = FakeClient::open(&harness.worker, &Curious, &Opening::default()).unwrap();
        client.connect("user:42").await;
        for (channel, field, value) in [
            ("bare:1", "data", json!({"x": [1, "ä"]})),
            ("bare:2", "b64data", json!("eyJ4IjoxfQ==")),
            ("bare:3", "future", json!(1)),
        ] {
            result(api, "subscribe", json!({"user": "42", "channel": channel, field: value})).await;
        }
        harness.settle().await;
        let told = ["{\"x\":[1,\"ä\"]}", "{\"x\":1}", "nothing"].map(|text| Frame::Text(text.into()));
        assert_eq!(client.socket.take(), told);
    });
}

/// A protocol that tells its clients the data of their subscriptions, and nothing else.
struct Curious;

impl Protocol for Curious {
    fn name(&self) -> &'static str {
        "curious"
    }

    fn accept(&self, _opening: &Opening) -> Result<Accepted, Rejection> {
        Ok(Accepted { session: Box::new(Self), subprotocol: None })
    }
}

impl Session for Curious {
    fn encoder(&self) -> &'static dyn Encoder {
        &Self
    }

    fn on_message<'a>(&'a self, _: &'a Rc<Client>, _: Message) -> LocalBoxFuture<'a, Result<(), Disconnect>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn encode_event(&self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Disconnect> {
        if let Event::Subscribed { data, .. } = event {
            frame::append_bytes(out, Opcode::Text, data.map_or(b"nothing", |data| data));
        }
        Ok(())
    }
}

impl Encoder for Curious {
    fn name(&self) -> &'static str {
        "curious"
    }

    fn encode(&self, _broadcast: &Broadcast, _out: &mut BytesMut) -> Result<(), Disconnect> {
        Ok(())
    }
}

#[test]
fn revoked_tokens_end_what_they_began() {
    run(async |harness, api| {
        let [old, new] = [harness.probe("user:42;age=60").await, harness.probe("user:42;age=1").await];
        let now = unix_ms() / 1000;
        assert_eq!(result(api, "revoke", json!({"user": "42", "before": now - 30})).await, json!({}));
        assert_eq!(old.socket.take(), [Frame::Close(3014, "state invalidated".into())]);
        assert_eq!(new.client.ended(), None);
        // Without a time: everything older than this second.
        assert_eq!(result(api, "revoke", json!({"user": "42"})).await, json!({}));
        assert_eq!(new.socket.take(), [Frame::Close(3014, "state invalidated".into())]);
        for (params, word) in [
            (json!({}), "user is empty"),
            (json!({"user": "", "before": 1}), "user is empty"),
            (json!({"user": "42", "before": now + 3600}), "in the future"),
        ] {
            assert_eq!(error(api, "revoke", params, word).await, 107);
        }
        harness.faults.go_down();
        assert_eq!(error(api, "revoke", json!({"user": "42"}), "nothing was applied").await, 503);
    });
}

#[test]
fn connections_are_listed_page_by_page() {
    run(async |harness, api| {
        let mut clients = Vec::new();
        for index in 0..25 {
            let client = harness.probe(if index % 5 == 0 { "user:42" } else { "user:7" }).await;
            if index < 10 {
                client.subscribe("room").await.unwrap();
            }
            clients.push(client);
        }
        harness.settle().await;
        let mut ids: Vec<_> = clients.iter().map(|client| client.client.id()).collect();
        ids.sort_unstable();
        let list = async |mut params: Value| {
            let (mut listed, mut pages) = (Vec::new(), 0);
            loop {
                let page = result(api, "connections", params.clone()).await;
                pages += 1;
                let connections = page["connections"].as_array().unwrap();
                listed.extend(connections.iter().map(|each| each["client"].as_str().unwrap().to_owned()));
                if page["cursor"].is_null() {
                    return (listed, pages);
                }
                params["cursor"] = page["cursor"].clone();
            }
        };
        assert_eq!(list(json!({})).await, (ids.clone(), 1));
        assert_eq!(list(json!({"limit": 25})).await, (ids.clone(), 1));
        assert_eq!(list(json!({"limit": 10})).await, (ids.clone(), 3));
        assert_eq!(list(json!({"limit": 1})).await, (ids, 25));
        assert_eq!(list(json!({"user": "42", "limit": 2})).await.0.len(), 5);
        assert_eq!(list(json!({"channel": "room", "limit": 3})).await.0.len(), 10);
        assert_eq!(list(json!({"channel": "room", "user": "42"})).await.0.len(), 2);
        assert_eq!(list(json!({"user": "nobody"})).await, (Vec::new(), 1));
        let one = result(api, "connections", json!({"channel": "room", "limit": 1})).await["connections"][0].take();
        let node = harness.node.id();
        assert_eq!((&one["node"], &one["num_subs"], &one["protocol"]), (&json!(node), &json!(1), &json!("probe")));
        for (params, word) in [
            (json!({"limit": 1001}), "1000"),
            (json!({"cursor": "x"}), "bad request"),
            (json!({"channel": "a b"}), "channel name"),
        ] {
            assert_eq!(error(api, "connections", params, word).await, 107);
        }
    });
}
