//! A cluster under load: from its start over a fault to the verdict.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fanwire_testkit::oracle::{At, Entry, Event, Log, Marker, Outcome, Record, Rules, Stream};
use fanwire_wire::cluster::Envelope;
use fanwire_wire::{Broadcast, Stamp};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::figures::{Figures, Times};
use crate::gateway::Gateway;
use crate::home::Home;
use crate::netns::Namespace;
use crate::proxy::Proxy;
use crate::publisher::{Address, Load, Nodes, Publisher, Repeat, Sent};
use crate::redis::{Keeps, Redis};
use crate::resp::Value;
use crate::subscriber::{Manners, Subscriber};
use crate::{long_or, until, within};

/// How a cluster is built and what it bears.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) keeps: Keeps,
    /// The way to Redis leads through proxies.
    pub(crate) proxied: bool,
    pub(crate) load: Load,
    /// Subscribers and channels with recovery.
    pub(crate) recoverable: (usize, usize),
    /// Subscribers and channels with recovery on which nothing is published under the load.
    pub(crate) quiet: (usize, usize),
    /// Subscribers and channels without recovery.
    pub(crate) plain: (usize, usize),
    /// All of them connect to the first gateway.
    pub(crate) on_one: bool,
    /// After how long without Redis a gateway hands its clients over, as its configuration says it.
    pub(crate) give_up_after: &'static str,
    /// More keys of the section `[client]`.
    pub(crate) client: &'static str,
    /// More sections of the configuration.
    pub(crate) more: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            keeps: Keeps::Everything,
            proxied: false,
            load: Load { rate: 500, repeat: Repeat::Unknown },
            recoverable: (300, 50),
            quiet: (0, 0),
            plain: (100, 20),
            on_one: false,
            give_up_after: "0s",
            client: "insecure = true",
            more: "",
        }
    }
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) redis: Redis,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) subscribers: Vec<Subscriber>,
    manners: Manners,
    setup: Setup,
    nodes: Nodes,
    channels: Vec<String>,
    publisher: Publisher,
    /// Where the first gateway lives.
    home: Home,
    fault: Option<Moment>,
    healed: Option<Instant>,
}

/// When the fault began, and what was counted until then.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    reads: u64,
}

/// The gateways of a cluster.
pub(crate) const NODES: usize = 3;

/// How long the load runs before the fault, and after it at least.
fn warm() -> Duration {
    Duration::from_secs(long_or(2, 1))
}

/// How long a cluster may take to serve everybody again. A bound for the test, far above what is measured.
const PATIENCE: Duration = Duration::from_secs(40);

impl Bench {
    /// Starts three gateways on a Redis server and puts them under load.
    pub(crate) async fn start(setup: Setup) -> Self {
        Self::start_in(setup, Home::Machine).await
    }

    /// The same with a home of its own for the first gateway.
    pub(crate) async fn start_in(setup: Setup, home: Home) -> Self {
        let redis = Redis::start(setup.keeps).await;
        let mut proxies = Vec::new();
        let mut gateways = Vec::new();
        for number in 0..NODES {
            let home = if number == 0 { &home } else { &Home::Machine };
            let mut address = redis.address_at(home.host());
            if setup.proxied {
                let proxy = Proxy::start(address).await;
                address = proxy.address();
                proxies.push(proxy);
            }
            gateways.push(Gateway::start(&config(address, &setup), home).await);
        }
        let nodes = Nodes::default();
        // Who is told to come later asks the same one again.
        nodes.set(gateways.iter().take(if setup.on_one { 1 } else { NODES }).map(address).collect());
        let manners = Manners::default();
        let (subscribers, channels) = populate(&setup, &nodes, &gateways, &manners);
        until(PATIENCE, "everybody is subscribed", async || subscribers.iter().all(Subscriber::is_live)).await;
        nodes.set(gateways.iter().map(address).collect());
        let busy: Vec<_> = channels.iter().filter(|channel| !channel.starts_with(QUIET)).cloned().collect();
        let publisher = Publisher::start(&nodes, &busy, setup.load);
        sleep(warm()).await;
        Self {
            redis,
            gateways,
            proxies,
            subscribers,
            manners,
            setup,
            nodes,
            channels,
            publisher,
            home,
            fault: None,
            healed: None,
        }
    }

    /// The fault begins.
    pub(crate) async fn fault_begins(&mut self) -> Instant {
        let reads = self.redis.history_reads().await;
        let at = Instant::now();
        self.fault = Some(Moment { at, reads });
        at
    }

    /// The fault is over, as far as the test is concerned.
    pub(crate) fn fault_ends(&mut self) -> Instant {
        *self.healed.insert(Instant::now())
    }

    /// Where the first gateway lives.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// The cable of the first gateway, and the port of Redis at its other end.
    pub(crate) fn cable(&self) -> (&Namespace, u16) {
        let Home::Cable(namespace) = &self.home else { panic!("the first gateway has no cable") };
        (namespace, self.redis.address().port())
    }

    /// Sends nobody to a gateway any more, and kills it.
    pub(crate) fn kill(&mut self, number: usize) {
        self.gateways[number].kill();
        let alive = self.gateways.iter().filter(|gateway| gateway.is_alive());
        self.nodes.set(alive.map(address).collect());
    }

    /// Tells a gateway to end, as an upgrade does, and waits until it has; returns how long that took. Fails unless it ends
    /// well.
    pub(crate) async fn end(&mut self, number: usize) -> Duration {
        let begun = Instant::now();
        self.gateways[number].signal(Signal::TERM);
        let gateway = &mut self.gateways[number];
        until(PATIENCE, "the gateway has ended", async || gateway.has_ended()).await;
        let took = begun.elapsed();
        let alive = self.gateways.iter().filter(|gateway| gateway.is_alive());
        self.nodes.set(alive.map(address).collect());
        took
    }

    /// How many clients are on a gateway.
    pub(crate) fn clients_of(&self, number: usize) -> usize {
        let address = self.gateways[number].public;
        self.subscribers.iter().filter(|subscriber| subscriber.notes(|notes| notes.node == Some(address))).count()
    }

    /// Starts another gateway in the place of a killed one.
    pub(crate) async fn replace(&mut self, number: usize) {
        let redis = self.proxies.get(number).map_or_else(|| self.redis.address(), Proxy::address);
        self.gateways[number] = Gateway::start(&config(redis, &self.setup), &Home::Machine).await;
        self.nodes.set(self.gateways.iter().map(address).collect());
    }

    /// Waits until Redis carries everything again.
    pub(crate) async fn until_ready(&self) {
        for gateway in self.gateways.iter().filter(|gateway| gateway.is_alive()) {
            gateway.until_ready().await;
        }
    }

    /// Lets clients leave and come back all the time, or waits until all of them are there and stay.
    pub(crate) async fn restless(&self, restless: bool) {
        self.manners.restless(restless);
        if !restless {
            self.until_all(PATIENCE, "subscribed", Subscriber::is_live).await;
        }
    }

    /// Stops the load; returns what was published.
    pub(crate) async fn quiet(&mut self) -> Vec<Sent> {
        within(Duration::from_secs(150), "every publication is settled", self.publisher.stop()).await
    }

    /// Publishes once to every channel, for sure.
    pub(crate) async fn publish_everywhere(&self) -> Vec<Sent> {
        self.publisher.publish_to(&self.nodes, &self.channels).await
    }

    /// Waits until every subscriber has seen the last of these publications on its channel.
    pub(crate) async fn until_seen(&self, sent: &[Sent], limit: Duration) {
        let last = |channel: &str| {
            let of_channel = sent.iter().filter(|sent| sent.published.channel == channel);
            of_channel.map(|sent| sent.published.pub_id).max()
        };
        self.until_all(limit, "neither deaf nor dead", |subscriber| {
            let last = last(&subscriber.channel);
            subscriber.notes(|notes| notes.dead.is_none() && notes.last >= last)
        })
        .await;
    }

    /// Waits until something is true of every subscriber, and says of whom it is not.
    async fn until_all(&self, limit: Duration, what: &str, is_true: impl Fn(&Subscriber) -> bool) {
        let end = Instant::now() + limit;
        let others = || self.subscribers.iter().filter(|subscriber| !is_true(subscriber));
        while others().next().is_some() && Instant::now() < end {
            sleep(Duration::from_millis(10)).await;
        }
        let others: String = others().map(|subscriber| format!("\n  {}", subscriber.state())).collect();
        assert!(others.is_empty(), "not {what} within {limit:?}:{others}");
    }

    /// Lets the load run on for a moment, stops it, and judges what everybody saw.
    pub(crate) async fn finish(mut self, name: &'static str) -> Figures {
        sleep(warm()).await;
        let mut sent = self.quiet().await;
        let markers = self.publish_everywhere().await;
        self.until_seen(&markers, PATIENCE).await;
        sent.extend(markers.iter().cloned());
        self.judge(name, sent, &markers).await
    }

    /// Judges what everybody saw of all that was sent.
    pub(crate) async fn judge(mut self, name: &'static str, sent: Vec<Sent>, markers: &[Sent]) -> Figures {
        let fault = self.fault.expect("there was a fault");
        let reads = self.redis.history_reads().await - fault.reads;
        let mut log = Log::default();
        sent.iter().for_each(|sent| log.published(sent.published.clone()));
        for Sent { published, .. } in markers {
            assert!(matches!(published.outcome, Outcome::Acked(_)), "{published:?}");
            let marker = Marker { channel: published.channel.clone(), pub_id: published.pub_id };
            log.records.push(Record::Marker(marker));
        }
        for channel in self.channels.iter().filter(|channel| channel.starts_with(RECOVERABLE)) {
            let stream = read_stream(&self.redis, channel).await;
            log.records.push(Record::Stream(stream));
        }
        let (mut resubscribed, mut seen) = (0, Vec::new());
        for subscriber in std::mem::take(&mut self.subscribers) {
            let (name, channel, notes) = subscriber.stop().await;
            let subscribed = notes.events.iter().filter(|(_, event)| matches!(event, Event::Subscribed { .. })).count();
            resubscribed += subscribed - 1;
            notes.events.iter().for_each(|(_, event)| log.seen(&name, &channel, event.clone()));
            seen.extend(notes.events.into_iter().filter_map(|(at, event)| match event {
                Event::Publication { pub_id: Some(pub_id), .. } => Some((pub_id, at)),
                _ => None,
            }));
        }
        self.gateways.iter().filter(|gateway| gateway.is_alive()).for_each(Gateway::check_log);
        let refused = sent.iter().filter(|sent| sent.published.outcome == Outcome::Refused);
        let refused: HashSet<_> = refused.map(|sent| sent.published.pub_id).collect();
        let arrived = seen.iter().filter(|(id, _)| refused.contains(id)).count();
        assert_eq!(arrived, 0, "{name}: of {} refused publications some arrived", refused.len());
        let report = log.judge(&Rules::default());
        let times = Times::of(fault.at, self.healed.unwrap_or(fault.at), &self.gateways, &sent, &seen);
        let figures = Figures { name, report, reads, resubscribed, times };
        figures.print();
        figures
    }
}

/// What channels with recovery begin with, the quiet ones of them, and those without.
const RECOVERABLE: &str = "kept:";
pub(crate) const QUIET: &str = "kept:quiet";
const PLAIN: &str = "plain:";

fn populate(setup: &Setup, nodes: &Nodes, gateways: &[Gateway], manners: &Manners) -> (Vec<Subscriber>, Vec<String>) {
    let (mut subscribers, mut channels) = (Vec::new(), Vec::new());
    for (prefix, (clients, number)) in [(RECOVERABLE, setup.recoverable), (QUIET, setup.quiet), (PLAIN, setup.plain)] {
        let own = (0..number).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
        for n in 0..clients {
            let channel = own[n % number].clone();
            let first = gateways[if setup.on_one { 0 } else { (n / number) % gateways.len() }].public;
            subscribers.push(Subscriber::start(format!("{prefix}client{n}"), channel, nodes, first, manners));
        }
        channels.extend(own);
    }
    (subscribers, channels)
}

fn address(gateway: &Gateway) -> Address {
    Address { public: gateway.public, control: gateway.control }
}

/// Histories are long enough to hold everything, so that the oracle can read all of it.
pub(crate) fn config(redis: SocketAddr, setup: &Setup) -> String {
    let Setup { give_up_after, client, more, .. } = setup;
    format!(
        r#"
[broker]
kind = "redis"
redis = {{ urls = ["redis://{redis}"], give_up_after = "{give_up_after}" }}
[client]
history_limit = 20000
{client}
[[namespace]]
name = "kept"
subscribe = "anyone"
presence = true
history_size = 20000
history_ttl = "1h"
recovery = true
[[namespace]]
name = "plain"
subscribe = "anyone"
{more}
"#
    )
}

/// Reads all that Redis keeps of a channel, past the gateways.
async fn read_stream(redis: &Redis, channel: &str) -> Stream {
    let keys = redis.ask(&["KEYS", &format!("fanwire:stream:*{channel}")]).await.items();
    let key = keys.iter().map(Value::text).find(|key| key.ends_with(&format!(":{channel}"))).expect("a stream");
    let mut entries = Vec::new();
    for entry in redis.ask(&["XRANGE", &key, "-", "+"]).await.items() {
        let [_, fields] = <[_; 2]>::try_from(entry.items()).expect("an id and its fields");
        let Some(Value::Bytes(Some(envelope))) = fields.items().into_iter().nth(1) else { panic!("an envelope") };
        let Ok(Envelope::Broadcast(Broadcast::Publication(publication))) = Envelope::decode(Bytes::from(envelope))
        else {
            panic!("a publication")
        };
        let Some(Stamp { position, prev }) = &publication.stamp else { panic!("a stamp") };
        let data: serde_json::Value = serde_json::from_slice(publication.payload.bytes()).expect("JSON");
        entries.push(Entry { at: At::from(position), prev: *prev, pub_id: data["id"].as_u64().expect("an id") });
    }
    let top = entries.iter().map(|entry| &entry.at).max_by_key(|at| at.offset).expect("an entry").clone();
    Stream { channel: channel.to_owned(), top, entries }
}
