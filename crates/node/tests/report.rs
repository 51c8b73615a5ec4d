//! What a node says about its work: hot channels, slow clients, how much and how fast.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use std::time::Duration;

use fanwire_node::{Config, Missing, Namespace, NodeReport, Publish};
use fanwire_testkit::harness::{self, open_config};
use fanwire_testkit::{FakeClient, Harness, Lan};
use fanwire_wire::cluster::{Answer, ControlBody, Envelope, Question, Report, Traffic};
use fanwire_wire::{Channel, Payload};

/// Longer than the period over which channels are counted.
const PERIOD: Duration = Duration::from_secs(5);

fn config() -> Config {
    open_config(Namespace { presence: false, join_leave: false, ..Namespace::open("") })
}

async fn subscriber(harness: &Harness, user: &str, channels: &[&str]) -> FakeClient {
    let client = harness.probe(user).await;
    for channel in channels {
        client.subscribe(channel).await.unwrap();
    }
    client
}

async fn publish(harness: &Harness, channel: &str, times: usize) {
    for n in 0..times {
        let payload = Payload::json(n.to_string().into());
        harness.node.publish(Publish::new(Channel::new(channel).unwrap(), payload)).await.unwrap();
        harness.settle().await;
    }
}

fn hot(report: &Report) -> Vec<(&str, u64, f64, f64)> {
    let row = |hot: &fanwire_wire::cluster::HotChannel| {
        (hot.subscribers, hot.publications_per_second, hot.deliveries_per_second)
    };
    report
        .channels
        .iter()
        .map(|hot| (hot.channel.as_str(), row(hot)))
        .map(|(name, (a, b, c))| (name, a, b, c))
        .collect()
}

#[test]
fn the_channels_with_the_most_deliveries_come_first() {
    harness::run(config(), async |harness| {
        let _one = subscriber(harness, "user:1", &["wide", "narrow"]).await;
        let _two = subscriber(harness, "user:2", &["wide"]).await;
        let _three = subscriber(harness, "", &["wide", "silent"]).await;
        publish(harness, "wide", 5).await;
        publish(harness, "narrow", 10).await;
        publish(harness, "nobody", 100).await;
        assert_eq!(harness.node.report(10).await, Report::default(), "the period is not over");
        harness.pass(PERIOD).await;
        let report = harness.node.report(10).await;
        assert_eq!(hot(&report), [("wide", 3, 1.0, 3.0), ("narrow", 1, 2.0, 2.0)]);
        assert_eq!(hot(&harness.node.report(1).await), [("wide", 3, 1.0, 3.0)]);
        harness.pass(PERIOD).await;
        assert_eq!(harness.node.report(10).await, Report::default(), "nothing happened since");
    });
}

#[test]
fn clients_for_which_bytes_wait_are_named_until_they_took_them() {
    harness::run(config(), async |harness| {
        let quick = subscriber(harness, "user:1", &["chat"]).await;
        let slow = subscriber(harness, "user:2", &["chat", "more"]).await;
        let slower = subscriber(harness, "", &["chat", "more"]).await;
        slow.socket.fill(30);
        slower.socket.fill(0);
        publish(harness, "chat", 1).await;
        publish(harness, "more", 1).await;
        let named = |report: &Report| report.clients.iter().map(|slow| slow.client.clone()).collect::<Vec<_>>();
        let report = harness.node.report(10).await;
        assert_eq!(named(&report), [slower.client.id(), slow.client.id()]);
        assert_eq!((&*report.clients[1].user, &*report.clients[1].protocol), ("2", slow.client.protocol()));
        assert_eq!(report.clients[0].waiting_bytes - report.clients[1].waiting_bytes, 30);
        assert_eq!(named(&harness.node.report(1).await), [slower.client.id()]);
        slower.socket.drain();
        harness.settle().await;
        assert_eq!(named(&harness.node.report(10).await), [slow.client.id()]);
        drop((quick, slow));
        harness.settle().await;
        assert_eq!(harness.node.report(10).await.clients, []);
    });
}

#[test]
fn lists_have_an_end() {
    harness::run(config(), async |harness| {
        let mut clients = Vec::new();
        for n in 0..40 {
            let channel = format!("c{n}");
            let client = subscriber(harness, "", &[&channel]).await;
            client.socket.fill(0);
            publish(harness, &channel, 1).await;
            clients.push(client);
        }
        harness.pass(PERIOD).await;
        let Report { channels, clients } = harness.node.report(u32::MAX).await;
        assert_eq!((channels.len(), clients.len()), (32, 32));
        assert_eq!(harness.node.report(0).await, Report::default());
    });
}

#[test]
fn all_nodes_are_asked_and_the_silent_ones_named() {
    harness::on_paused_clock(async || {
        let lan = Lan::default();
        let start = || Harness::start(config(), |dispatcher| lan.broker(dispatcher));
        let [a, b] = [start(), start()];
        a.settle().await;
        let _one = subscriber(&a, "", &["chat"]).await;
        let two = subscriber(&b, "user:2", &["chat"]).await;
        two.socket.fill(0);
        publish(&a, "chat", 5).await;
        publish(&b, "chat", 10).await;
        a.pass(PERIOD).await;
        let survey = a.node.survey_reports(10).await.unwrap();
        assert_eq!(survey.missing, Missing::default());
        let [NodeReport { node: own, report: first }, NodeReport { node: other, report: second }] = &survey.reports[..]
        else {
            panic!("{survey:?}")
        };
        assert_eq!((&**own, &**other), (a.node.id(), b.node.id()), "its own report comes first");
        assert_eq!((hot(first), hot(second)), (vec![("chat", 1, 1.0, 1.0)], vec![("chat", 1, 2.0, 2.0)]));
        assert_eq!((first.clients.len(), &*second.clients[0].user), (0, "2"));
        let sum = Report::sum(survey.reports.into_iter().map(|node| node.report), 10);
        assert_eq!(hot(&sum), [("chat", 2, 2.0, 3.0)]);

        lan.unplug(b.node.id());
        let survey = a.node.survey_reports(10).await.unwrap();
        assert_eq!(survey.reports.len(), 1);
        assert_eq!(survey.missing.silent, [b.node.id()]);
    });
}

#[test]
fn a_node_says_how_much_it_does_and_how_fast() {
    harness::on_paused_clock(async || {
        let lan = Lan::default();
        let start = || Harness::start(config(), |dispatcher| lan.broker(dispatcher));
        let [a, b] = [start(), start()];
        a.settle().await;
        let clients = [subscriber(&b, "", &["chat"]).await, subscriber(&b, "", &["chat"]).await];
        clients[0].socket.fill(0);
        publish(&b, "chat", 3).await;
        b.pass(PERIOD + Duration::from_secs(3)).await;
        let seen_by = async |of: &Harness| {
            let nodes = of.node.nodes().await;
            nodes.into_iter().find(|node| node.id == b.node.id()).unwrap().info.traffic
        };
        let traffic = seen_by(&b).await;
        let Traffic { publications, deliveries, delivered_bytes, waiting_bytes, median, p99 } = traffic;
        assert_eq!((publications, deliveries), (3, 6));
        assert_eq!(waiting_bytes * 2, delivered_bytes, "one of two takes nothing");
        // The clock stands still meanwhile.
        let shortest = Duration::from_micros(1);
        assert_eq!((median, p99), (shortest, shortest));
        assert_eq!(seen_by(&a).await, traffic, "announced");
        b.pass(PERIOD).await;
        assert_eq!(seen_by(&b).await.p99, Duration::ZERO, "nothing was delivered in this one");
    });
}

#[test]
fn whoever_asks_is_answered() {
    harness::on_paused_clock(async || {
        let lan = Lan::default();
        let node = Harness::start(config(), |dispatcher| lan.broker(dispatcher));
        let heard = lan.stranger("asker");
        let body = ControlBody::Request { number: 7, question: Question::Report { limit: 3 } };
        let control = fanwire_wire::cluster::Control { from: "asker".to_owned(), body };
        let asked = Envelope::Control(Box::new(control)).encode();
        lan.carry(fanwire_node::broker::Recipient::All, &asked);
        node.settle().await;
        let answer = ControlBody::Reply { number: 7, answer: Answer::Report(Report::default()) };
        assert!(heard.lock().iter().any(|control| control.body == answer));
    });
}
