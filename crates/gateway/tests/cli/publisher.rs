//! Publishing over one gRPC call, also where the way to the gateway breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanwire_client::{Api, Error, HistoryQuery, Position, Publish, Publisher, PublisherConfig};
use futures_util::FutureExt;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::library::{PATIENCE, api};
use crate::server::{KEY, Server};

fn config(url: &str) -> PublisherConfig {
    let config = PublisherConfig::new(url).backoff(Duration::from_millis(1), Duration::from_millis(20));
    config.patience(PATIENCE).key(KEY).unwrap()
}

fn number(number: u32) -> Publish {
    Publish::json("chat:a", &number).unwrap()
}

async fn offset(answer: impl Future<Output = Result<Option<Position>, Error>>) -> u64 {
    timeout(PATIENCE, answer).await.expect("an answer in time").unwrap().expect("it is kept").offset
}

/// Everything a channel keeps, read part by part.
async fn kept(api: &Api) -> Vec<u32> {
    let mut kept = Vec::new();
    let mut query = HistoryQuery { limit: -1, since: Some(Position::default()), ..HistoryQuery::default() };
    loop {
        let part = api.history("chat:a", &query).await.unwrap();
        let Some(last) = part.publications.last() else { return kept };
        query.since = Some(Position { offset: last.offset, epoch: part.epoch });
        kept.extend(part.publications.iter().map(|one| serde_json::from_slice::<u32>(&one.data()).unwrap()));
    }
}

/// A way to a server that can be cut, and that can swallow what is said on it.
struct Wire {
    url: String,
    is_silent: Arc<AtomicBool>,
    cut: tokio::sync::watch::Sender<u32>,
    accepting: AbortHandle,
}

impl Wire {
    async fn to(server: &Server) -> Self {
        let target = server.control.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let is_silent = Arc::new(AtomicBool::new(false));
        let (cut, cuts) = tokio::sync::watch::channel(0);
        let silent = Arc::clone(&is_silent);
        let accepting = tokio::spawn(async move {
            let mut ways = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (target, mut cuts, silent) = (target.clone(), cuts.clone(), Arc::clone(&silent));
                cuts.mark_unchanged();
                ways.spawn(async move {
                    let carry = async {
                        if silent.load(Ordering::Relaxed) {
                            std::future::pending::<()>().await;
                        }
                        let mut far = TcpStream::connect(&target).await.unwrap();
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    };
                    tokio::select! { () = carry => {}, _ = cuts.changed() => {} }
                });
            }
        });
        Self { url, is_silent, cut, accepting: accepting.abort_handle() }
    }

    /// Breaks all connections.
    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test]
async fn acknowledgements_have_positions_in_order() {
    let server = Server::start();
    let publisher = Publisher::new(&config(&server.control)).unwrap();
    let mut sent = Vec::new();
    for round in 0..1000 {
        sent.push(publisher.send(number(round)).await.unwrap());
    }
    for (before, answer) in sent.into_iter().enumerate() {
        assert_eq!(offset(answer).await, before as u64 + 1);
    }
    assert!(kept(&api(&server)).await.into_iter().eq(0..1000));
    let plain = publisher.publish(Publish::bytes("members:1", &[0xff]).event("moved").tag("a", "b")).await;
    assert_eq!(plain.unwrap(), None, "this channel keeps nothing");
}

#[tokio::test]
async fn a_call_that_breaks_loses_nothing_and_repeats_nothing() {
    let server = Server::start();
    let wire = Wire::to(&server).await;
    let publisher = Publisher::new(&config(&wire.url).in_flight(64)).unwrap();
    let mut sent = Vec::new();
    for round in 0..1000 {
        if round % 50 == 25 {
            wire.cut();
        }
        sent.push(publisher.send(number(round)).await.unwrap());
    }
    for (before, answer) in sent.into_iter().enumerate() {
        assert_eq!(offset(answer).await, before as u64 + 1);
    }
    assert!(kept(&api(&server)).await.into_iter().eq(0..1000));
}

#[tokio::test]
async fn no_more_are_under_way_than_allowed() {
    let server = Server::start();
    let wire = Wire::to(&server).await;
    wire.is_silent.store(true, Ordering::Relaxed);
    let publisher = Publisher::new(&config(&wire.url).in_flight(10)).unwrap();
    let mut sent = Vec::new();
    // A large one counts as several.
    sent.push(publisher.send(Publish::bytes("chat:a", &[b'1'; 10_000])).await.unwrap());
    for round in 0..7 {
        sent.push(publisher.send(number(round)).await.unwrap());
    }
    assert!(publisher.send(number(7)).now_or_never().is_none(), "there is no room");
    wire.is_silent.store(false, Ordering::Relaxed);
    wire.cut();
    sent.push(timeout(PATIENCE, publisher.send(number(7))).await.expect("room in time").unwrap());
    for (before, answer) in sent.into_iter().enumerate() {
        assert_eq!(offset(answer).await, before as u64 + 1);
    }
    // Larger than all that is allowed, it goes alone.
    let large = Publish::bytes("chat:a", &[b'1'; 60_000]);
    assert_eq!(offset(publisher.publish(large)).await, 10);
}

#[tokio::test]
async fn what_was_sent_arrives_without_its_publisher() {
    let server = Server::start();
    let publisher = Publisher::new(&config(&server.control)).unwrap();
    let answer = publisher.send(number(1)).await.unwrap();
    drop(publisher.send(number(2)).await.unwrap());
    let last = publisher.send(number(3)).await.unwrap();
    drop(publisher);
    assert_eq!((offset(answer).await, offset(last).await), (1, 3));
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = Server::start();
    let publisher = Publisher::new(&config(&server.control)).unwrap();
    let refused = publisher.publish(Publish::json("nowhere:1", &1).unwrap()).await;
    assert!(matches!(&refused, Err(Error::Refused(refusal)) if refusal.code == 102), "{refused:?}");
    assert_eq!(offset(publisher.publish(number(1))).await, 1);

    let stranger = PublisherConfig::new(&server.control).key("nobody").unwrap();
    let refused = Publisher::new(&stranger).unwrap().publish(number(1)).await;
    assert!(matches!(&refused, Err(Error::Refused(refusal)) if refusal.code == 101), "{refused:?}");
    // Where something listens that speaks no gRPC.
    let elsewhere = config(&server.public.replace("ws://", "http://")).patience(Duration::from_millis(300));
    let refused = Publisher::new(&elsewhere).unwrap().publish(number(1)).await;
    assert!(matches!(refused, Err(Error::Unreachable { .. } | Error::Foreign { .. })), "{refused:?}");

    let wire = Wire::to(&server).await;
    wire.is_silent.store(true, Ordering::Relaxed);
    let hasty = Publisher::new(&config(&wire.url).patience(Duration::from_millis(50))).unwrap();
    let late = hasty.publish(number(2)).await;
    assert!(matches!(&late, Err(error @ Error::Unreachable { .. }) if error.is_temporary()), "{late:?}");
    assert!(matches!(Publisher::new(&config("127.0.0.1:8010")), Err(Error::Usage(_))));
}
