//! `PublishStream`: many publications over one call.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use fanwire_node::Phase;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream, unfold};
use futures_util::{FutureExt, StreamExt};
use metrics::Gauge;
use prost::Message;
use tonic::{Status, Streaming};

use crate::Api;
use crate::caller::Caller;
use crate::proto::{PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse};
use crate::types::Fault;

/// The publications taken and not acknowledged; with more, or more bytes, nothing is read until some are.
const MAX_HELD: usize = 1024;
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// The acknowledgements of one call.
pub(crate) type Acknowledgements = Pin<Box<dyn Stream<Item = Result<PublishStreamResponse, Status>> + Send>>;

/// One call. It has no task of its own: it goes on as far as its acknowledgements are fetched.
struct Call {
    api: Arc<Api>,
    caller: Caller,
    requests: Streaming<PublishStreamRequest>,
    /// By channel with a publication under way: those that come after it.
    lanes: HashMap<String, VecDeque<Publication>>,
    /// One for each of these channels.
    running: FuturesUnordered<BoxFuture<'static, Published>>,
    held: usize,
    held_bytes: usize,
    /// How the call ends, once everything held is done.
    end: Option<Result<(), Status>>,
    node_ends: BoxFuture<'static, ()>,
    _open: Open,
}

struct Publication {
    id: u64,
    bytes: usize,
    request: PublishRequest,
}

struct Published {
    id: u64,
    bytes: usize,
    channel: String,
    outcome: Result<PublishResponse, Fault>,
}

impl Api {
    /// Publishes all that comes, in its order for each channel.
    pub(crate) fn publish_all(
        self: Arc<Self>,
        caller: Caller,
        requests: Streaming<PublishStreamRequest>,
    ) -> Acknowledgements {
        let node = Arc::clone(&self.node);
        let call = Call {
            _open: Open::new(&self.metrics.streams),
            api: self,
            caller,
            requests,
            lanes: HashMap::new(),
            running: FuturesUnordered::new(),
            held: 0,
            held_bytes: 0,
            end: None,
            node_ends: async move { node.reaches(Phase::Ending).await }.boxed(),
        };
        Box::pin(unfold(call, async |mut call| Some((call.next().await?, call))))
    }
}

impl Call {
    /// The next acknowledgement.
    async fn next(&mut self) -> Option<Result<PublishStreamResponse, Status>> {
        loop {
            if self.running.is_empty()
                && let Some(end) = &mut self.end
            {
                return std::mem::replace(end, Ok(())).err().map(Err);
            }
            let goes_on = self.end.is_none();
            let room = goes_on && self.held < MAX_HELD && self.held_bytes < MAX_HELD_BYTES;
            tokio::select! {
                biased;
                Some(published) = self.running.next(), if !self.running.is_empty() => {
                    return Some(Ok(self.acknowledge(published)));
                }
                () = &mut self.node_ends, if goes_on => {
                    self.end = Some(Err(Status::unavailable("the node goes down; what has no acknowledgement was not read")));
                }
                request = self.requests.message(), if room => match request {
                    Ok(Some(request)) => self.take(request),
                    Ok(None) => self.end = Some(Ok(())),
                    Err(status) => self.end = Some(Err(status)),
                },
            }
        }
    }

    /// Publishes, or waits until its turn in the channel comes.
    fn take(&mut self, request: PublishStreamRequest) {
        let PublishStreamRequest { id, publish } = request;
        let request = publish.unwrap_or_default();
        let publication = Publication { id, bytes: request.encoded_len(), request };
        self.held += 1;
        self.held_bytes += publication.bytes;
        match self.lanes.get_mut(&publication.request.channel) {
            Some(lane) => lane.push_back(publication),
            None => {
                self.lanes.insert(publication.request.channel.clone(), VecDeque::new());
                self.publish(publication);
            }
        }
    }

    fn publish(&self, Publication { id, bytes, request }: Publication) {
        let (api, caller) = (Arc::clone(&self.api), self.caller.clone());
        let published = async move {
            let channel = request.channel.clone();
            let outcome = api.run(&caller, Ok(request)).await;
            Published { id, bytes, channel, outcome }
        };
        self.running.push(published.boxed());
    }

    /// Goes on with the channel.
    fn acknowledge(&mut self, published: Published) -> PublishStreamResponse {
        let Published { id, bytes, channel, outcome } = published;
        self.held -= 1;
        self.held_bytes -= bytes;
        match self.lanes.get_mut(&channel).and_then(VecDeque::pop_front) {
            Some(next) => self.publish(next),
            None => {
                self.lanes.remove(&channel);
            }
        }
        match outcome {
            Ok(result) => PublishStreamResponse { id, result: Some(result), error: None },
            Err(fault) => PublishStreamResponse { id, result: None, error: Some(fault.into()) },
        }
    }
}

/// Counts as open until it is dropped.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
