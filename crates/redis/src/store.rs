//! Streams and pub/sub: the commands behind the broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::{
    Condition, Error, History, HistoryQuery, IDEMPOTENCY_TTL, Order, PublishOptions, Published, Retention, Verdict,
    Version,
};
use fanwire_wire::cluster::Envelope;
use fanwire_wire::{Broadcast, Channel, Epoch, Position, Publication};

use crate::answers::{bytes, items, number, text};
use crate::commands::Commands;
use crate::functions::Function;
use crate::keys::{Keys, fresh_word};
use crate::partitions::Partition;

/// How long a stream's position outlives its last use.
const POSITION_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The channels compared in one round trip.
const BATCH: usize = 512;

pub(crate) struct Store {
    pub(crate) commands: Commands,
    pub(crate) keys: Keys,
}

impl Store {
    /// Applies publications of one channel, in their order.
    pub(crate) async fn publish(&self, batch: Vec<(Publication, PublishOptions)>) -> Result<Vec<Published>, Error> {
        let Some((first, _)) = batch.first() else { return Ok(Vec::new()) };
        let (channel, first_time) = (first.channel.clone(), first.time_ms);
        let partition = self.keys.partition(&channel);
        if let [(publication, PublishOptions { history: None, idempotency_key: None, .. })] = &*batch {
            self.send(partition, &self.keys.channel(&channel), &envelope(publication.clone())).await?;
            return Ok(vec![Published::default()]);
        }
        let retention = batch.iter().find_map(|(_, options)| options.history);
        let Retention { size, ttl } = retention.unwrap_or(Retention { size: 0, ttl: Duration::ZERO });
        let mut keys = vec![self.keys.meta(&channel), self.keys.stream(&channel)];
        let mut args = Vec::with_capacity(8 + 2 * batch.len());
        args.extend([
            self.keys.channel(&channel).into(),
            self.keys.publish().into(),
            size.max(1).to_string().into(),
            millis(ttl),
            fresh_word().into(),
            millis(POSITION_TTL.max(ttl * 2)),
            millis(IDEMPOTENCY_TTL),
            first_time.to_string().into(),
        ]);
        let wanted = batch.len();
        for (publication, options) in batch {
            let (how, condition) = how(&options);
            args.extend([envelope(publication), how]);
            args.extend(condition.into_iter().flatten());
            keys.extend(options.idempotency_key.map(|key| self.keys.result(&channel, &key)));
        }
        let answers = items(self.commands.call(partition, Function::Publish, &keys, &args).await?);
        let published: Vec<_> = answers.into_iter().map_while(|answer| published(&text(answer)?)).collect();
        if published.len() == wanted { Ok(published) } else { Err(unexpected()) }
    }

    /// Publishes a finished envelope to a pub/sub channel of this partition, kept nowhere.
    pub(crate) async fn send(&self, partition: Partition, channel: &str, envelope: &Bytes) -> Result<(), Error> {
        let mut command = redis::cmd(self.keys.publish());
        command.arg(channel).arg(&**envelope);
        self.commands.command(partition, &command).await.map(|_| ())
    }

    pub(crate) async fn history(&self, channel: &Channel, query: &HistoryQuery) -> Result<History, Error> {
        let keys = [self.keys.meta(channel), self.keys.stream(channel)];
        let (first, last, command) = match (query.order, query.since) {
            (Order::Forward, None) => ("-".to_owned(), "+".to_owned(), "XRANGE"),
            (Order::Forward, Some(since)) => (format!("({since}-0"), "+".to_owned(), "XRANGE"),
            (Order::Reverse, None) => ("+".to_owned(), "-".to_owned(), "XREVRANGE"),
            (Order::Reverse, Some(since)) => (format!("({since}-0"), "-".to_owned(), "XREVRANGE"),
        };
        // Nothing stands before the first one, and Redis does not like to be asked for it.
        let limit = if (query.order, query.since) == (Order::Reverse, Some(0)) { 0 } else { query.limit };
        let args = [
            fresh_word().into(),
            millis(POSITION_TTL),
            first.into(),
            last.into(),
            limit.min(i32::MAX as usize).to_string().into(),
            command.into(),
        ];
        let answer = self.commands.call(self.keys.partition(channel), Function::History, &keys, &args).await?;
        let [epoch, top, entries] = <[_; 3]>::try_from(items(answer)).map_err(|_| unexpected())?;
        let epoch = text(epoch).ok_or_else(unexpected)?;
        let offset = number(top).ok_or_else(unexpected)?;
        let top = Position { epoch: Epoch::from(&*epoch), offset };
        let publications = items(entries).into_iter().filter_map(|entry| {
            let envelope = Envelope::decode(bytes(entry)?).ok()?;
            let Envelope::Broadcast(Broadcast::Publication(publication)) = envelope else { return None };
            Some(publication)
        });
        Ok(History { publications: publications.collect(), top })
    }

    pub(crate) async fn remove_history(&self, channel: &Channel) -> Result<(), Error> {
        let mut command = redis::cmd("DEL");
        command.arg(self.keys.stream(channel));
        self.commands.command(self.keys.partition(channel), &command).await.map(|_| ())
    }

    /// Reads the ends of many streams; `None` where there is none. Each by itself: one server that fails does not hide what the
    /// others say.
    pub(crate) async fn tops(&self, channels: &[Channel]) -> Vec<Result<Option<Position>, Error>> {
        let mut tops = Vec::with_capacity(channels.len());
        for batch in channels.chunks(BATCH) {
            let question = |channel| {
                let mut command = redis::cmd("HMGET");
                command.arg(self.keys.meta(channel)).arg("e").arg("s");
                (self.keys.partition(channel), command)
            };
            let questions: Vec<_> = batch.iter().map(question).collect();
            let read = |answer| {
                let [epoch, offset] = <[_; 2]>::try_from(items(answer)).ok()?;
                Some(Position { epoch: Epoch::from(&*text(epoch)?), offset: number(offset)? })
            };
            tops.extend(self.commands.batch(&questions).await.into_iter().map(|answer| answer.map(read)));
        }
        tops
    }
}

/// What is stored and sent for a publication; the server appends its stamp.
fn envelope(mut publication: Publication) -> Bytes {
    publication.stamp = None;
    Envelope::Broadcast(Broadcast::Publication(Arc::new(publication))).encode()
}

/// How a publication is applied, in the words of `functions.lua`, and what has to be true of the stream.
fn how(options: &PublishOptions) -> (Bytes, Option<[Bytes; 2]>) {
    let kept = options.history.is_some();
    if kept && options.idempotency_key.is_none() && options.condition.is_none() {
        return (Bytes::from_static(b"kept "), None);
    }
    let mut words = String::from(if kept { "kept " } else { "" });
    if options.idempotency_key.is_some() {
        words.push_str("once ");
    }
    let condition = match &options.condition {
        None => None,
        Some(Condition::At(Position { offset, epoch })) => {
            words.push_str("at ");
            Some([offset.to_string().into(), epoch.as_str().to_owned().into()])
        }
        Some(Condition::Below(Version { number, epoch })) => {
            words.push_str("below ");
            Some([format!("{number:020}").into(), epoch.to_string().into()])
        }
    };
    (words.into(), condition)
}

/// Reads what the server says of one publication: nothing, if it is not kept; else where it stands, or why not.
fn published(answer: &str) -> Option<Published> {
    let mut words = answer.split(' ').filter(|word| !word.is_empty());
    let Some(offset) = words.next() else { return Some(Published::default()) };
    let position = Position { offset: offset.parse().ok()?, epoch: Epoch::from(words.next()?) };
    let verdict = match words.next() {
        None => Verdict::Applied,
        Some("outdated") => Verdict::Outdated,
        Some("conflict") => Verdict::Conflict,
        Some(_) => return None,
    };
    Some(Published { position: Some(position), verdict })
}

fn millis(duration: Duration) -> Bytes {
    duration.as_millis().to_string().into()
}

pub(crate) fn unexpected() -> Error {
    Error::Unavailable("unexpected answer from Redis".into())
}
