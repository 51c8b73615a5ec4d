//! The table of commands.

use crate::proto::{self, Command};

macro_rules! requests {
    ($($variant:ident($message:ident) = $field:ident;)*) => {
        /// What a command asks for.
        #[derive(Debug)]
        pub(crate) enum Request {
            $($variant(proto::$message),)*
        }

        impl Request {
            /// Takes the request out of a command: of several the first in the table, as there should be one.
            pub(crate) fn of(command: Command) -> Option<Self> {
                $(if let Some(request) = command.$field {
                    return Some(Self::$variant(request));
                })*
                None
            }

            /// What kind of command it is.
            pub(crate) fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => Kind::$variant,)*
                }
            }
        }

        /// The kinds of commands, as metrics tell them apart.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($variant,)*
            /// The answer to a ping.
            Pong,
            /// A command without a request of the table.
            Unknown,
            /// Bytes that are no command.
            Malformed,
        }

        impl Kind {
            /// Every kind, in the order of the variants.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)* Self::Pong, Self::Unknown, Self::Malformed];

            /// The name in metrics.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($field),)*
                    Self::Pong => "pong",
                    Self::Unknown => "unknown",
                    Self::Malformed => "malformed",
                }
            }
        }
    };
}

requests! {
    Connect(ConnectRequest) = connect;
    Subscribe(SubscribeRequest) = subscribe;
    Unsubscribe(UnsubscribeRequest) = unsubscribe;
    Publish(PublishRequest) = publish;
    Presence(PresenceRequest) = presence;
    PresenceStats(PresenceStatsRequest) = presence_stats;
    History(HistoryRequest) = history;
    Ping(PingRequest) = ping;
    Send(SendRequest) = send;
    Rpc(RpcRequest) = rpc;
    Refresh(RefreshRequest) = refresh;
    SubRefresh(SubRefreshRequest) = sub_refresh;
}
