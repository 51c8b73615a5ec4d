//! The connection for subscriptions to one server: dialled for ever, trusted only as long as what the node says comes back.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::PushInfo;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::keys::random_share;
use crate::reception::Reception;
use crate::session::Session;
use crate::topology::Server;

/// Listens to one server.
pub(crate) struct Subscriber {
    pub(crate) shared: Arc<Reception>,
    pub(crate) server: Server,
    /// The server's number, for metrics and health.
    pub(crate) shard: usize,
}

/// Messages read from the socket and not dispatched. More, and the connection is given up: what is missed then is noticed
/// and repaired like any other gap.
const QUEUE: usize = 64 * 1024;

/// The time between two attempts to connect grows from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a connection ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// It could not be made.
    Connect,
    /// The server, or the network, ended it.
    Disconnected,
    /// Nothing that the node says came back.
    Silent,
    /// It brought more than could be dispatched.
    Overflow,
    /// A subscription was not confirmed.
    Unconfirmed,
    /// Positions could not be compared.
    Unsynced,
    /// The server serves nothing any more.
    Idle,
}

impl End {
    const ALL: [Self; 7] = [
        Self::Connect,
        Self::Disconnected,
        Self::Silent,
        Self::Overflow,
        Self::Unconfirmed,
        Self::Unsynced,
        Self::Idle,
    ];

    fn count(self, shard: usize) -> metrics::Counter {
        metrics::counter!("fanwire_redis_reconnects_total", "shard" => shard.to_string(), "reason" => self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnected => "disconnected",
            Self::Silent => "silent",
            Self::Overflow => "overflow",
            Self::Unconfirmed => "unconfirmed",
            Self::Unsynced => "unsynced",
            Self::Idle => "idle",
        }
    }
}

impl Subscriber {
    /// Connects, subscribes, receives; and again, for ever.
    pub(crate) async fn run(self) {
        End::ALL.iter().for_each(|end| end.count(self.shard).increment(0));
        let mut ceiling = BACKOFF.0;
        loop {
            let Err(end) = self.session().await;
            if self.shared.health.is_shard_up(self.shard) {
                ceiling = BACKOFF.0;
            }
            self.shared.health.down(self.shard, end.name());
            end.count(self.shard).increment(1);
            sleep(ceiling.mul_f64(random_share())).await;
            ceiling = (ceiling * 2).min(BACKOFF.1);
            // If another server takes its place, this is the end of it.
            self.shared.topology.refresh(self.server.site).await;
        }
    }

    async fn session(&self) -> Result<Infallible, End> {
        let (sender, pushes) = mpsc::channel(QUEUE);
        let overflowed = Arc::new(AtomicBool::new(false));
        let overflow = Arc::clone(&overflowed);
        let push = move |push: PushInfo| {
            if sender.try_send(push).is_err() {
                overflow.store(true, Ordering::Relaxed);
            }
        };
        let connected = self.shared.topology.connect(&self.server, push).await;
        let connection = connected.map_err(|error| {
            tracing::debug!(shard = self.shard, server = %self.server.address, %error, "cannot connect to Redis");
            End::Connect
        })?;
        let session = Session::new(&self.shared, &self.server, self.shard);
        tokio::select! {
            end = session.receive(pushes, &overflowed) => end,
            end = session.reconcile(connection) => end,
        }
    }
}
