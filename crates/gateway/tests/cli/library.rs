//! The client library keeps what its documentation promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fanwire_client::{Api, Client, Config, Error, Event, Position, Publish, Recovery, Subscribe, Subscription};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::server::{KEY, Server};

/// How long something may take that should take no time: for machines that are busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn next(subscription: &mut Subscription) -> Event {
    timeout(PATIENCE, subscription.next()).await.expect("an event in time").expect("an event")
}

/// The next publication's data; whatever comes before it must not be a loss.
pub(crate) async fn published(subscription: &mut Subscription) -> String {
    loop {
        match next(subscription).await {
            Event::Publication(publication) => return String::from_utf8(publication.data.to_vec()).unwrap(),
            Event::Subscribed(now) => assert_ne!(now.recovery, Recovery::Lost),
            Event::Ended(error) => panic!("{error}"),
            _ => {}
        }
    }
}

pub(crate) async fn confirmed(subscription: &mut Subscription) -> Recovery {
    loop {
        match next(subscription).await {
            Event::Subscribed(now) => return now.recovery,
            Event::Ended(error) => panic!("{error}"),
            _ => {}
        }
    }
}

pub(crate) fn api(server: &Server) -> Api {
    Api::new(&server.control).unwrap().key(KEY).unwrap()
}

async fn publish(api: &Api, numbers: std::ops::Range<u32>) {
    for number in numbers {
        api.publish(Publish::json("chat:a", &number).unwrap()).await.unwrap();
    }
}

fn token(server: &Server, expires: &str) -> String {
    server
        .prints(&["token", "mint", "--config", &server.config(), "--user", "ann", "--expires", expires])
        .trim()
        .to_owned()
}

fn quick(server: &Server) -> Config {
    Config::new(&server.public).backoff(Duration::from_millis(1), Duration::from_millis(50))
}

#[tokio::test]
async fn a_lost_connection_loses_nothing() {
    let server = Server::start();
    let api = api(&server);
    let client = Client::connect(quick(&server).token(token(&server, "1h"))).await.unwrap();
    let mut subscription = client.subscribe("chat:a").await.unwrap();
    assert_eq!(confirmed(&mut subscription).await, Recovery::Fresh);
    for round in 0..5 {
        publish(&api, round * 20..round * 20 + 10).await;
        let _ = api.call_raw("disconnect", &json!({ "user": "ann", "disconnect": { "code": 4000 } })).await.unwrap();
        publish(&api, round * 20 + 10..round * 20 + 20).await;
        for number in round * 20..round * 20 + 20 {
            assert_eq!(published(&mut subscription).await, number.to_string());
        }
    }
}

#[tokio::test]
async fn a_slow_subscriber_gets_everything_later() {
    let server = Server::start();
    let api = api(&server);
    let client = Client::connect(quick(&server).buffer(16)).await.unwrap();
    let mut slow = client.subscribe("chat:a").await.unwrap();
    assert_eq!(confirmed(&mut slow).await, Recovery::Fresh);
    publish(&api, 0..100).await;
    // Another one on the same connection is not held up.
    let mut other = client.subscribe(Subscribe::new("chat:b")).await.unwrap();
    confirmed(&mut other).await;
    let mut interruptions = 0;
    for number in 0..100 {
        loop {
            match next(&mut slow).await {
                Event::Publication(publication) => {
                    assert_eq!(publication.data, number.to_string());
                    break;
                }
                Event::Interrupted(error) => {
                    assert!(matches!(*error, Error::Slow), "{error}");
                    interruptions += 1;
                }
                Event::Subscribed(now) => assert_eq!(now.recovery, Recovery::Whole),
                event => panic!("{event:?}"),
            }
        }
    }
    assert!(interruptions > 0);
}

#[tokio::test]
async fn what_is_gone_is_told() {
    let server = Server::start();
    let client = Client::connect(quick(&server)).await.unwrap();
    let gone = Position { offset: 3, epoch: "another".to_owned() };
    let mut subscription = client.subscribe(Subscribe::new("chat:a").since(gone)).await.unwrap();
    assert_eq!(confirmed(&mut subscription).await, Recovery::Lost);

    let mut nowhere = client.subscribe("nowhere:1").await.unwrap();
    let Event::Ended(error) = next(&mut nowhere).await else { panic!("it cannot succeed") };
    assert!(matches!(&*error, Error::Refused(refusal) if refusal.code == 102), "{error}");
    assert!(nowhere.next().await.is_none());
}

#[tokio::test]
async fn who_leaves_may_return() {
    let server = Server::start();
    let client = Client::connect(quick(&server)).await.unwrap();
    for round in 0..20 {
        let mut subscription = client.subscribe("chat:a").await.unwrap();
        confirmed(&mut subscription).await;
        assert!(matches!(client.subscribe("chat:a").await, Err(Error::Subscribed)));
        client.publish("chat:a", round.to_string()).await.unwrap();
        assert_eq!(published(&mut subscription).await, round.to_string());
    }
    assert!(matches!(client.publish("nowhere:1", "1").await, Err(Error::Refused(refusal)) if refusal.code == 102));
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end() {
    let server = Server::start();
    let (fetched, mut fetches) = mpsc::channel(16);
    let tokens = [token(&server, "3s"), token(&server, "3s"), token(&server, "1h")];
    let count = Arc::new(AtomicU32::new(0));
    let config = quick(&server).tokens(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed) as usize;
        let (token, fetched) = (tokens[number.min(2)].clone(), fetched.clone());
        async move {
            fetched.send(()).await?;
            Ok(token)
        }
    });
    let client = Client::connect(config).await.unwrap();
    let mut subscription = client.subscribe("chat:a").await.unwrap();
    confirmed(&mut subscription).await;
    for _ in 0..3 {
        timeout(PATIENCE, fetches.recv()).await.expect("a fetch in time");
    }
    // The connection has outlived its first tokens, and nothing was interrupted.
    client.publish("chat:a", "1").await.unwrap();
    assert!(matches!(next(&mut subscription).await, Event::Publication(_)));
}

#[tokio::test]
async fn a_token_that_is_refused_is_the_end() {
    let server = Server::start();
    let refused = Client::connect(quick(&server).token("rubbish")).await;
    assert!(matches!(refused, Err(Error::Closed { code: 3500, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_publication_that_is_repeated_is_applied_once() {
    let server = Server::start();
    let api = api(&server);
    let publish = || Publish::json("chat:a", "once").unwrap().idempotency_key("k");
    let (first, second) = (api.publish(publish()).await.unwrap(), api.publish(publish()).await.unwrap());
    assert!(first.is_some());
    assert_eq!(first, second);
}

#[tokio::test]
async fn the_examples_run() {
    let server = Server::start();
    let token = token(&server, "1h");
    let (url, control) = (server.public.clone(), server.control.clone());
    let subscriber = tokio::spawn(async move { crate::subscribe::subscribe(&url, &token).await });
    let api = api(&server);
    let subscribed = async {
        while api.presence_stats("chat:lobby").await.unwrap().num_clients == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, subscribed).await.expect("it subscribes");
    crate::publish::publish(&control, KEY).await.unwrap();
    crate::stream::stream(&control, KEY, &["one", "two"]).await.unwrap();
    api.disconnect("ann", None).await.unwrap();
    timeout(PATIENCE, subscriber).await.expect("it ends").unwrap().unwrap();
    let kept =
        api.history("chat:lobby", &fanwire_client::HistoryQuery { limit: 10, ..Default::default() }).await.unwrap();
    let data: Vec<_> = kept.publications.iter().map(fanwire_client::Stored::data).collect();
    assert_eq!(data, ["\"hello\"", "\"one\"", "\"two\""]);
}
