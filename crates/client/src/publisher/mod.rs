//! Publishing over one gRPC call.

mod call;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderValue;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::http_client;
use crate::proto::control::PublishRequest;
use crate::{Error, Position, Publish, Roots};

use call::Driver;

/// Publishes over one gRPC call (`PublishStream` of the control API), without waiting for one publication before the next is
/// sent. Clones share the call.
///
/// The call is made when there is something to publish, on the runtime of whoever made the publisher. If it breaks, another
/// is made, and what has no acknowledgement is sent again in its order and under its key: each is applied once, and those
/// of a channel in the order they were [sent](Publisher::send). What a gateway refuses is not repeated; publishing that again
/// puts it behind what was sent meanwhile.
#[derive(Clone)]
pub struct Publisher {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    /// All permits there are.
    most: u32,
}

/// How a [`Publisher`] works.
///
/// ```
/// use fanwire_client::PublisherConfig;
///
/// let config = PublisherConfig::new("https://gateway.example.com:8010").key("a-key-of-sixteen-or-more-characters")?;
/// # Ok::<(), fanwire_client::Error>(())
/// ```
#[derive(Clone)]
pub struct PublisherConfig {
    url: String,
    key: Option<HeaderValue>,
    roots: Roots,
    backoff: (Duration, Duration),
    in_flight: u32,
    patience: Duration,
}

/// The answer to one publication: its position, or `None` if the channel keeps no history.
///
/// Dropping it changes nothing about the publication.
#[derive(Debug)]
#[must_use = "it says whether the publication was applied"]
pub struct Acknowledgement(oneshot::Receiver<Outcome>);

type Outcome = Result<Option<Position>, Error>;

/// One publication on its way.
struct Item {
    request: PublishRequest,
    answer: oneshot::Sender<Outcome>,
    /// Given back when it is answered.
    _room: OwnedSemaphorePermit,
}

/// The most publications under way that a gateway takes on one call.
const MAX_IN_FLIGHT: u32 = 1024;

/// A larger publication counts as several of this size: that many of them are the 4 MiB a gateway holds of one call.
const UNIT: usize = 4 * 1024;

/// The longest patience: what is repeated later than 5 minutes after it was applied would be applied again.
const MAX_PATIENCE: Duration = Duration::from_secs(240);

impl PublisherConfig {
    /// The control API at `http://host:port` or `https://host:port`: one with an address of its own.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key: None,
            roots: Roots::System,
            backoff: (Duration::from_millis(100), Duration::from_secs(2)),
            in_flight: 512,
            patience: Duration::from_secs(30),
        }
    }

    /// Calls with an API key.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if it holds what no key holds.
    pub fn key(mut self, key: &str) -> Result<Self, Error> {
        self.key = Some(http_client::key(key)?);
        Ok(self)
    }

    /// Trusts other authorities than the system does.
    #[must_use]
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// Waits before each new call for a random time, at most `first` after the first failure and twice as long after each
    /// further one, up to `last`. Default: 100 ms and 2 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, last: Duration) -> Self {
        self.backoff = (first, last);
        self
    }

    /// The most publications without an acknowledgement, from 1 to 1024; one of more than 4 KiB counts as several. Default: 512.
    #[must_use]
    pub fn in_flight(mut self, publications: u32) -> Self {
        self.in_flight = publications.clamp(1, MAX_IN_FLIGHT);
        self
    }

    /// How long a publication is tried before it fails, at most 240 s. Default: 30 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(MAX_PATIENCE);
        self
    }
}

impl Publisher {
    /// Makes a publisher. It connects when there is something to publish.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the address is none, or there are no authorities to trust.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(config: &PublisherConfig) -> Result<Self, Error> {
        // Each item has a permit at least: the queue is never full.
        let (items, incoming) = mpsc::channel(config.in_flight as usize);
        tokio::spawn(Driver::new(config, incoming)?.run());
        Ok(Self { items, room: Arc::new(Semaphore::new(config.in_flight as usize)), most: config.in_flight })
    }

    /// Publishes, and waits for the acknowledgement.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the gateway says no. [`Error::Unreachable`] if there was no acknowledgement in time; then it may
    /// have been applied or not: publish it again with the key you gave it.
    pub async fn publish(&self, publish: Publish) -> Result<Option<Position>, Error> {
        self.send(publish).await?.await
    }

    /// Sends a publication behind those sent before it; returns when there is room for it. Dropped before that, it is not sent.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the runtime ends. The [`Acknowledgement`] has the others.
    pub async fn send(&self, publish: Publish) -> Result<Acknowledgement, Error> {
        let request = publish.keyed().into_request();
        let units = u32::try_from(1 + request.encoded_len() / UNIT).unwrap_or(u32::MAX).min(self.most);
        let room = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| Error::Gone)?;
        let (answer, answered) = oneshot::channel();
        self.items.send(Item { request, answer, _room: room }).await.map_err(|_| Error::Gone)?;
        Ok(Acknowledgement(answered))
    }
}

impl Future for Acknowledgement {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(context)).unwrap_or(Err(Error::Gone)))
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.most as usize - self.room.available_permits();
        f.debug_struct("Publisher").field("under_way", &under_way).finish_non_exhaustive()
    }
}

impl fmt::Debug for PublisherConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublisherConfig").field("url", &self.url).finish_non_exhaustive()
    }
}
