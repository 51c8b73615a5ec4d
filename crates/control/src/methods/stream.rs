//! `PublishStream`: many publications over one call.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fanwire_node::Phase;
use fanwire_node::broker::MAX_BATCH;
use fanwire_wire::Refusal;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};
use futures_util::{FutureExt, StreamExt};
use metrics::Gauge;
use prost::Message;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{Method, publish};
use crate::Api;
use crate::audit::Entry;
use crate::caller::Caller;
use crate::proto::{PublishOutcome, PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse};
use crate::types::Fault;

/// The publications taken and not acknowledged; with more, or more bytes, nothing is read until some are.
const MAX_HELD: usize = 1024;
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// The most bytes of one batch, unless a publication alone is larger: the broker is not to be held up by one channel.
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// The acknowledgements of one call.
pub(crate) type Acknowledgements = Pin<Box<dyn Stream<Item = Result<PublishStreamResponse, Status>> + Send>>;

/// One call. It has no task of its own: it goes on as far as its acknowledgements are fetched.
struct Call {
    api: Arc<Api>,
    caller: Caller,
    requests: Streaming<PublishStreamRequest>,
    /// By channel with a batch under way, or about to be: the publications that wait.
    lanes: HashMap<String, VecDeque<Publication>>,
    /// Those of them that are about to be.
    next: Vec<String>,
    /// What is under way: a batch of each channel at most.
    running: FuturesUnordered<BoxFuture<'static, Batch>>,
    /// What can be fetched, each with the bytes it gives back.
    acknowledged: VecDeque<(usize, PublishStreamResponse)>,
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

/// A batch that is done.
struct Batch {
    channel: String,
    /// The id and the size of each publication, in their order.
    publications: Vec<(u64, usize)>,
    outcomes: Vec<Result<PublishResponse, Fault>>,
}

impl Api {
    /// Publishes all that comes, in its order for each channel.
    pub(crate) fn publish_all(
        self: Arc<Self>,
        caller: Caller,
        requests: Streaming<PublishStreamRequest>,
    ) -> Acknowledgements {
        let node = Arc::clone(&self.node);
        Box::pin(Call {
            _open: Open::new(&self.metrics.streams),
            api: self,
            caller,
            requests,
            lanes: HashMap::new(),
            next: Vec::new(),
            running: FuturesUnordered::new(),
            acknowledged: VecDeque::new(),
            held: 0,
            held_bytes: 0,
            end: None,
            node_ends: async move { node.reaches(Phase::Ending).await }.boxed(),
        })
    }

    /// Publishes to one channel, in this order: to the key, the log and the metrics each publication is a call.
    async fn publish_batch(
        &self,
        caller: &Caller,
        requests: Vec<PublishRequest>,
    ) -> Vec<Result<PublishResponse, Fault>> {
        let started = Instant::now();
        let mut publications = Vec::with_capacity(requests.len());
        let mut begun = Vec::with_capacity(requests.len());
        for request in requests {
            let (entry, admitted) = self.begin(caller, Ok(request));
            let read = admitted.and_then(publish::read);
            begun.push((
                entry,
                read.map(|publication| {
                    let conditional = publication.condition.is_some();
                    publications.push(publication);
                    conditional
                }),
            ));
        }
        let mut published = self.node.publish_all(publications).await.into_iter();
        let took = started.elapsed();
        let end = |(entry, read): (Option<Entry>, Result<bool, Fault>)| {
            let outcome = read.and_then(|conditional| {
                publish::answer(published.next().unwrap_or(Err(Refusal::OutcomeUnknown)), conditional)
            });
            self.end(caller, Method::Publish, entry, outcome.as_ref().err(), took);
            outcome
        };
        begun.into_iter().map(end).collect()
    }
}

impl Stream for Call {
    type Item = Result<PublishStreamResponse, Status>;

    /// The next acknowledgement.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let call = &mut *self;
        loop {
            if let Some((bytes, acknowledgement)) = call.acknowledged.pop_front() {
                call.held -= 1;
                call.held_bytes -= bytes;
                return Poll::Ready(Some(Ok(acknowledgement)));
            }
            while let Poll::Ready(Some(batch)) = call.running.poll_next_unpin(context) {
                call.finish(batch);
            }
            if !call.acknowledged.is_empty() {
                continue;
            }
            if call.running.is_empty()
                && call.next.is_empty()
                && let Some(end) = &mut call.end
            {
                return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
            }
            call.read(context);
            if call.next.is_empty() && (call.end.is_none() || !call.running.is_empty()) {
                return Poll::Pending;
            }
            while let Some(channel) = call.next.pop() {
                call.publish(channel);
            }
        }
    }
}

impl Call {
    /// Takes all that has arrived, as far as there is room.
    fn read(&mut self, context: &mut Context<'_>) {
        if self.end.is_none() && self.node_ends.poll_unpin(context).is_ready() {
            let message = "the node goes down; what has no acknowledgement was not read";
            self.end = Some(Err(Status::unavailable(message)));
        }
        while self.end.is_none() && self.held < MAX_HELD && self.held_bytes < MAX_HELD_BYTES {
            match self.requests.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(request))) => self.take(request),
                Poll::Ready(Some(Err(status))) => self.end = Some(Err(status)),
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Pending => return,
            }
        }
    }

    fn take(&mut self, request: PublishStreamRequest) {
        let PublishStreamRequest { id, publish } = request;
        let request = publish.unwrap_or_default();
        let publication = Publication { id, bytes: request.encoded_len(), request };
        self.held += 1;
        self.held_bytes += publication.bytes;
        if let Some(waiting) = self.lanes.get_mut(&publication.request.channel) {
            waiting.push_back(publication);
            return;
        }
        let channel = publication.request.channel.clone();
        self.next.push(channel.clone());
        self.lanes.insert(channel, VecDeque::from([publication]));
    }

    /// Begins with the first publications that wait in a channel.
    fn publish(&mut self, channel: String) {
        let Some(waiting) = self.lanes.get_mut(&channel) else { return };
        let mut bytes = 0;
        let fits = |publication: &&Publication| {
            bytes += publication.bytes;
            bytes <= MAX_BATCH_BYTES
        };
        let count = waiting.iter().take(MAX_BATCH).take_while(fits).count().max(1).min(waiting.len());
        let (publications, requests) =
            waiting.drain(..count).map(|each| ((each.id, each.bytes), each.request)).unzip::<_, _, Vec<_>, _>();
        let (api, caller) = (Arc::clone(&self.api), self.caller.clone());
        let published = async move {
            let outcomes = api.publish_batch(&caller, requests).await;
            Batch { channel, publications, outcomes }
        };
        self.running.push(published.boxed());
    }

    /// Acknowledges a batch, and goes on with its channel.
    fn finish(&mut self, Batch { channel, publications, outcomes }: Batch) {
        for ((id, bytes), outcome) in publications.into_iter().zip(outcomes) {
            let PublishOutcome { result, error } = outcome.into();
            self.acknowledged.push_back((bytes, PublishStreamResponse { id, result, error }));
        }
        match self.lanes.get_mut(&channel) {
            Some(waiting) if !waiting.is_empty() => self.publish(channel),
            _ => {
                self.lanes.remove(&channel);
            }
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
