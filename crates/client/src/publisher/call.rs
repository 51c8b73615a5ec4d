//! The task behind a publisher: it makes the call, and makes it anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Item, PublisherConfig};
use crate::backoff::Backoff;
use crate::http_client;
use crate::proto::control::{PublishStreamRequest, PublishStreamResponse};
use crate::{BoxError, Error, Position, Refusal};

/// How long a call may take to open.
const OPENING: Duration = Duration::from_secs(10);

/// How long a connection may be silent before it is asked for a sign of life, and the same for that.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How many publications are handed to HTTP/2 ahead.
const AHEAD: usize = 16;

/// The metadata with the code of an error.
const CODE: &str = "fanwire-code";

pub(super) struct Driver {
    client: Client<HttpsConnector<HttpConnector>, tonic::body::Body>,
    origin: Uri,
    url: String,
    key: Option<HeaderValue>,
    patience: Duration,
    backoff: Backoff,
    items: mpsc::Receiver<Item>,
    /// Whether there may be more of them.
    is_open: bool,
    /// What has no acknowledgement, in the order it was sent: the first is the first whose time is over.
    waiting: BTreeMap<u64, Waiting>,
    last_id: u64,
    /// Why the last call broke, unless another one has worked since.
    trouble: Option<Arc<Error>>,
}

struct Waiting {
    item: Item,
    due: Instant,
}

impl Driver {
    pub(super) fn new(config: &PublisherConfig, items: mpsc::Receiver<Item>) -> Result<Self, Error> {
        let (url, origin) = http_client::base(&config.url)?;
        let (builder, tcp) = http_client::connector(&origin, &config.roots)?;
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .build(builder.enable_http2().wrap_connector(tcp));
        Ok(Self {
            client,
            origin,
            url,
            key: config.key.clone(),
            patience: config.patience,
            backoff: Backoff::new(config.backoff),
            items,
            is_open: true,
            waiting: BTreeMap::new(),
            last_id: 0,
            trouble: None,
        })
    }

    /// Works until nobody can publish any more, and everything is answered.
    pub(super) async fn run(mut self) {
        while self.is_open || !self.waiting.is_empty() {
            if self.waiting.is_empty() {
                // Nobody needs a call.
                self.tend().await;
                continue;
            }
            let Err(error) = self.call().await.map_err(Arc::new) else { continue };
            if !error.is_temporary() {
                self.refuse_all(&error);
            }
            self.trouble = Some(error);
            let pause = sleep(self.backoff.next());
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    () = self.tend(), if self.is_open || !self.waiting.is_empty() => {}
                }
            }
        }
    }

    /// One call, from its beginning until it breaks, or nothing more is to be done.
    async fn call(&mut self) -> Result<(), Error> {
        let (requests, body) = mpsc::channel(AHEAD);
        let answers = self.open(body);
        tokio::pin!(answers);
        // What lies before it was sent over this call.
        let mut next = 0;
        while self.is_open || !self.waiting.is_empty() {
            let unsent = self.waiting.range(next..).next().map(|(id, _)| *id);
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(answer)) => self.settle(answer),
                    Some(Err(status)) => return Err(self.error_of(&status)),
                    None => return Err(self.unreachable("the call ended".into())),
                },
                // With the body gone the call has an end, which the answers tell.
                Ok(room) = requests.reserve(), if unsent.is_some() && !requests.is_closed() => {
                    if let Some((&id, Waiting { item, .. })) = self.waiting.range(next..).next() {
                        room.send(PublishStreamRequest { id, publish: Some(item.request.clone()) });
                        next = id + 1;
                    }
                }
                () = self.tend() => {}
            }
        }
        Ok(())
    }

    /// Calls; what is sent into the body goes to the server.
    fn open(
        &self,
        body: mpsc::Receiver<PublishStreamRequest>,
    ) -> impl Stream<Item = Result<PublishStreamResponse, Status>> + use<> {
        let body = stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
        let mut request = Request::new(body);
        if let Some(key) = self.key.as_ref().and_then(|key| MetadataValue::try_from(key.as_bytes()).ok()) {
            request.metadata_mut().insert("x-api-key", key);
        }
        let mut grpc = Grpc::with_origin(self.client.clone(), self.origin.clone());
        let opening = async move {
            let path = PathAndQuery::from_static("/fanwire.control.v1.Control/PublishStream");
            let ready = grpc.ready().await;
            ready.map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.streaming(request, path, ProstCodec::default()).await.map(Response::into_inner)
        };
        let opening =
            async move { timeout(OPENING, opening).await.unwrap_or_else(|late| Err(Status::from_error(late.into()))) };
        stream::once(opening).try_flatten()
    }

    /// Waits for more to publish, or until the time of something is over. Dropping it loses nothing.
    async fn tend(&mut self) {
        let due = self.waiting.first_key_value().map(|(_, waiting)| waiting.due);
        tokio::select! {
            item = self.items.recv(), if self.is_open => match item {
                Some(item) => {
                    self.last_id += 1;
                    self.waiting.insert(self.last_id, Waiting { item, due: Instant::now() + self.patience });
                }
                None => self.is_open = false,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                while let Some(first) = self.waiting.first_entry().filter(|first| first.get().due <= Instant::now()) {
                    let trouble = self.trouble.clone().map(BoxError::from);
                    let source = trouble.unwrap_or_else(|| "no acknowledgement in time".into());
                    first.remove().item.end(Err(Error::Unreachable { url: self.url.clone(), source }));
                }
            }
            else => std::future::pending().await,
        }
    }

    fn settle(&mut self, answer: PublishStreamResponse) {
        self.backoff.reset();
        self.trouble = None;
        // One whose time was over is not known any more.
        let Some(Waiting { item, .. }) = self.waiting.remove(&answer.id) else { return };
        item.end(match (answer.error, answer.result) {
            (Some(error), _) => Err(Error::Refused(Refusal::of_api(error.code, error.message))),
            (None, Some(result)) if !result.epoch.is_empty() => {
                Ok(Some(Position { offset: result.offset, epoch: result.epoch }))
            }
            (None, _) => Ok(None),
        });
    }

    /// Everything would be refused as the call was.
    fn refuse_all(&mut self, error: &Arc<Error>) {
        for Waiting { item, .. } in std::mem::take(&mut self.waiting).into_values() {
            item.end(Err(match &**error {
                Error::Refused(refusal) => Error::Refused(refusal.clone()),
                _ => Error::Foreign { url: self.url.clone(), source: Arc::clone(error).into() },
            }));
        }
    }

    fn error_of(&self, status: &Status) -> Error {
        let code = status.metadata().get(CODE).and_then(|code| code.to_str().ok()?.parse().ok());
        match (code, status.code()) {
            (Some(code), _) => Error::Refused(Refusal::of_api(code, status.message().to_owned())),
            // Something else than the control API answers.
            (None, Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied) => {
                Error::Foreign { url: self.url.clone(), source: status.clone().into() }
            }
            (None, _) => self.unreachable(status.clone().into()),
        }
    }

    fn unreachable(&self, source: BoxError) -> Error {
        Error::Unreachable { url: self.url.clone(), source }
    }
}

impl Item {
    fn end(self, outcome: super::Outcome) {
        // Whoever asked may have lost interest.
        let _ = self.answer.send(outcome);
    }
}
