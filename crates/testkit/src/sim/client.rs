//! A simulated client: what a client library does, and what happens to its user.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fanwire_node::{Failure, Recovery, SubscribeRequest, Subscribed};
use fanwire_wire::{Position, Publication};
use fastrand::Rng;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use super::mutant::Mutant;
use crate::oracle::{At, Event, Record, Seen};
use crate::{FakeClient, Frame};

/// One client and what it knows.
pub(super) struct SimClient<'a> {
    cluster: &'a Cluster,
    name: String,
    rng: Rng,
    connection: Option<FakeClient>,
    reconnect_at: Instant,
    channels: BTreeMap<String, Place>,
}

/// What a client knows of a channel.
#[derive(Default)]
struct Place {
    subscribed: bool,
    position: Option<Position>,
    /// Not before then.
    subscribe_at: Option<Instant>,
}

/// The codes of a connection that is lost, and of one whose user went elsewhere.
const LOST: u32 = 3000;

impl<'a> SimClient<'a> {
    pub(super) fn new(cluster: &'a Cluster, number: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut channels: BTreeMap<_, _> =
            cluster.channels.iter().map(|name| (name.clone(), Place::default())).collect();
        channels.retain(|_, _| rng.u8(..4) > 0);
        Self { cluster, name: format!("client{number}"), rng, connection: None, reconnect_at: Instant::now(), channels }
    }

    /// Lives until the cluster comes to rest, and then until the end.
    pub(super) async fn live(mut self) {
        while !self.cluster.is_over() {
            self.read();
            if self.cluster.is_restless() {
                self.act().await;
            }
            self.connect().await;
            self.subscribe().await;
            let pace = if self.cluster.is_restless() { 5..120 } else { 100..300 };
            sleep(Duration::from_millis(self.rng.u64(pace))).await;
        }
        self.read();
    }

    /// Something happens.
    async fn act(&mut self) {
        match self.rng.u8(..100) {
            0 => self.lose_connection(),
            1 => {
                // Some of what has arrived was never read.
                self.connection.iter().for_each(|connection| drop(connection.socket.take()));
                self.lose_connection();
            }
            2..4 => {
                let Some(channel) = self.any_channel() else { return };
                let Some(connection) = &self.connection else { return };
                connection.client.unsubscribe(&channel).await;
                self.read();
                self.end(&channel, &Event::Unsubscribed { code: 0 });
            }
            4 => {
                // Its user reloads the page.
                let Some(channel) = self.any_channel() else { return };
                if let Some(place) = self.channels.get_mut(&channel).filter(|place| !place.subscribed) {
                    place.position = None;
                }
            }
            5 => {
                let Some(connection) = &self.connection else { return };
                connection.socket.fill(self.rng.usize(..200));
                sleep(Duration::from_millis(self.rng.u64(..400))).await;
                connection.socket.drain();
                // What waited arrives before the answer to whatever the client asks next.
                sleep(Duration::from_millis(1)).await;
            }
            _ => {}
        }
    }

    fn any_channel(&mut self) -> Option<String> {
        let names: Vec<_> = self.channels.keys().cloned().collect();
        self.rng.choice(names)
    }

    async fn connect(&mut self) {
        if self.connection.is_some() || Instant::now() < self.reconnect_at {
            return;
        }
        let node = self.rng.usize(..self.cluster.nodes.len());
        let worker = self.rng.usize(..self.cluster.nodes[node].workers.len());
        let connection = self.cluster.nodes[node].open(worker);
        connection.connect("").await;
        self.connection = Some(connection);
    }

    /// Asks for one of the channels it is not subscribed to.
    async fn subscribe(&mut self) {
        let now = Instant::now();
        let due = |place: &Place| !place.subscribed && place.subscribe_at.is_none_or(|at| at <= now);
        let Some((channel, since)) = self
            .channels
            .iter()
            .find(|(_, place)| due(place))
            .map(|(name, place)| (name.clone(), place.position.clone()))
        else {
            return;
        };
        let Some(connection) = &self.connection else { return };
        let request =
            SubscribeRequest { channel: channel.clone(), since: since.clone(), ..SubscribeRequest::default() };
        let client = Rc::clone(&connection.client);
        let answer = if self.cluster.is_restless() && self.rng.u8(..10) == 0 {
            // The connection may be lost before the answer comes.
            let patience = Duration::from_millis(self.rng.u64(..1000));
            match timeout(patience, client.subscribe(request)).await {
                Ok(answer) => answer,
                Err(_) => return self.lose_connection(),
            }
        } else {
            client.subscribe(request).await
        };
        // What was written before is not part of the new subscription.
        self.read();
        match answer {
            Ok(subscribed) => self.subscribed(&channel, since.is_some(), subscribed),
            Err(Failure::Disconnect(disconnect)) => {
                client.close(disconnect);
                sleep(Duration::from_millis(1)).await;
                self.read();
            }
            Err(Failure::Backend(error)) => unreachable!("no hook is configured: {error:?}"),
            Err(Failure::Refusal(refusal)) => {
                assert!(refusal.temporary(), "{}: {refusal:?} is final", self.name);
                let wait = Duration::from_millis(self.rng.u64(10..500));
                self.channels.entry(channel).or_default().subscribe_at = Some(Instant::now() + wait);
            }
        }
    }

    fn subscribed(&mut self, channel: &str, was_recovering: bool, subscribed: Subscribed) {
        let Subscribed { position, recovery, .. } = subscribed;
        let was_recovering = was_recovering && position.is_some();
        let recovered = matches!(recovery, Some(Recovery::Complete(_)));
        self.log(channel, Event::Subscribed { recovered, was_recovering, at: position.as_ref().map(At::from) });
        let place = self.channels.entry(channel.to_owned()).or_default();
        place.subscribed = true;
        place.position = position;
        if let Some(Recovery::Complete(publications)) = recovery {
            for publication in publications {
                self.recovered(channel, &publication);
            }
        }
    }

    fn recovered(&mut self, channel: &str, publication: &Publication) {
        let position = publication.stamp.as_ref().map(|stamp| stamp.position.clone());
        let pub_id = serde_json::from_slice(publication.payload.bytes()).ok();
        self.publication(channel, position, pub_id);
    }

    fn publication(&mut self, channel: &str, position: Option<Position>, pub_id: Option<u64>) {
        let place = self.channels.entry(channel.to_owned()).or_default();
        let has_position = place.position.is_some();
        let at = position.as_ref().filter(|_| has_position).map(At::from);
        if has_position && position.is_some() {
            place.position = position;
        }
        self.log(channel, Event::Publication { at, pub_id });
    }

    /// Takes what arrived.
    fn read(&mut self) {
        let Some(connection) = &self.connection else { return };
        let mut frames = connection.socket.take();
        self.spoil(&mut frames);
        for frame in frames {
            match frame {
                Frame::Close(code, _) => return self.closed(u32::from(code)),
                Frame::Text(text) => self.take(&serde_json::from_str(&text).expect("the probe writes JSON")),
                other => panic!("unexpected frame {other:?}"),
            }
        }
        if self.connection.as_ref().is_some_and(|connection| connection.is_gone()) {
            self.closed(LOST);
        }
    }

    fn take(&mut self, frame: &Value) {
        let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        if let Some(data) = frame.get("pub") {
            let position = frame.get("offset").and_then(Value::as_u64);
            let position = position.map(|offset| Position { epoch: text("epoch").as_str().into(), offset });
            self.publication(&text("channel"), position, data.as_u64());
        } else if let Some(code) = frame.get("code").and_then(Value::as_u64) {
            if self.cluster.mutant != Some(Mutant::TellNobody) {
                self.end(&text("unsubscribed"), &Event::Unsubscribed { code: code as u32 });
            }
        } else {
            assert!(frame.get("ping").is_some(), "unexpected {frame}");
            let connection = self.connection.as_ref().expect("it arrived somewhere");
            connection.send(fanwire_wire::Message::Pong);
        }
    }

    /// One subscription is over.
    fn end(&mut self, channel: &str, event: &Event) {
        let wait = Duration::from_millis(self.rng.u64(10..1000));
        let Some(place) = self.channels.get_mut(channel) else { return };
        place.subscribe_at = Some(Instant::now() + wait);
        if std::mem::take(&mut place.subscribed) {
            self.log(channel, event.clone());
        }
    }

    fn lose_connection(&mut self) {
        self.read();
        if let Some(connection) = &self.connection {
            connection.leave();
            self.closed(LOST);
        }
    }

    fn closed(&mut self, code: u32) {
        self.connection = None;
        self.reconnect_at = Instant::now() + Duration::from_millis(self.rng.u64(..2000));
        let channels: Vec<_> = self.channels.keys().cloned().collect();
        for channel in channels {
            self.end(&channel, &Event::Disconnected { code });
        }
    }

    fn log(&self, channel: &str, event: Event) {
        let (subscriber, channel) = (self.name.clone(), channel.to_owned());
        self.cluster.record(Record::Seen(Seen { subscriber, channel, event }));
    }

    /// What a faulty gateway would have written.
    fn spoil(&mut self, frames: &mut Vec<Frame>) {
        let Some(mutant @ (Mutant::Drop | Mutant::Swap | Mutant::Duplicate)) = self.cluster.mutant else { return };
        let is_publication = |frame: &Frame| matches!(frame, Frame::Text(text) if text.contains("\"pub\""));
        let mut index = 0;
        while index < frames.len() {
            if is_publication(&frames[index]) && self.rng.u8(..10) == 0 {
                match mutant {
                    Mutant::Drop => drop(frames.remove(index)),
                    Mutant::Swap if frames.get(index + 1).is_some_and(is_publication) => frames.swap(index, index + 1),
                    Mutant::Duplicate => frames.insert(index, frames[index].clone()),
                    _ => {}
                }
                index += 1;
            }
            index += 1;
        }
    }
}
