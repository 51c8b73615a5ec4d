//! From what nodes say to its form in protobuf, and back.

use std::time::Duration;

use super::control::{Answer, ChannelList, Command, Control, ControlBody, NodeInfo, NodeState, Question};
use super::report::Report;
use super::{InvalidEnvelope, channel, proto};
use crate::{Channel, Disconnect, Epoch, Grant, Overrides, Position, Selection};

type ProtoBody = proto::control::Body;
type ProtoQuestion = proto::request::Question;
type ProtoAnswer = proto::reply::Answer;

impl From<&Control> for proto::Control {
    fn from(control: &Control) -> Self {
        let body = match &control.body {
            ControlBody::Announcement { node, greeting } => {
                ProtoBody::Announcement(proto::Announcement { node: Some(node.into()), greeting: *greeting })
            }
            ControlBody::Farewell => ProtoBody::Farewell(proto::Farewell {}),
            ControlBody::Request { number, question } => {
                ProtoBody::Request(proto::Request { number: *number, question: question_to_proto(question) })
            }
            ControlBody::Reply { number, answer } => {
                ProtoBody::Reply(proto::Reply { number: *number, answer: Some(answer.into()) })
            }
        };
        Self { from: control.from.clone(), body: Some(body) }
    }
}

impl TryFrom<proto::Control> for Control {
    type Error = InvalidEnvelope;

    fn try_from(control: proto::Control) -> Result<Self, InvalidEnvelope> {
        let body = match control.body.ok_or(InvalidEnvelope)? {
            ProtoBody::Announcement(proto::Announcement { node, greeting }) => {
                ControlBody::Announcement { node: node.unwrap_or_default().into(), greeting }
            }
            ProtoBody::Farewell(_) => ControlBody::Farewell,
            // What is asked and not understood is answered all the same.
            ProtoBody::Request(proto::Request { number, question }) => {
                let question = question.and_then(question_from_proto).unwrap_or(Question::Unknown);
                ControlBody::Request { number, question }
            }
            ProtoBody::Reply(proto::Reply { number, answer }) => {
                let answer = answer.and_then(answer_from_proto).unwrap_or(Answer::Unsupported);
                ControlBody::Reply { number, answer }
            }
        };
        Ok(Self { from: control.from, body })
    }
}

fn question_to_proto(question: &Question) -> Option<ProtoQuestion> {
    Some(match question {
        Question::Command(command) => command.into(),
        Question::Info => ProtoQuestion::Info(proto::InfoQuestion {}),
        Question::Channels { pattern, limit, after: None } => {
            ProtoQuestion::Channels(proto::ChannelsQuestion { pattern: pattern.clone(), limit: *limit })
        }
        Question::Channels { pattern, limit, after: Some(after) } => {
            let after = after.as_str().to_owned();
            ProtoQuestion::ChannelsBehind(proto::ChannelsBehindQuestion {
                pattern: pattern.clone(),
                limit: *limit,
                after,
            })
        }
        Question::Connections(query) => ProtoQuestion::Connections(query.into()),
        Question::Report { limit } => ProtoQuestion::Report(proto::ReportQuestion { limit: *limit }),
        Question::Drain { node } => ProtoQuestion::Drain(proto::DrainQuestion { node: node.clone() }),
        Question::Rebalance { keep, per_second } => {
            ProtoQuestion::Rebalance(proto::RebalanceQuestion { keep: *keep, per_second: *per_second })
        }
        Question::Unknown => return None,
    })
}

fn question_from_proto(question: ProtoQuestion) -> Option<Question> {
    Some(Question::Command(match question {
        ProtoQuestion::Info(_) => return Some(Question::Info),
        ProtoQuestion::Channels(proto::ChannelsQuestion { pattern, limit }) => {
            return Some(Question::Channels { pattern, limit, after: None });
        }
        ProtoQuestion::ChannelsBehind(proto::ChannelsBehindQuestion { pattern, limit, after }) => {
            return Some(Question::Channels { pattern, limit, after: Some(channel(&after).ok()?) });
        }
        ProtoQuestion::Connections(question) => return Some(Question::Connections(question.try_into().ok()?)),
        ProtoQuestion::Report(proto::ReportQuestion { limit }) => return Some(Question::Report { limit }),
        ProtoQuestion::Drain(proto::DrainQuestion { node }) => return Some(Question::Drain { node }),
        ProtoQuestion::Rebalance(proto::RebalanceQuestion { keep, per_second }) => {
            return (per_second.is_finite() && per_second > 0.0).then_some(Question::Rebalance { keep, per_second });
        }
        ProtoQuestion::Subscribe(proto::Subscribe { selection, channel: name, grant, since }) => Command::Subscribe {
            selection: selection?.into(),
            channel: channel(&name).ok()?,
            grant: grant.unwrap_or_default().into(),
            since: match since {
                Some(since) if since.epoch.len() > Epoch::MAX_LEN => return None,
                Some(since) => Some(Position { epoch: Epoch::from(&*since.epoch), offset: since.offset }),
                None => None,
            },
        },
        ProtoQuestion::Unsubscribe(proto::Unsubscribe { selection, channel: name }) => {
            Command::Unsubscribe { selection: selection?.into(), channel: channel(&name).ok()? }
        }
        ProtoQuestion::Disconnect(proto::Disconnect { selection, code, reason }) => Command::Disconnect {
            selection: selection?.into(),
            disconnect: Disconnect::from_code(code.try_into().ok()?, &reason),
        },
        ProtoQuestion::Refresh(proto::Refresh { selection, expire_at }) => {
            Command::Refresh { selection: selection?.into(), expire_at }
        }
        ProtoQuestion::Revoke(proto::Revoke { user, before }) => Command::Revoke { user, before },
    }))
}

impl From<&Command> for ProtoQuestion {
    fn from(command: &Command) -> Self {
        match command {
            Command::Subscribe { selection, channel, grant, since } => Self::Subscribe(proto::Subscribe {
                selection: Some(selection.into()),
                channel: channel.as_str().to_owned(),
                grant: Some(grant.into()),
                since: since
                    .as_ref()
                    .map(|since| proto::Position { epoch: since.epoch.as_str().to_owned(), offset: since.offset }),
            }),
            Command::Unsubscribe { selection, channel } => Self::Unsubscribe(proto::Unsubscribe {
                selection: Some(selection.into()),
                channel: channel.as_str().to_owned(),
            }),
            Command::Disconnect { selection, disconnect } => Self::Disconnect(proto::Disconnect {
                selection: Some(selection.into()),
                code: disconnect.code().into(),
                reason: disconnect.reason().to_owned(),
            }),
            Command::Refresh { selection, expire_at } => {
                Self::Refresh(proto::Refresh { selection: Some(selection.into()), expire_at: *expire_at })
            }
            Command::Revoke { user, before } => Self::Revoke(proto::Revoke { user: user.clone(), before: *before }),
        }
    }
}

impl From<&Answer> for ProtoAnswer {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Done => Self::Done(proto::Done {}),
            Answer::Unsupported => Self::Unsupported(proto::Unsupported {}),
            Answer::Info(node) => Self::Info(node.into()),
            Answer::Channels(ChannelList { channels, more }) => {
                let members = |(channel, members): &(Channel, u64)| proto::ChannelMembers {
                    channel: channel.as_str().to_owned(),
                    members: *members,
                };
                Self::Channels(proto::ChannelsAnswer { channels: channels.iter().map(members).collect(), more: *more })
            }
            Answer::Connections(list) => Self::Connections(list.into()),
            Answer::Report(report) => Self::Report(report.into()),
        }
    }
}

fn answer_from_proto(answer: ProtoAnswer) -> Option<Answer> {
    Some(match answer {
        ProtoAnswer::Done(_) => Answer::Done,
        ProtoAnswer::Unsupported(_) => Answer::Unsupported,
        ProtoAnswer::Info(node) => Answer::Info(node.into()),
        ProtoAnswer::Channels(proto::ChannelsAnswer { channels, more }) => {
            let channels = channels.into_iter().map(|entry| Some((channel(&entry.channel).ok()?, entry.members)));
            Answer::Channels(ChannelList { channels: channels.collect::<Option<_>>()?, more })
        }
        ProtoAnswer::Connections(list) => Answer::Connections(list.into()),
        ProtoAnswer::Report(report) => Answer::Report(Report::read(report)?),
    })
}

impl From<&NodeInfo> for proto::NodeInfo {
    fn from(node: &NodeInfo) -> Self {
        Self {
            name: node.name.clone(),
            version: node.version.clone(),
            uptime_ms: node.uptime.as_millis() as u64,
            clients: node.clients,
            users: node.users,
            subscriptions: node.subscriptions,
            channels: node.channels,
            workers: node.workers,
            state: match node.state {
                NodeState::Active => proto::NodeState::Active.into(),
                NodeState::Draining => proto::NodeState::Draining.into(),
                NodeState::Unknown => i32::MAX,
            },
            traffic: Some((&node.traffic).into()),
        }
    }
}

impl From<proto::NodeInfo> for NodeInfo {
    fn from(node: proto::NodeInfo) -> Self {
        let state = match proto::NodeState::try_from(node.state) {
            Ok(proto::NodeState::Active) => NodeState::Active,
            Ok(proto::NodeState::Draining) => NodeState::Draining,
            Err(_) => NodeState::Unknown,
        };
        Self {
            name: node.name,
            version: node.version,
            uptime: Duration::from_millis(node.uptime_ms),
            clients: node.clients,
            users: node.users,
            subscriptions: node.subscriptions,
            channels: node.channels,
            workers: node.workers,
            state,
            traffic: node.traffic.unwrap_or_default().into(),
        }
    }
}

impl From<&Selection> for proto::Selection {
    fn from(selection: &Selection) -> Self {
        let Selection { user, client, except } = selection.clone();
        Self { user, client, except }
    }
}

impl From<proto::Selection> for Selection {
    fn from(selection: proto::Selection) -> Self {
        let proto::Selection { user, client, except } = selection;
        Self { user, client, except }
    }
}

impl From<&Grant> for proto::Grant {
    fn from(grant: &Grant) -> Self {
        let Overrides { presence, join_leave, force_join_leave, recovery, positioning } = grant.overrides;
        Self {
            expire_at: grant.expire_at,
            info: grant.info.clone(),
            data: grant.data.clone(),
            presence,
            join_leave,
            force_join_leave,
            recovery,
            positioning,
        }
    }
}

impl From<proto::Grant> for Grant {
    fn from(grant: proto::Grant) -> Self {
        Self {
            expire_at: grant.expire_at,
            info: grant.info,
            data: grant.data,
            overrides: Overrides {
                presence: grant.presence,
                join_leave: grant.join_leave,
                force_join_leave: grant.force_join_leave,
                recovery: grant.recovery,
                positioning: grant.positioning,
            },
        }
    }
}
