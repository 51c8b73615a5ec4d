//! Commands, each sent to the server of its partition, and answered or given up within the configured time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::Error;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::functions::{Call, Function};
use crate::link::{Asking, Link, Request};
use crate::partitions::Partition;
use crate::topology::{Server, Topology};
use crate::url::Address;

/// Keeps one connection to each server. A request follows its partition wherever it is served.
pub(crate) struct Commands {
    topology: Arc<Topology>,
    timeout: Duration,
    links: Mutex<HashMap<Server, Arc<Seat>>>,
}

/// The place of a link. Held while connecting, so that one attempt serves all who wait.
type Seat = tokio::sync::Mutex<Dialled>;

#[derive(Default)]
struct Dialled {
    link: Option<Link>,
    failed: Option<(Instant, Error)>,
}

/// What a server's refusal means for what was asked. In no case was anything applied.
enum Refusal {
    /// Another server does it.
    Moved(Address),
    /// Another server does it, this time.
    Ask(Address),
    /// The same server will do it soon.
    Later,
    /// The cluster does nothing at the moment; its form may change.
    Down,
    /// The server is no primary; who is one has to be asked.
    Elsewhere,
    /// It is refused.
    Final,
}

/// How often one request is sent at most: on its way through a slot that is handed over, it is sent on or back several times.
const MAX_ATTEMPTS: usize = 32;

/// How long a request waits that a server may soon take, and how long a failed dial answers for the ones behind it.
const PAUSE: Duration = Duration::from_millis(25);

impl Commands {
    pub(crate) fn new(topology: Arc<Topology>, timeout: Duration) -> Self {
        Self { topology, timeout, links: Mutex::default() }
    }

    /// Calls a function of the library.
    pub(crate) async fn call(
        &self,
        partition: Partition,
        function: Function,
        keys: &[String],
        args: &[Bytes],
    ) -> Result<Value, Error> {
        self.run(partition, Request::Call(&Call { function, keys, args })).await
    }

    /// Runs one command.
    pub(crate) async fn command(&self, partition: Partition, command: &Cmd) -> Result<Value, Error> {
        self.run(partition, Request::Command(command)).await
    }

    /// Runs commands in one round trip to each server concerned; those of one partition in their order.
    pub(crate) async fn batch(&self, commands: &[(Partition, Cmd)]) -> Vec<Result<Value, Error>> {
        let mut by_server: BTreeMap<Option<Server>, Vec<usize>> = BTreeMap::new();
        let map = self.topology.map().borrow().clone();
        for (index, (partition, _)) in commands.iter().enumerate() {
            by_server.entry(map.server(*partition).cloned()).or_default().push(index);
        }
        let deadline = Instant::now() + self.timeout;
        let groups = by_server.iter().map(async |(server, indexes)| {
            let group: Vec<_> = indexes.iter().map(|index| &commands[*index]).collect();
            self.pipeline(server.as_ref(), &group, deadline).await
        });
        let mut answers: Vec<_> = commands.iter().map(|_| Err(Error::OutcomeUnknown)).collect();
        for (indexes, group) in by_server.values().zip(join_all(groups).await) {
            for (index, answer) in indexes.iter().zip(group) {
                answers[*index] = answer;
            }
        }
        answers
    }

    async fn pipeline(
        &self,
        server: Option<&Server>,
        commands: &[&(Partition, Cmd)],
        deadline: Instant,
    ) -> Vec<Result<Value, Error>> {
        let all = |error: Error| commands.iter().map(|_| Err(error.clone())).collect();
        let each =
            async || join_all(commands.iter().map(|(partition, command)| self.command(*partition, command))).await;
        let Some(server) = server else { return each().await };
        let mut link = match timeout_at(deadline, self.link(server)).await {
            Ok(Ok(Some(link))) => link,
            Ok(Ok(None)) => return each().await,
            Ok(Err(error)) => return all(error),
            Err(_) => return all(unavailable("no connection to Redis in time")),
        };
        let plain: Vec<_> = commands.iter().map(|(_, command)| command).collect();
        let Ok(Ok(answers)) = timeout_at(deadline, link.pipeline(&plain)).await else {
            link.give_up();
            return all(Error::OutcomeUnknown);
        };
        if !self.serves(server) {
            return all(Error::OutcomeUnknown);
        }
        // What this server does not do any more goes its own way.
        let settled = answers.into_iter().zip(commands).map(async |(answer, (partition, command))| match answer {
            Ok(answer) => Ok(answer),
            Err(error) => match Refusal::of(&error) {
                None | Some(Refusal::Final) => Err(unavailable(&error.to_string())),
                Some(_) => self.command(*partition, command).await,
            },
        });
        join_all(settled).await
    }

    async fn run(&self, partition: Partition, request: Request<'_>) -> Result<Value, Error> {
        let deadline = Instant::now() + self.timeout;
        let mut refused = unavailable("no connection to Redis in time");
        let mut named = None;
        for _ in 0..MAX_ATTEMPTS {
            let known = named.is_none();
            let Ok(reached) = timeout_at(deadline, self.reach(partition, named.take())).await else { break };
            let (server, mut link, asking) = reached?;
            let error = match timeout_at(deadline, link.run(request, asking)).await {
                Ok(Ok(_)) if known && !self.serves(&server) => return Err(Error::OutcomeUnknown),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                // Sent and not answered. A connection that owes an answer is not trusted again.
                Err(_) => {
                    link.give_up();
                    return Err(Error::OutcomeUnknown);
                }
            };
            let Some(refusal) = Refusal::of(&error) else {
                link.give_up();
                return Err(Error::OutcomeUnknown);
            };
            refused = unavailable(&error.to_string());
            match refusal {
                Refusal::Final => break,
                Refusal::Later => sleep(PAUSE).await,
                Refusal::Ask(address) => named = Some((server.to(address), Asking::Yes)),
                Refusal::Moved(address) => {
                    // Those who come after shall find the way by themselves.
                    self.ask_where(server.site).await;
                    named = Some((server.to(address), Asking::No));
                }
                Refusal::Down => {
                    self.ask_where(server.site).await;
                    sleep(PAUSE).await;
                }
                // The same address may lead to another server by now.
                Refusal::Elsewhere => {
                    link.give_up();
                    sleep(PAUSE).await;
                }
            }
        }
        Err(refused)
    }

    /// The server to ask, and a connection to it.
    async fn reach(
        &self,
        partition: Partition,
        named: Option<(Server, Asking)>,
    ) -> Result<(Server, Link, Asking), Error> {
        if let Some((server, asking)) = named {
            let link = self.dial(&server).await?;
            return Ok((server, link, asking));
        }
        loop {
            let server = self.topology.server(partition).await;
            if let Some(link) = self.link(&server).await? {
                return Ok((server, link, Asking::No));
            }
        }
    }

    /// The connection to a server. Before one is dialled, it is asked where the server is; `None` if there is none any more.
    async fn link(&self, server: &Server) -> Result<Option<Link>, Error> {
        if let Some(link) = self.seat(server).lock().await.live() {
            return Ok(Some(link));
        }
        self.ask_where(server.site).await;
        if !self.serves(server) {
            return Ok(None);
        }
        self.dial(server).await.map(Some)
    }

    /// Whether a server still has a part in this. One that a failover has replaced may go on for a while as if nothing had
    /// happened: what it says then will be forgotten.
    fn serves(&self, server: &Server) -> bool {
        self.topology.map().borrow().servers().contains(server)
    }

    /// Asks where the servers are. Those who should know and are silent must not use up all the time there is.
    async fn ask_where(&self, site: usize) {
        let _ = timeout(self.timeout / 3, self.topology.refresh(site)).await;
    }

    async fn dial(&self, server: &Server) -> Result<Link, Error> {
        let seat = self.seat(server);
        let mut seat = seat.lock().await;
        if let Some(link) = seat.live() {
            return Ok(link);
        }
        if let Some((at, error)) = &seat.failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        seat.link = None;
        match Link::connect(&self.topology, server).await {
            Ok(link) => Ok(seat.link.insert(link).clone()),
            Err(error) => {
                let error = unavailable(&error.to_string());
                seat.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn seat(&self, server: &Server) -> Arc<Seat> {
        let mut links = self.links.lock();
        if !links.contains_key(server) {
            // Servers that serve nothing any more leave.
            let map = self.topology.map();
            let map = map.borrow();
            links.retain(|server, _| map.servers().contains(server));
        }
        Arc::clone(links.entry(server.clone()).or_default())
    }
}

impl Dialled {
    fn live(&self) -> Option<Link> {
        self.link.as_ref().filter(|link| !link.is_broken()).cloned()
    }
}

impl Refusal {
    /// `None` if it is no answer of a server.
    fn of(error: &RedisError) -> Option<Self> {
        let code = error.code()?;
        let address = || error.redirect_node().and_then(|(address, _)| Address::parse(address));
        Some(match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => address().map_or(Self::Elsewhere, Self::Moved),
            ErrorKind::Server(ServerErrorKind::Ask) => address().map_or(Self::Later, Self::Ask),
            ErrorKind::Server(ServerErrorKind::TryAgain) => Self::Later,
            ErrorKind::Server(ServerErrorKind::ClusterDown) => Self::Down,
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Self::Elsewhere,
            _ if code == "NOREPLICAS" => Self::Later,
            _ => Self::Final,
        })
    }
}

fn unavailable(reason: &str) -> Error {
    Error::Unavailable(reason.into())
}
