//! What can be asked of a node.

mod about;
mod batch;
mod channels;
mod clients;
mod info;
mod moves;
mod publish;
mod reload;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::Refusal;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

pub use reload::{Changes, Reload};

use crate::Api;
use crate::audit::Entry;
use crate::caller::{About, Caller};
use crate::keys::Scope;
use crate::proto::{self, control_server::Control};
use crate::types::Fault;
use stream::Acknowledgements;

/// Everything there is to say about the methods: their name in gRPC and in JSON, what they take and give, and who does it
/// with which part of the [`Api`].
macro_rules! methods {
    ($($variant:ident $name:ident $request:ident => $response:ident, $of:ident $run:path;)*) => {
        /// A method, by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Method {
            $($variant,)*
            Batch,
        }

        impl Method {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)* Self::Batch];

            /// The name in paths of the HTTP API, in metrics and logs.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                    Self::Batch => "batch",
                }
            }

            /// Finds a method by that name.
            pub(crate) fn find(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$variant),)*
                    "batch" => Some(Self::Batch),
                    _ => None,
                }
            }

            /// Finds a method by its name in gRPC.
            pub(crate) fn find_rpc(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($variant) => Some(Self::$variant),)*
                    "Batch" => Some(Self::Batch),
                    _ => None,
                }
            }
        }

        $(impl Call for proto::$request {
            const METHOD: Method = Method::$variant;
            type Response = proto::$response;

            fn run(
                self,
                api: &Api,
                caller: &Caller,
            ) -> impl Future<Output = Result<Self::Response, Fault>> + Send {
                $run(&api.$of, caller, self)
            }
        })*

        impl Api {
            /// Calls one method in JSON. A batch holds the others, and no batch.
            pub(crate) async fn call_json(
                &self,
                caller: &Caller,
                method: Method,
                params: &[u8],
            ) -> Result<Box<RawValue>, Fault> {
                match method {
                    // Boxed: a call must not have room for the largest of all methods.
                    $(Method::$variant => Box::pin(self.run_json::<proto::$request>(caller, params)).await,)*
                    Method::Batch => Err(Refusal::MethodNotFound.into()),
                }
            }

            /// Makes one call of a batch.
            pub(crate) async fn execute(
                &self,
                caller: &Caller,
                command: proto::Command,
            ) -> Result<proto::Reply, Fault> {
                let given = [$(command.$name.is_some()),*].into_iter().filter(|given| *given).count();
                if given > 1 {
                    return Err(Fault::bad("a command has one method"));
                }
                $(if let Some(request) = command.$name {
                    // Boxed: a thousand of them must not each have room for the largest.
                    let response = Box::pin(self.run(caller, Ok(request))).await?;
                    return Ok(proto::Reply { $name: Some(response), ..proto::Reply::default() });
                })*
                Err(Refusal::MethodNotFound.into())
            }
        }

        #[tonic::async_trait]
        impl Control for Api {
            $(async fn $name(
                self: Arc<Self>,
                request: tonic::Request<proto::$request>,
            ) -> Result<Response<proto::$response>, Status> {
                let (caller, request) = split(request)?;
                Ok(Response::new(self.run(&caller, Ok(request)).await?))
            })*

            type PublishStreamStream = Acknowledgements;

            async fn publish_stream(
                self: Arc<Self>,
                request: tonic::Request<Streaming<proto::PublishStreamRequest>>,
            ) -> Result<Response<Acknowledgements>, Status> {
                let (caller, requests) = split(request)?;
                Ok(Response::new(self.publish_all(caller, requests)))
            }

            async fn batch(
                self: Arc<Self>,
                request: tonic::Request<proto::BatchRequest>,
            ) -> Result<Response<proto::BatchResponse>, Status> {
                let (caller, request) = split(request)?;
                Ok(Response::new(self.run_batch(&caller, request).await?))
            }
        }
    };
}

methods! {
    Publish publish PublishRequest => PublishResponse, node publish::publish;
    Broadcast broadcast BroadcastRequest => BroadcastResponse, node publish::broadcast;
    Subscribe subscribe SubscribeRequest => CommandResponse, node clients::subscribe;
    Unsubscribe unsubscribe UnsubscribeRequest => CommandResponse, node clients::unsubscribe;
    Disconnect disconnect DisconnectRequest => CommandResponse, node clients::disconnect;
    Refresh refresh RefreshRequest => CommandResponse, node clients::refresh;
    Revoke revoke RevokeRequest => CommandResponse, node clients::revoke;
    Presence presence PresenceRequest => PresenceResponse, node channels::presence;
    PresenceStats presence_stats PresenceStatsRequest => PresenceStatsResponse, node channels::presence_stats;
    History history HistoryRequest => HistoryResponse, node channels::history;
    HistoryRemove history_remove HistoryRemoveRequest => HistoryRemoveResponse, node channels::history_remove;
    Channels channels ChannelsRequest => ChannelsResponse, node channels::channels;
    Connections connections ConnectionsRequest => ConnectionsResponse, node clients::connections;
    Nodes nodes NodesRequest => NodesResponse, node info::nodes;
    Info info InfoRequest => InfoResponse, node info::info;
    Report report ReportRequest => ReportResponse, node info::report;
    Drain drain DrainRequest => DrainResponse, node moves::drain;
    Rebalance rebalance RebalanceRequest => RebalanceResponse, node moves::rebalance;
    Reload reload ReloadRequest => ReloadResponse, reader reload::reload;
}

impl Method {
    /// What a key must be for, to call it; nothing for what only holds other calls.
    pub(crate) fn scope(self) -> Option<Scope> {
        match self {
            Self::Publish | Self::Broadcast => Some(Scope::Publish),
            Self::Presence
            | Self::PresenceStats
            | Self::History
            | Self::Channels
            | Self::Connections
            | Self::Nodes
            | Self::Info
            | Self::Report => Some(Scope::Read),
            Self::Subscribe | Self::Unsubscribe | Self::Disconnect | Self::Refresh | Self::Revoke => {
                Some(Scope::Disconnect)
            }
            Self::HistoryRemove | Self::Drain | Self::Rebalance | Self::Reload => Some(Scope::Admin),
            Self::Batch => None,
        }
    }
}

/// A request that is a method's.
pub(crate) trait Call: About + Sized {
    const METHOD: Method;
    type Response;

    /// Does what is asked.
    fn run(self, api: &Api, caller: &Caller) -> impl Future<Output = Result<Self::Response, Fault>> + Send;
}

impl Api {
    /// Runs a method for a caller, if it may: the one way to each of them, whatever the request came in.
    pub(crate) async fn run<C: Call>(&self, caller: &Caller, request: Result<C, Fault>) -> Result<C::Response, Fault> {
        let started = Instant::now();
        let (entry, admitted) = self.begin(caller, request);
        let outcome = match admitted {
            Ok(request) => request.run(self, caller).await,
            Err(fault) => Err(fault),
        };
        self.end(caller, C::METHOD, entry, outcome.as_ref().err(), started.elapsed());
        outcome
    }

    /// Decides whether a call may be made, and keeps what the log will say of it.
    fn begin<C: Call>(&self, caller: &Caller, request: Result<C, Fault>) -> (Option<Entry>, Result<C, Fault>) {
        let subject = request.as_ref().map(About::subject).unwrap_or_default();
        let admitted = caller.admit(C::METHOD, subject);
        let entry = self.audit.keep(C::METHOD, subject, admitted.is_ok());
        (entry, admitted.and(request))
    }

    /// Counts a call, and logs it.
    fn end(&self, caller: &Caller, method: Method, entry: Option<Entry>, fault: Option<&Fault>, took: Duration) {
        self.metrics.called(method, fault, took);
        caller.count(fault);
        if let Some(entry) = entry {
            entry.write(caller, method.name(), fault, took);
        }
    }

    /// Reads a method's request, calls it, and writes its result.
    async fn run_json<'a, C>(&self, caller: &Caller, params: &'a [u8]) -> Result<Box<RawValue>, Fault>
    where
        C: Call<Response: Serialize> + Deserialize<'a>,
    {
        let response = self.run::<C>(caller, parse(params)).await?;
        to_raw_value(&response).map_err(|error| unwritable(&error))
    }
}

/// Takes the caller from where [`Api::handle_rpc`] put it.
fn split<T>(request: tonic::Request<T>) -> Result<(Caller, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    match extensions.remove::<Caller>() {
        Some(caller) => Ok((caller, message)),
        None => Err(Fault::from(Refusal::Unauthorized).into()),
    }
}

/// Reads an object. Nothing at all is the same as `{}`.
fn parse<'a, Q: Deserialize<'a>>(params: &'a [u8]) -> Result<Q, Fault> {
    match params.trim_ascii_start().first() {
        None => Ok(serde_json::from_slice(b"{}")?),
        Some(b'{') => Ok(serde_json::from_slice(params)?),
        // `serde` would read an array as the fields in their order.
        Some(_) => Err(Fault::transport(StatusCode::BAD_REQUEST, Refusal::BadRequest, "expected a JSON object")),
    }
}

/// Writes an answer.
pub(crate) fn write(answer: &impl Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(answer).map_err(|error| unwritable(&error))
}

fn unwritable(error: &serde_json::Error) -> Fault {
    tracing::error!(%error, "answer cannot be written");
    Refusal::Internal.into()
}
