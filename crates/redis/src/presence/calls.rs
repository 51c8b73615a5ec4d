//! What presence asks of Redis.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::Error;
use fanwire_node::presence::{Change, Per};
use fanwire_wire::cluster::{Envelope, Member};
use fanwire_wire::{Broadcast, Channel, ClientInfo};
use redis::Value;

use crate::answers::{self, bytes, items, text};
use crate::functions::Function;
use crate::partitions::Partition;
use crate::store::{Store, unexpected};

/// What a client is to be in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Listed,
    Announced(Per),
}

/// Whether subscribers hear of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound {
    Loud,
    Quiet,
}

/// In whose name something is changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand<'a> {
    /// The node that answers for the client.
    pub(super) node: &'a str,
    /// Where it does.
    pub(super) at: Partition,
    /// Its seal.
    pub(super) seal: &'a str,
}

/// A seal that a node has just got.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) seal: Arc<str>,
    pub(super) memory: Memory,
}

/// What Redis knew of a node before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// It was known.
    Kept,
    /// Others have begun to remove its clients, and announced that they left.
    Condemned,
    /// It was unknown.
    Lost,
}

/// What stands in an index for a client: whether it is listed and announced, and perhaps who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) listed: bool,
    pub(super) announced: bool,
    member: Bytes,
}

/// The seal of nodes that are condemned.
pub(super) const CONDEMNED: &str = "-";

/// How long it is known that a node was condemned: one that comes back later brings its clients in again unannounced.
const CONDEMNED_TTL: Duration = Duration::from_secs(24 * 3600);

/// The fields read in one step.
const PAGE: usize = 1000;

/// The name of a client in a channel. No channel contains `{`.
pub(super) fn entry_name(channel: &Channel, client: &str) -> String {
    format!("{channel}{{{client}")
}

impl Store {
    /// `None` if the seal is no good.
    pub(super) async fn presence_add(
        &self,
        hand: Hand<'_>,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        role: Role,
        sound: Sound,
    ) -> Result<Option<Change>, Error> {
        let (role, join) = match role {
            Role::Listed => ("l", Bytes::new()),
            Role::Announced(per) => {
                let join = || Envelope::Broadcast(Broadcast::Join(channel.clone(), Arc::clone(info))).encode();
                let letter = if per == Per::User { "u" } else { "c" };
                (letter, if sound == Sound::Loud { join() } else { Bytes::new() })
            }
        };
        let args = [
            copy(hand.node),
            copy(hand.seal),
            entry_name(channel, &info.client).into(),
            copy(&info.client),
            copy(&info.user),
            Member { node: hand.node.to_owned(), info: (**info).clone() }.encode(),
            copy(role),
            self.keys.channel(channel).into(),
            join,
            self.keys.publish().into(),
        ];
        let keys = self.presence_keys(hand, channel);
        change(&self.commands.call(hand.at, Function::PresenceAdd, &keys, &args).await?)
    }

    /// `None` if the seal is no good.
    pub(super) async fn presence_remove(
        &self,
        hand: Hand<'_>,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        sound: Sound,
    ) -> Result<Option<Change>, Error> {
        let leave = || Envelope::Broadcast(Broadcast::Leave(channel.clone(), Arc::clone(info))).encode();
        let args = [
            copy(hand.node),
            copy(hand.seal),
            entry_name(channel, &info.client).into(),
            copy(&info.client),
            copy(&info.user),
            self.keys.channel(channel).into(),
            if sound == Sound::Loud { leave() } else { Bytes::new() },
            self.keys.publish().into(),
        ];
        let keys = self.presence_keys(hand, channel);
        change(&self.commands.call(hand.at, Function::PresenceRemove, &keys, &args).await?)
    }

    /// Removes a client of which only the index tells; `None` if the seal is no good.
    pub(super) async fn presence_remove_record(
        &self,
        hand: Hand<'_>,
        name: &str,
        record: &Record,
        sound: Sound,
    ) -> Result<Option<Change>, Error> {
        let Some((channel, client)) = name
            .split_once('{')
            .and_then(|(channel, client)| Channel::new(channel).ok().map(|channel| (channel, client)))
        else {
            let mut delete = redis::cmd("HDEL");
            delete.arg(self.keys.index(hand.at, hand.node)).arg(name);
            self.commands.command(hand.at, &delete).await?;
            return Ok(Some(Change::Connection));
        };
        let mut member = Some(record.member.clone());
        if record.listed {
            let mut listed = redis::cmd("HGET");
            listed.arg(self.keys.members(&channel)).arg(client);
            member = bytes(self.commands.command(hand.at, &listed).await?);
        }
        let info = member.and_then(|member| Member::decode(member).ok()).map(|member| member.info);
        // Who is not in the list any more is not counted there either.
        let info = info.unwrap_or_else(|| ClientInfo { client: client.into(), ..ClientInfo::default() });
        self.presence_remove(hand, &channel, &Arc::new(info), sound).await
    }

    /// Gives a node a new seal in this epoch; whatever is under way under an older one comes to nothing.
    pub(super) async fn presence_enter(
        &self,
        at: Partition,
        node: &str,
        epoch: u64,
        number: u64,
    ) -> Result<Entered, Error> {
        let keys = [self.keys.fence(at), self.keys.condemned(at, node)];
        let args = [copy(node), epoch.to_string().into(), number.to_string().into()];
        let answer = items(self.commands.call(at, Function::PresenceEnter, &keys, &args).await?);
        let Ok([seal, known, condemned]) = <[_; 3]>::try_from(answer) else {
            return Err(Error::Unavailable("this node was taken for dead a moment ago".into()));
        };
        let memory = match (known, condemned) {
            (_, Value::Int(1)) => Memory::Condemned,
            (Value::Int(1), _) => Memory::Kept,
            _ => Memory::Lost,
        };
        Ok(Entered { seal: text(seal).ok_or_else(unexpected)?.into(), memory })
    }

    /// Whether a seal is still good.
    pub(super) async fn presence_check(&self, hand: Hand<'_>) -> Result<bool, Error> {
        let args = [copy(hand.node), copy(hand.seal)];
        let answer = self.commands.call(hand.at, Function::PresenceCheck, &[self.keys.fence(hand.at)], &args).await?;
        Ok(answer == Value::Int(1))
    }

    /// Lets a node's being condemned be forgotten: it is in line again.
    pub(super) async fn presence_pardon(&self, at: Partition, node: &str) -> Result<(), Error> {
        let mut delete = redis::cmd("DEL");
        delete.arg(self.keys.condemned(at, node));
        self.commands.command(at, &delete).await.map(|_| ())
    }

    /// Takes a dead node's seal away and returns some of what it answered for; nothing if all of it is gone, `None` if it
    /// has come back.
    pub(super) async fn presence_condemn(
        &self,
        at: Partition,
        node: &str,
        epoch: u64,
        limit: usize,
    ) -> Result<Option<Vec<(String, Record)>>, Error> {
        let keys = [self.keys.fence(at), self.keys.condemned(at, node), self.keys.index(at, node)];
        let ttl = CONDEMNED_TTL.as_millis().to_string();
        let args = [copy(node), epoch.to_string().into(), ttl.into(), limit.to_string().into()];
        let answer = self.commands.call(at, Function::PresenceCondemn, &keys, &args).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        Ok(Some(pairs(answer).filter_map(|(name, record)| Some((name, Record::read(&record)?))).collect()))
    }

    /// Everything a node answers for, by name.
    pub(super) async fn presence_index(&self, at: Partition, node: &str) -> Result<Vec<(String, Record)>, Error> {
        let mut index = Vec::new();
        self.scan(at, &self.keys.index(at, node), |name, record| {
            index.extend(Record::read(&record).map(|record| (name, record)))
        })
        .await?;
        Ok(index)
    }

    /// Gives a sign of life; returns those of all nodes, `None` if this node's epoch is over. With `anew` it begins.
    pub(super) async fn presence_renew(
        &self,
        at: Partition,
        node: &str,
        epoch: u64,
        beat: u64,
        anew: bool,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        let how = if anew { "anew" } else { "" };
        let args = [copy(node), epoch.to_string().into(), format!("{epoch} {beat}").into(), copy(how)];
        let answer = self.commands.call(at, Function::PresenceRenew, &[self.keys.signs(at)], &args).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        Ok(Some(pairs(answer).filter_map(|(node, sign)| Some((node, String::from_utf8(sign.into()).ok()?))).collect()))
    }

    /// Replaces a sign of life, or removes it; true if it was still the one that was seen.
    pub(super) async fn presence_claim(
        &self,
        at: Partition,
        node: &str,
        seen: &str,
        next: &str,
    ) -> Result<bool, Error> {
        let args = [copy(node), copy(seen), copy(next)];
        let answer = self.commands.call(at, Function::PresenceClaim, &[self.keys.signs(at)], &args).await?;
        Ok(answer == Value::Int(1))
    }

    /// Reads a hash page by page, so that no other command waits long; some fields may come twice.
    pub(super) async fn scan(
        &self,
        at: Partition,
        key: &str,
        mut take: impl FnMut(String, Bytes),
    ) -> Result<(), Error> {
        let mut cursor = "0".to_owned();
        loop {
            let mut page = redis::cmd("HSCAN");
            page.arg(key).arg(&cursor).arg("COUNT").arg(PAGE);
            let [next, fields] =
                <[_; 2]>::try_from(items(self.commands.command(at, &page).await?)).map_err(|_| unexpected())?;
            pairs(fields).for_each(|(name, value)| take(name, value));
            cursor = text(next).ok_or_else(unexpected)?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    fn presence_keys(&self, hand: Hand<'_>, channel: &Channel) -> [String; 5] {
        let (keys, Hand { node, at, .. }) = (&self.keys, hand);
        [keys.fence(at), keys.index(at, node), keys.members(channel), keys.users(channel), keys.joined(channel)]
    }
}

impl Record {
    fn read(bytes: &Bytes) -> Option<Self> {
        let [listed, announced, ..] = bytes[..] else { return None };
        Some(Self { listed: listed == b'l', announced: announced != b'-', member: bytes.slice(2..) })
    }
}

fn change(answer: &Value) -> Result<Option<Change>, Error> {
    match answer {
        Value::Int(0) => Ok(Some(Change::Nothing)),
        Value::Int(1) => Ok(Some(Change::Connection)),
        Value::Int(2) => Ok(Some(Change::User)),
        Value::Int(-1) => Ok(None),
        _ => Err(unexpected()),
    }
}

fn pairs(answer: Value) -> impl Iterator<Item = (String, Bytes)> {
    answers::pairs(answer).filter_map(|(name, value)| Some((text(name)?, bytes(value)?)))
}

fn copy(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
