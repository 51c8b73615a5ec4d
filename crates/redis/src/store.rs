//! Streams and pub/sub: the commands behind the broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::{
    Error, History, HistoryQuery, IDEMPOTENCY_TTL, Order, PublishOptions, Published, Retention,
};
use fanwire_wire::cluster::Envelope;
use fanwire_wire::{Broadcast, Channel, Epoch, Position, Publication};

use crate::answers::{bytes, items, number, text};
use crate::commands::Commands;
use crate::functions::Function;
use crate::keys::{Keys, random_word};
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
    pub(crate) async fn publish(
        &self,
        mut publication: Publication,
        options: &PublishOptions,
    ) -> Result<Published, Error> {
        publication.stamp = None;
        let channel = publication.channel.clone();
        let time = publication.time_ms;
        let envelope = Envelope::Broadcast(Broadcast::Publication(Arc::new(publication))).encode();
        let result = options.idempotency_key.as_deref().map(|key| self.keys.result(&channel, key));
        match (options.history, result) {
            (Some(retention), result) => self.append(&channel, &envelope, retention, result, time).await,
            (None, Some(result)) => {
                let how = self.keys.publish().into();
                let args = [self.keys.channel(&channel).into(), envelope, millis(IDEMPOTENCY_TTL), how];
                let partition = self.keys.partition(&channel);
                self.commands.call(partition, Function::PublishOnce, &[result], &args).await?;
                Ok(Published { position: None })
            }
            (None, None) => {
                self.send(self.keys.partition(&channel), &self.keys.channel(&channel), &envelope).await?;
                Ok(Published { position: None })
            }
        }
    }

    async fn append(
        &self,
        channel: &Channel,
        envelope: &Bytes,
        retention: Retention,
        result: Option<String>,
        time: i64,
    ) -> Result<Published, Error> {
        let mut keys = vec![self.keys.meta(channel), self.keys.stream(channel)];
        keys.extend(result);
        let args = [
            self.keys.channel(channel).into(),
            envelope.clone(),
            retention.size.max(1).to_string().into(),
            millis(retention.ttl),
            random_word().into(),
            millis(POSITION_TTL.max(retention.ttl * 2)),
            millis(IDEMPOTENCY_TTL),
            time.to_string().into(),
            self.keys.publish().into(),
        ];
        let answer = self.commands.call(self.keys.partition(channel), Function::Publish, &keys, &args).await?;
        let answer = text(answer).unwrap_or_default();
        let (offset, epoch) = answer.split_once(' ').unwrap_or_default();
        let offset = offset.parse().map_err(|_| unexpected())?;
        Ok(Published { position: Some(Position { epoch: Epoch::from(epoch), offset }) })
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
            random_word().into(),
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

fn millis(duration: Duration) -> Bytes {
    duration.as_millis().to_string().into()
}

pub(crate) fn unexpected() -> Error {
    Error::Unavailable("unexpected answer from Redis".into())
}
