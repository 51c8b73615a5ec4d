//! How a client connects.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::{BoxError, Error, Roots};

/// What a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFor {
    /// The connection.
    Connection,
    /// The subscription to this channel.
    Channel(String),
}

/// Fetches tokens.
pub(crate) type Tokens = Arc<dyn Fn(TokenFor) -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;

/// How a [`Client`](crate::Client) connects.
///
/// ```
/// use fanwire_client::{Config, TokenFor};
///
/// let config = Config::new("wss://push.example.com").tokens(async |wanted| match wanted {
///     TokenFor::Connection => Ok("from your backend".to_owned()),
///     TokenFor::Channel(name) => Err(format!("nobody may enter {name}").into()),
/// });
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) roots: Roots,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) buffer: usize,
}

/// How long fetching a token may take.
const FETCH: Duration = Duration::from_secs(10);

impl Config {
    /// Connects to `ws://host:port` or `wss://host:port`, at `/connection/websocket` if no path is given.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            tokens: None,
            roots: Roots::System,
            backoff: (Duration::from_millis(200), Duration::from_secs(20)),
            buffer: 1024,
        }
    }

    /// Connects with a token. When it has expired, another is fetched with [`Config::tokens`], or the client ends.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Fetches tokens: for the connection if there is none or it expires, for a channel whenever one that was
    /// [given](crate::Subscribe::token) expires. A call may take ten seconds; one that fails is made again.
    #[must_use]
    pub fn tokens<F, Fut>(mut self, fetch: F) -> Self
    where
        F: Fn(TokenFor) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        self.tokens = Some(Arc::new(move |wanted| fetch(wanted).boxed()));
        self
    }

    /// Trusts other authorities than the system does.
    #[must_use]
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// Waits before each new attempt for a random time, at most `first` after the first failure and twice as long after each
    /// further one, up to `last`. Default: 200 ms and 20 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, last: Duration) -> Self {
        self.backoff = (first, last);
        self
    }

    /// The most events a subscription holds that nobody has taken yet; at least 16. Default: 1024. Over it the subscription is
    /// [interrupted](crate::Event::Interrupted), and made again once all of them are taken.
    #[must_use]
    pub fn buffer(mut self, events: usize) -> Self {
        self.buffer = events.max(16);
        self
    }

    /// Fetches one.
    pub(crate) async fn fetch(tokens: Tokens, wanted: TokenFor) -> Result<String, Error> {
        let fetched = tokio::time::timeout(FETCH, tokens(wanted)).await;
        fetched.unwrap_or_else(|late| Err(late.into())).map_err(Error::Token)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("url", &self.url).finish_non_exhaustive()
    }
}
