//! The control API, over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::http_client::{self, HttpClient};
use crate::{Error, Position, Publish, Refusal, Roots};

/// Calls the control API of a gateway, over HTTP. Clones share their connections.
#[derive(Clone)]
pub struct Api {
    http: HttpClient,
    /// Without `/api` and without a slash at the end.
    base: String,
    key: Option<HeaderValue>,
}

/// How often a publication is sent at most, its first time included.
const ATTEMPTS: u32 = 4;

/// The pauses between these.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

impl Api {
    /// The API at `http://host:port` or `https://host:port`, with the authorities of the system.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the address is none, or there are no authorities to trust.
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::with_roots(url, &Roots::System)
    }

    /// The same, with other authorities.
    ///
    /// # Errors
    ///
    /// As [`Api::new`].
    pub fn with_roots(url: &str, roots: &Roots) -> Result<Self, Error> {
        let (base, uri) = http_client::base(url)?;
        Ok(Self { http: HttpClient::new(&uri, roots)?, base, key: None })
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

    /// Calls a method by its name, once.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the method says no, else whatever kept it from answering.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: &(impl Serialize + Sync)) -> Result<T, Error> {
        let raw = self.call_raw(method, params).await?;
        serde_json::from_str(raw.get()).map_err(|error| self.foreign(error))
    }

    /// The same, with the result as the server wrote it.
    ///
    /// # Errors
    ///
    /// As [`Api::call`].
    pub async fn call_raw(&self, method: &str, params: &(impl Serialize + Sync)) -> Result<Box<RawValue>, Error> {
        let body = serde_json::to_vec(params).map_err(|error| Error::Usage(format!("no JSON: {error}")))?;
        let url = format!("{}/api/{method}", self.base);
        let (status, body) = self.http.post(&url, self.key.as_ref(), body).await?;
        match serde_json::from_slice(&body) {
            Ok(Reply::Result(result)) => Ok(result),
            Ok(Reply::Error { code, message }) => Err(Error::Refused(Refusal::of_api(code, message))),
            Err(error) if status.is_success() => Err(self.foreign(error)),
            Err(_) => Err(Error::Status { url, status: status.as_u16(), retry_after: None }),
        }
    }

    /// Publishes. Answers with the position, or `None` if the channel keeps no history.
    ///
    /// While the server cannot be reached or cannot do it at the moment, it is sent again, up to four times within some
    /// seconds, always under the same idempotency key: it is applied once.
    ///
    /// # Errors
    ///
    /// The last one. After [`Error::Unreachable`] and code 504 it may have been applied or not; publish it again with the
    /// key you gave it.
    pub async fn publish(&self, publish: Publish) -> Result<Option<Position>, Error> {
        let publish = publish.keyed();
        let mut backoff = Backoff::new(PAUSES);
        for attempt in 1.. {
            match self.call::<Published>("publish", &publish).await {
                Ok(Published { offset, epoch }) => {
                    return Ok(offset.zip(epoch).map(|(offset, epoch)| Position { offset, epoch }));
                }
                Err(error) if !error.is_temporary() || attempt == ATTEMPTS => return Err(error),
                Err(_) => sleep(backoff.next()).await,
            }
        }
        Err(Error::Gone)
    }

    /// Who is subscribed to a channel, by connection id.
    ///
    /// # Errors
    ///
    /// As [`Api::call`].
    pub async fn presence(&self, channel: &str) -> Result<BTreeMap<String, Member>, Error> {
        #[derive(Deserialize)]
        struct Presence {
            presence: BTreeMap<String, Member>,
        }
        Ok(self.call::<Presence>("presence", &json!({ "channel": channel })).await?.presence)
    }

    /// How many are subscribed to a channel.
    ///
    /// # Errors
    ///
    /// As [`Api::call`].
    pub async fn presence_stats(&self, channel: &str) -> Result<PresenceStats, Error> {
        self.call("presence_stats", &json!({ "channel": channel })).await
    }

    /// Reads what a channel keeps.
    ///
    /// # Errors
    ///
    /// As [`Api::call`]; code 112 if the stream began anew since the position.
    pub async fn history(&self, channel: &str, query: &HistoryQuery) -> Result<History, Error> {
        #[derive(Serialize)]
        struct Params<'a> {
            channel: &'a str,
            #[serde(flatten)]
            query: &'a HistoryQuery,
        }
        self.call("history", &Params { channel, query }).await
    }

    /// Channels with subscribers that fit a pattern (`*` stands for any text), and how many each has.
    ///
    /// # Errors
    ///
    /// As [`Api::call`].
    pub async fn channels(&self, pattern: &str) -> Result<BTreeMap<String, u64>, Error> {
        #[derive(Deserialize)]
        struct Channels {
            channels: BTreeMap<String, Channel>,
        }
        #[derive(Deserialize)]
        struct Channel {
            num_clients: u64,
        }
        let found = self.call::<Channels>("channels", &json!({ "pattern": pattern })).await?;
        Ok(found.channels.into_iter().map(|(name, channel)| (name, channel.num_clients)).collect())
    }

    /// Ends a user's connections, or the one of them with the id `client`.
    ///
    /// # Errors
    ///
    /// As [`Api::call`].
    pub async fn disconnect(&self, user: &str, client: Option<&str>) -> Result<(), Error> {
        self.call_raw("disconnect", &json!({ "user": user, "client": client })).await.map(drop)
    }

    fn foreign(&self, error: serde_json::Error) -> Error {
        Error::Foreign { url: self.base.clone(), source: error.into() }
    }
}

/// The body of every answer.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Result(Box<RawValue>),
    Error { code: u32, message: String },
}

#[derive(Deserialize)]
struct Published {
    offset: Option<u64>,
    epoch: Option<String>,
}

/// What of a channel's history is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HistoryQuery {
    /// The most publications: 0 for the position alone, negative for as many as the server allows (300 by default).
    pub limit: i32,
    /// Only what lies behind this position, or before it in reverse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Position>,
    /// Whether the newest comes first.
    pub reverse: bool,
}

/// A part of a channel's stream.
#[derive(Clone, Debug, Deserialize)]
pub struct History {
    /// The publications.
    pub publications: Vec<Stored>,
    /// The last publication in the stream.
    pub offset: u64,
    /// The life of the stream.
    pub epoch: String,
}

/// A publication that was kept.
#[derive(Clone, Debug, Deserialize)]
pub struct Stored {
    /// The data; `null` where it is binary.
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
    /// Its place in the stream.
    pub offset: u64,
    /// Labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The client that published it, if it was one.
    pub info: Option<Member>,
    /// When it was published, in milliseconds of Unix time.
    pub time: i64,
}

impl Stored {
    /// The data: JSON, or any bytes.
    #[must_use]
    pub fn data(&self) -> Bytes {
        match (&self.b64data, &self.data) {
            (Some(base64), _) => BASE64_STANDARD.decode(base64).unwrap_or_default().into(),
            (None, Some(json)) => Bytes::copy_from_slice(json.get().as_bytes()),
            (None, None) => Bytes::from_static(b"null"),
        }
    }
}

/// A client in a channel.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// The connection's id.
    pub client: String,
    /// The user's id; empty for an anonymous one.
    pub user: String,
    /// What the application attached to the connection.
    pub conn_info: Option<Box<RawValue>>,
    /// What the application attached to the subscription.
    pub chan_info: Option<Box<RawValue>>,
}

/// How many are subscribed to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct PresenceStats {
    /// Connections.
    pub num_clients: u64,
    /// Different users among them.
    pub num_users: u64,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("base", &self.base).finish_non_exhaustive()
    }
}
