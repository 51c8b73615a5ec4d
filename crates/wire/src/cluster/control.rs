//! What nodes tell and ask each other about themselves and their clients.

use std::time::Duration;

use super::connections::{ConnectionList, ConnectionQuery};
use super::report::{Report, Traffic};
use crate::{Channel, Disconnect, Grant, Position, Selection};

/// What a node tells one other node, or all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// The id of the node that speaks.
    pub from: String,
    /// What it says.
    pub body: ControlBody,
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlBody {
    /// The node is there.
    Announcement {
        /// What it has.
        node: NodeInfo,
        /// It does not know the others: each answers it with an announcement of its own.
        greeting: bool,
    },
    /// The node leaves in good order.
    Farewell,
    /// Something every node that gets it has to answer.
    Request {
        /// Comes back in the replies.
        number: u64,
        /// What is asked.
        question: Question,
    },
    /// One node's answer.
    Reply {
        /// That of the request.
        number: u64,
        /// What is answered.
        answer: Answer,
    },
}

/// What a node says it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// What people call it.
    pub name: String,
    /// The release it runs.
    pub version: String,
    /// Since its start, in whole milliseconds.
    pub uptime: Duration,
    /// Open connections that are somebody's.
    pub clients: u64,
    /// Different user ids, the anonymous one counted once.
    pub users: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Channels with subscribers.
    pub channels: u64,
    /// Threads that own connections.
    pub workers: u32,
    /// What it is about to do.
    pub state: NodeState,
    /// What it does.
    pub traffic: Traffic,
}

/// What a node is about to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// It serves.
    #[default]
    Active,
    /// It sends its clients away.
    Draining,
    /// Something a later version knows.
    Unknown,
}

/// What every node is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// To do something.
    Command(Command),
    /// What it has.
    Info,
    /// Which channels have subscribers on it.
    Channels {
        /// The form of their names: `*` stands for any text.
        pattern: String,
        /// The most channels in the answer, in the order of their names.
        limit: u32,
        /// Only those behind this one.
        after: Option<Channel>,
    },
    /// Which connections it has.
    Connections(ConnectionQuery),
    /// What stands out on it.
    Report {
        /// The most entries in each list of the answer.
        limit: u32,
    },
    /// One of them to go down: its clients move to the others, then it ends.
    Drain {
        /// The id of the node that is meant; the others do nothing.
        node: String,
    },
    /// To let clients go to the others.
    Rebalance {
        /// How many each node keeps.
        keep: u64,
        /// How many each asks in a second.
        per_second: f64,
    },
    /// Something a later version knows.
    Unknown,
}

/// What is done to a user's connections, wherever they are.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Subscribes them.
    Subscribe {
        /// Which ones.
        selection: Selection,
        /// To what.
        channel: Channel,
        /// On which terms.
        grant: Grant,
        /// From where on.
        since: Option<Position>,
    },
    /// Ends their subscriptions to a channel.
    Unsubscribe {
        /// Which ones.
        selection: Selection,
        /// From what.
        channel: Channel,
    },
    /// Ends them.
    Disconnect {
        /// Which ones.
        selection: Selection,
        /// Why.
        disconnect: Disconnect,
    },
    /// Gives them a new term.
    Refresh {
        /// Which ones.
        selection: Selection,
        /// Its end in seconds of Unix time; `None` for never.
        expire_at: Option<u64>,
    },
    /// Ends those whose tokens are too old, and refuses such tokens from then on.
    Revoke {
        /// Whose.
        user: String,
        /// Tokens made before this second of Unix time.
        before: u64,
    },
}

/// What one node answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The question was not understood, or the answer is not.
    Unsupported,
    /// To [`Question::Info`].
    Info(NodeInfo),
    /// To [`Question::Channels`].
    Channels(ChannelList),
    /// To [`Question::Connections`].
    Connections(ConnectionList),
    /// To [`Question::Report`].
    Report(Report),
}

/// Channels with subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelList {
    /// The channels in the order of their names, each with its subscribers.
    pub channels: Vec<(Channel, u64)>,
    /// Whether there are more, with names behind the last one.
    pub more: bool,
}

impl ControlBody {
    /// The name in metrics and logs: one of [`ControlBody::KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Announcement { .. } => "announcement",
            Self::Farewell => "farewell",
            Self::Request { question, .. } => question.kind(),
            Self::Reply { .. } => "reply",
        }
    }

    /// Every name.
    pub const KINDS: [&str; 15] = [
        "announcement",
        "farewell",
        "reply",
        "subscribe",
        "unsubscribe",
        "disconnect",
        "refresh",
        "revoke",
        "info",
        "channels",
        "connections",
        "report",
        "drain",
        "rebalance",
        "unknown",
    ];
}

impl Question {
    /// The name in metrics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command(Command::Subscribe { .. }) => "subscribe",
            Self::Command(Command::Unsubscribe { .. }) => "unsubscribe",
            Self::Command(Command::Disconnect { .. }) => "disconnect",
            Self::Command(Command::Refresh { .. }) => "refresh",
            Self::Command(Command::Revoke { .. }) => "revoke",
            Self::Info => "info",
            Self::Channels { .. } => "channels",
            Self::Connections(_) => "connections",
            Self::Report { .. } => "report",
            Self::Drain { .. } => "drain",
            Self::Rebalance { .. } => "rebalance",
            Self::Unknown => "unknown",
        }
    }
}

impl NodeState {
    /// The name for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
        }
    }
}
