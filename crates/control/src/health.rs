//! The health of the node, as `grpc.health.v1.Health`: what probes and balancers of gRPC ask.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fanwire_node::{Node, Phase};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, unfold};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as Service, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::proto::control_server::SERVICE_NAME;

/// Whether new clients are welcome.
pub(crate) type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// The largest request, in bytes: it holds the name of a service, and comes without a key.
const MAX_MESSAGE: usize = 4096;

/// The watches that are open at once, of all callers: they need no key.
const MAX_WATCHES: usize = 256;

/// How often a watch looks.
const PERIOD: Duration = Duration::from_millis(250);

/// Says how the node is.
pub(crate) struct Health {
    node: Arc<Node>,
    ready: Ready,
    watches: Arc<Semaphore>,
}

impl Health {
    /// Makes the service. `""` and the control plane are what it knows; both are the node.
    pub(crate) fn service(node: Arc<Node>, ready: Ready) -> HealthServer<Self> {
        let watches = Arc::new(Semaphore::new(MAX_WATCHES));
        HealthServer::new(Self { node, ready, watches }).max_decoding_message_size(MAX_MESSAGE)
    }
}

#[tonic::async_trait]
impl Service for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(serving((self.ready)()))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(permit) = Arc::clone(&self.watches).try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many watches are open"));
        };
        let node = Arc::clone(&self.node);
        let watch = Watch {
            ready: is_known(&request.get_ref().service).then(|| Arc::clone(&self.ready)),
            told: None,
            node_ends: async move { node.reaches(Phase::Ending).await }.boxed(),
            ended: false,
            _permit: permit,
        };
        Ok(Response::new(Box::pin(unfold(watch, async |mut watch| Some((watch.next().await?, watch))))))
    }
}

/// One call of Watch. It has no task of its own.
struct Watch {
    /// `None` for a service that nobody knows: the protocol wants that watched, too.
    ready: Option<Ready>,
    told: Option<ServingStatus>,
    node_ends: BoxFuture<'static, ()>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// The next status that is another one; after the last, why there are no more.
    async fn next(&mut self) -> Option<Result<HealthCheckResponse, Status>> {
        while !self.ended {
            let status = self.ready.as_ref().map_or(ServingStatus::ServiceUnknown, |ready| serving(ready()));
            if self.told != Some(status) {
                self.told = Some(status);
                return Some(Ok(response(status)));
            }
            tokio::select! {
                () = &mut self.node_ends => {
                    self.ended = true;
                    return Some(Err(Status::unavailable("the node goes down")));
                }
                () = sleep(PERIOD) => {}
            }
        }
        None
    }
}

fn is_known(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}
