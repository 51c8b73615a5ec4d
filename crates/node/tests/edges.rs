//! From open to gone: what a connection owes its peer and the node at its edges.

use fanwire_node::authorizer::{AuthError, Identity, SubscriptionToken};
use fanwire_node::protocol::Opening;
use fanwire_node::*;
use fanwire_testkit::{
    FakeClient, Probe,
    harness::{self, open_config},
};
use fanwire_wire::*;
use futures_util::future::BoxFuture;
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_stubborn_peer_that_does_not_pong_is_cut_off() {
    harness::run(open_config(Namespace::open("")), async |h| {
        let client = h.probe("").await;
        client.socket.ignore_close();
        for _ in 0..60 {
            h.pass(Duration::from_secs(1)).await;
        }
        assert_eq!(client.client.ended(), Some(Disconnect::NoPong));
        assert!(client.is_gone());
    });
}

struct Slow;
impl Authorizer for Slow {
    fn connection<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(Identity::default())
        })
    }
    fn subscription<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<SubscriptionToken, AuthError>> {
        unreachable!()
    }
}

fn node(config: Config, authorizer: Box<dyn Authorizer>) -> Arc<Node> {
    let dispatcher = Dispatcher::new(1);
    Node::new(Parts {
        config,
        dispatcher: Arc::clone(&dispatcher),
        broker: Box::new(MemoryBroker::new(Arc::clone(&dispatcher))),
        presence: Box::new(MemoryPresence::new(dispatcher)),
        authorizer,
        hooks: None,
    })
}

#[test]
fn a_closed_client_does_not_rise_again() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&rt, async {
        let node = node(open_config(Namespace::open("")), Box::new(Slow));
        let worker = Worker::start(&node, 0);
        let c = FakeClient::open(&worker, &Probe, &Opening::default()).unwrap();
        c.socket.ignore_close();
        let connected = Rc::clone(&c.client).connect(ConnectRequest { token: "x".into(), ..Default::default() }).await;
        assert_eq!(c.client.ended(), Some(Disconnect::Stale));
        assert!(connected.is_err());
        assert!(c.client.is_closed());
    });
}

#[test]
fn pings_may_be_as_good_as_off() {
    let mut config = open_config(Namespace::open(""));
    config.client.ping_interval = Duration::from_secs(3600 * 24 * 1000);
    harness::run(config, async |h| {
        let mut all = vec![];
        for _ in 0..256 {
            all.push(h.probe("").await);
        }
    });
}

#[test]
fn a_recovery_that_does_not_fit_is_told() {
    let mut config = open_config(Namespace { history_size: 300, ..Namespace::open("") });
    config.client.queue_size = 20_000;
    harness::run(config, async |h| {
        let a = h.probe("").await;
        let start = a.subscribe("a").await.unwrap().position;
        a.leave();
        for _ in 0..200 {
            h.node
                .publish(Publish::new(
                    Channel::new("a").unwrap(),
                    Payload::json(json!("x".repeat(1000)).to_string().into()),
                ))
                .await
                .unwrap();
        }
        let b = h.probe("").await;
        let s = Rc::clone(&b.client)
            .subscribe(SubscribeRequest { channel: "a".into(), since: start, ..Default::default() })
            .await
            .unwrap();
        assert_eq!(s.recovery, Some(Recovery::Failed));
    });
}

#[test]
fn dropping_the_set_with_live_clients() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node = node(open_config(Namespace::open("")), Box::new(Slow));
    let set = tokio::task::LocalSet::new();
    let keep = Rc::new(Cell::new(None));
    let keep2 = keep.clone();
    let n = node.clone();
    rt.block_on(set.run_until(async move {
        let worker = Worker::start(&n, 0);
        let c = FakeClient::open(&worker, &Probe, &Opening::default()).unwrap();
        c.connect("").await;
        c.subscribe("a").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        keep2.set(Some(Rc::downgrade(&c.client)));
        std::mem::forget(c.socket.clone());
    }));
    assert_eq!(node.connections(), 1);
    let _in = rt.enter();
    drop(set);
    assert_eq!(node.connections(), 0);
    let weak = keep.take().unwrap();
    assert!(weak.upgrade().is_none(), "leak");
}

#[test]
fn quiet_channels_keep_their_position() {
    let mut config = open_config(Namespace::open(""));
    config.client.ping_interval = Duration::from_secs(3600 * 24 * 1000);
    harness::run(config, async |h| {
        let a = h.probe("").await;
        let before = a.subscribe("a").await.unwrap().position.unwrap();
        let b = h.probe("").await;
        b.subscribe("b").await.unwrap();
        h.node.publish(Publish::new(Channel::new("b").unwrap(), Payload::json("1".into()))).await.unwrap();
        for _ in 0..50 {
            // At a stroke: two days in small steps take long.
            tokio::time::advance(Duration::from_secs(3600)).await;
            h.settle().await;
            // somebody looks at everything, so that every shard is swept
            for n in 0..500 {
                let _ = h.node.history(&Channel::new(&format!("x{n}")).unwrap(), HistoryRequest::default()).await;
            }
        }
        let p = h.node.publish(Publish::new(Channel::new("a").unwrap(), Payload::json("1".into()))).await.unwrap();
        assert_eq!(p.position.unwrap().epoch, before.epoch);
    });
}

#[test]
fn nothing_is_told_before_the_connect_reply() {
    harness::run(open_config(Namespace::open("")), async |h| {
        let c = h.probe_unconnected("");
        h.faults.hold_answers();
        let cl = Rc::clone(&c.client);
        let t = tokio::task::spawn_local(async move {
            cl.connect(ConnectRequest { token: "user:42;subs=a1,a2".into(), ..Default::default() }).await
        });
        h.settle().await;
        let sel = Selection { user: "42".into(), ..Selection::default() };
        h.node.subscribe(sel.clone(), Channel::new("b").unwrap(), Default::default(), None).await.unwrap();
        h.node.refresh(sel.clone(), None).await.unwrap();
        h.node.unsubscribe(sel.clone(), Channel::new("a1").unwrap()).await.unwrap();
        h.settle().await;
        assert_eq!(c.take(), Vec::<serde_json::Value>::new());
        assert!(!t.is_finished());
        h.faults.heal();
        let r = t.await.unwrap().unwrap();
        assert_eq!(r.subscriptions.len(), 1, "{r:?}");
        assert!(c.client.is_connected());
        assert_eq!(h.node.counts().await.subscriptions, 1);
        assert_eq!(h.node.members(&Channel::new("a1").unwrap()).await.unwrap(), []);
    });
}

#[test]
fn a_stall_is_not_the_clients_fault() {
    harness::run(open_config(Namespace::open("")), async |h| {
        let c = h.probe("").await;
        while c.take().is_empty() {
            h.pass(Duration::from_secs(1)).await;
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        h.settle().await;
        assert_eq!(c.client.ended(), None);
        h.pass(Duration::from_secs(40)).await;
        assert_eq!(c.client.ended(), Some(Disconnect::NoPong));
    });
}
