//! Which server serves which partition: known for ever, or asked of sentinels or of the cluster, again and again.

mod cluster;
mod scouts;
mod sentinel;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, PushInfo, RedisError, RedisResult, Value};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::answers::{items, text};
use crate::config::Settings;
use crate::dial::Dialer;
use crate::keys::random_share;
use crate::partitions::{Partition, Partitions};
use crate::url::{Address, Kind, Url};
use scouts::Scouts;

/// Knows the server of each partition.
pub(crate) struct Topology {
    sites: Vec<Site>,
    pub(crate) partitions: Partitions,
    map: watch::Sender<Arc<Map>>,
}

/// What stands behind one URL: a server by itself, one that sentinels name, or a whole cluster.
struct Site {
    url: Url,
    /// For its servers.
    dialer: Dialer,
    /// Held by an inquiry, so that one serves all who wait.
    inquiry: Mutex<Inquiry>,
    /// The number of the last inquiry that began, and of the last one that came to its end.
    begun: AtomicU64,
    done: AtomicU64,
}

/// What is needed to ask where a server is.
struct Inquiry {
    scouts: Scouts,
    /// Whom to ask: those of the URL and, in a cluster, all nodes seen last.
    addresses: Vec<Address>,
    ended: Instant,
    failing: bool,
}

/// A server that is the primary of some partitions, as far as known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Server {
    /// The number of its URL.
    pub(crate) site: usize,
    pub(crate) address: Address,
}

impl Server {
    /// The one that this one names.
    pub(crate) fn to(&self, address: Address) -> Self {
        Self { site: self.site, address: address.said_by(&self.address) }
    }
}

/// The server of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map(Vec<Option<Server>>);

/// How often sentinels are asked, and a cluster. The latter is a backstop: a cluster redirects those who err.
const SENTINEL_PERIOD: Duration = Duration::from_secs(1);
const CLUSTER_PERIOD: Duration = Duration::from_secs(30);

/// The same as long as they do not answer.
const FAILING_PERIOD: Duration = Duration::from_millis(500);

/// The least time between two inquiries.
const SPACING: Duration = Duration::from_millis(20);

/// The nodes of a cluster that are asked, and the answers waited for: the one that knows the latest election is believed.
const CLUSTER_ASKED: usize = 8;
const CLUSTER_ENOUGH: usize = 3;

impl Topology {
    pub(crate) fn new(settings: Settings, timeout: Duration) -> Self {
        let Settings { urls, sentinel_password, certificates } = settings;
        let partitions = match &urls[..] {
            [Url { kind: Kind::Cluster, .. }] => Partitions::cluster(),
            _ => Partitions::servers(urls.len()),
        };
        let mut known: Vec<_> = partitions.all().map(|_| None).collect();
        for (site, url) in urls.iter().enumerate().filter(|(_, url)| url.kind == Kind::Server) {
            known[site] = url.addresses.first().map(|address| Server { site, address: address.clone() });
        }
        let site = |url: Url| {
            let certificates = url.tls.then(|| certificates.clone());
            let dialer = Dialer { login: url.login.clone(), certificates, timeout };
            let scout = match url.kind {
                Kind::Sentinel { .. } => dialer.for_sentinels(sentinel_password.as_deref()),
                _ => dialer.clone(),
            };
            let (scouts, addresses) = (Scouts::new(scout), url.addresses.clone());
            let inquiry = Mutex::new(Inquiry { scouts, addresses, ended: Instant::now(), failing: false });
            Site { url, dialer, inquiry, begun: AtomicU64::new(0), done: AtomicU64::new(0) }
        };
        let sites = urls.into_iter().map(site).collect();
        Self { sites, partitions, map: watch::Sender::new(Arc::new(Map(known))) }
    }

    /// The map, and its changes.
    pub(crate) fn map(&self) -> watch::Receiver<Arc<Map>> {
        self.map.subscribe()
    }

    /// The server of a partition; waits until there is one.
    pub(crate) async fn server(&self, partition: Partition) -> Server {
        let mut map = self.map.subscribe();
        loop {
            if let Some(server) = map.borrow_and_update().server(partition) {
                return server.clone();
            }
            // Its end is the sender's end, and that is in `self`.
            let _ = map.changed().await;
        }
    }

    /// Asks anew where the servers of a site are, and returns when an answer to this question has been taken note of, or when
    /// there was none. Where it is known for ever, there is nothing to ask.
    pub(crate) async fn refresh(&self, site: usize) {
        let number = site;
        let Some(site) = self.sites.get(site).filter(|site| site.url.kind != Kind::Server) else { return };
        let asked = site.begun.load(Ordering::SeqCst);
        let mut inquiry = site.inquiry.lock().await;
        // Begun after this question, ended before it could be asked.
        if site.done.load(Ordering::SeqCst) > asked {
            return;
        }
        sleep_until(inquiry.ended + SPACING).await;
        let round = site.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let found = match &site.url.kind {
            Kind::Server => true,
            Kind::Sentinel { primary } => self.ask_sentinels(number, primary, &mut inquiry).await,
            Kind::Cluster => self.ask_cluster(number, round, &mut inquiry).await,
        };
        if found != inquiry.failing {
            tracing::debug!(site = number, found, "asked where Redis is");
        } else if found {
            tracing::info!(site = number, "somebody says again where Redis is");
        } else {
            tracing::warn!(
                site = number,
                "nobody says where Redis is: no sentinel, or no node of a whole cluster, answers"
            );
        }
        inquiry.failing = !found;
        inquiry.ended = Instant::now();
        site.done.store(round, Ordering::SeqCst);
    }

    /// Asks again and again, for ever.
    pub(crate) async fn watch(self: Arc<Self>, site: usize) {
        let Some(kind) = self.sites.get(site).map(|site| &site.url.kind) else { return };
        let period = match kind {
            Kind::Server => return,
            Kind::Sentinel { .. } => SENTINEL_PERIOD,
            Kind::Cluster => CLUSTER_PERIOD,
        };
        loop {
            self.refresh(site).await;
            let failing = self.sites[site].inquiry.lock().await.failing;
            sleep(if failing { FAILING_PERIOD } else { period }.mul_f64(0.75 + random_share() / 2.0)).await;
        }
    }

    pub(crate) fn sites(&self) -> usize {
        self.sites.len()
    }

    /// Connects to a server. What it pushes goes to `pushes`.
    ///
    /// # Errors
    ///
    /// Also if sentinels gave its address and it says itself that it is no primary.
    pub(crate) async fn connect(
        &self,
        server: &Server,
        pushes: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let site = &self.sites[server.site];
        let mut connection = site.dialer.connect(&server.address, pushes).await?;
        if let Kind::Sentinel { .. } = site.url.kind {
            let command = redis::cmd("ROLE");
            let role = timeout(site.dialer.timeout, command.query_async::<Value>(&mut connection)).await;
            let role = role.map_err(|_| RedisError::from((ErrorKind::Io, "no answer in time")))??;
            if items(role).into_iter().next().and_then(text).as_deref() != Some("master") {
                return Err((ErrorKind::Io, "the server is not a primary").into());
            }
        }
        Ok(connection)
    }

    async fn ask_sentinels(&self, site: usize, primary: &str, inquiry: &mut Inquiry) -> bool {
        let Inquiry { scouts, addresses, .. } = inquiry;
        let answers = scouts.ask(addresses, addresses.len() / 2 + 1, &sentinel::question(primary)).await;
        let Some(address) = sentinel::primary(answers) else { return false };
        self.map.send_if_modified(|map| {
            let server = Some(Server { site, address });
            if map.0[site] == server {
                return false;
            }
            tracing::info!(site, primary, ?server, "the sentinels name a primary");
            Arc::make_mut(map).0[site] = server;
            true
        });
        true
    }

    async fn ask_cluster(&self, site: usize, round: u64, inquiry: &mut Inquiry) -> bool {
        let Inquiry { scouts, addresses, .. } = inquiry;
        // Of many nodes, others each time.
        let turn = if addresses.len() > CLUSTER_ASKED { (round as usize).wrapping_mul(CLUSTER_ASKED) } else { 0 };
        let turn = turn % addresses.len();
        addresses.rotate_left(turn);
        let asked = &addresses[..addresses.len().min(CLUSTER_ASKED)];
        let answers = scouts.ask(asked, CLUSTER_ENOUGH.min(asked.len()), &cluster::question()).await;
        let Some(view) = cluster::latest(answers) else { return false };
        let server = |partition| view.primary(self.partitions.slot(partition)?);
        let servers = self.partitions.all().map(server).map(|found| found.map(|address| Server { site, address }));
        let map = Map(servers.collect());
        *addresses = view.nodes();
        let given = self.sites[site].url.addresses.iter().filter(|given| !addresses.contains(given));
        addresses.extend(given.cloned().collect::<Vec<_>>());
        self.map.send_if_modified(|known| {
            let changed = **known != map;
            if changed {
                tracing::info!(servers = map.servers().len(), "the cluster has another form");
                *known = Arc::new(map);
            }
            changed
        });
        true
    }
}

impl Map {
    pub(crate) fn server(&self, partition: Partition) -> Option<&Server> {
        self.0.get(partition.index())?.as_ref()
    }

    /// All servers that serve something.
    pub(crate) fn servers(&self) -> BTreeSet<&Server> {
        self.0.iter().flatten().collect()
    }

    /// What a server serves.
    pub(crate) fn of(&self, server: &Server) -> impl Iterator<Item = Partition> {
        self.0.iter().zip(0..).filter(move |(at, _)| at.as_ref() == Some(server)).map(|(_, index)| Partition::at(index))
    }

    /// Whether each partition has a server.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}
