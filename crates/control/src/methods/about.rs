//! What each request is about: who may make it, and what the audit log says of it.

use std::slice;

use crate::caller::{About, Subject};
use crate::proto;

macro_rules! about {
    ($($($request:ident)|+ => $subject:expr;)*) => {
        $($(impl About for proto::$request {
            fn subject(&self) -> Subject<'_> {
                let subject: fn(&Self) -> Subject<'_> = $subject;
                subject(self)
            }
        })+)*
    };
}

about! {
    PublishRequest | PresenceRequest | PresenceStatsRequest | HistoryRequest | HistoryRemoveRequest =>
        |request| Subject { channels: slice::from_ref(&request.channel), ..Subject::default() };
    BroadcastRequest => |request| Subject { channels: &request.channels, ..Subject::default() };
    SubscribeRequest | UnsubscribeRequest => |request| Subject {
        channels: slice::from_ref(&request.channel),
        user: &request.user,
        client: either(&request.client, &request.session),
    };
    // Also if it names none: a key for certain channels must not see the others' connections.
    ConnectionsRequest => |request| Subject {
        channels: slice::from_ref(&request.channel),
        user: &request.user,
        client: "",
    };
    DisconnectRequest | RefreshRequest => |request| Subject {
        channels: &[],
        user: &request.user,
        client: either(&request.client, &request.session),
    };
    RevokeRequest => |request| Subject { user: &request.user, ..Subject::default() };
    // About no channel in particular: an answer has those that its caller may see.
    ChannelsRequest | NodesRequest | InfoRequest | ReportRequest | DrainRequest | RebalanceRequest | ReloadRequest => |_| Subject::default();
}

fn either<'a>(client: &'a str, session: &'a str) -> &'a str {
    if client.is_empty() { session } else { client }
}
