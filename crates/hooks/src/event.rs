//! The events a backend is asked about.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::proto;

/// What a backend is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Connect,
    Refresh,
    Subscribe,
    Publish,
    Rpc,
    SubRefresh,
}

impl Event {
    pub(crate) const ALL: [Self; 6] =
        [Self::Connect, Self::Refresh, Self::Subscribe, Self::Publish, Self::Rpc, Self::SubRefresh];

    /// The name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
            Self::SubRefresh => "sub_refresh",
        }
    }

    /// The name of the method over gRPC.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Connect => "Connect",
            Self::Refresh => "Refresh",
            Self::Subscribe => "Subscribe",
            Self::Publish => "Publish",
            Self::Rpc => "RPC",
            Self::SubRefresh => "SubRefresh",
        }
    }

    /// Whether it does no harm when a backend is asked the same twice. A publication or a call may have an effect there.
    pub(crate) fn is_repeatable(self) -> bool {
        !matches!(self, Self::Publish | Self::Rpc)
    }
}

/// A question to a backend.
pub(crate) trait Question: Message + Serialize + Clone + 'static {
    const EVENT: Event;
    type Response: Response;
}

/// What a backend answers: one of three.
pub(crate) trait Response: Message + DeserializeOwned + Default + 'static {
    type Result: Default + Send;

    /// The result, or what the backend says in place of one.
    fn into_parts(self) -> (Option<Self::Result>, Option<proto::Error>, Option<proto::Disconnect>);
}

macro_rules! events {
    ($($event:ident: $request:ident -> $response:ident { $result:ident };)*) => {$(
        impl Question for proto::$request {
            const EVENT: Event = Event::$event;
            type Response = proto::$response;
        }

        impl Response for proto::$response {
            type Result = proto::$result;

            fn into_parts(self) -> (Option<proto::$result>, Option<proto::Error>, Option<proto::Disconnect>) {
                (self.result, self.error, self.disconnect)
            }
        }
    )*};
}

events! {
    Connect: ConnectRequest -> ConnectResponse { ConnectResult };
    Refresh: RefreshRequest -> RefreshResponse { RefreshResult };
    Subscribe: SubscribeRequest -> SubscribeResponse { SubscribeResult };
    Publish: PublishRequest -> PublishResponse { PublishResult };
    Rpc: RpcRequest -> RpcResponse { RpcResult };
    SubRefresh: SubRefreshRequest -> SubRefreshResponse { SubRefreshResult };
}
