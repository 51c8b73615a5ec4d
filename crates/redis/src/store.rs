//! Streams and pub/sub on one server: the commands behind the broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_node::broker::{
    Error, History, HistoryQuery, IDEMPOTENCY_TTL, Order, PublishOptions, Published, Retention,
};
use fanwire_wire::cluster::Envelope;
use fanwire_wire::{Broadcast, Channel, Epoch, Position, Publication};

use crate::commands::{Commands, bytes, items, text};
use crate::functions::Function;
use crate::keys::{Keys, random_word};

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
                let args = [self.keys.channel(&channel).into(), envelope, millis(IDEMPOTENCY_TTL)];
                self.commands.call(Function::PublishOnce, &[result], &args).await?;
                Ok(Published { position: None })
            }
            (None, None) => {
                self.send(&self.keys.channel(&channel), &envelope).await?;
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
        ];
        let answer = self.commands.call(Function::Publish, &keys, &args).await?;
        let answer = text(answer).unwrap_or_default();
        let (offset, epoch) = answer.split_once(' ').unwrap_or_default();
        let offset = offset.parse().map_err(|_| unexpected())?;
        Ok(Published { position: Some(Position { epoch: Epoch::from(epoch), offset }) })
    }

    /// Publishes a finished envelope, kept nowhere.
    pub(crate) async fn send(&self, channel: &str, envelope: &Bytes) -> Result<(), Error> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(&**envelope);
        self.commands.command(&command).await.map(|_| ())
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
        let answer = self.commands.call(Function::History, &keys, &args).await?;
        let [epoch, top, entries] = <[_; 3]>::try_from(items(answer)).map_err(|_| unexpected())?;
        let epoch = text(epoch).ok_or_else(unexpected)?;
        let offset = text(top).and_then(|top| top.parse().ok()).ok_or_else(unexpected)?;
        let top = Position { epoch: Epoch::from(&*epoch), offset };
        let publications = items(entries).into_iter().filter_map(|entry| {
            let envelope = Envelope::decode(bytes(entry)?).ok()?;
            let Envelope::Broadcast(Broadcast::Publication(publication)) = envelope else { return None };
            Some(publication)
        });
        Ok(History { publications: publications.collect(), top })
    }

    pub(crate) async fn remove_history(&self, channel: &Channel) -> Result<(), Error> {
        self.commands.command(redis::cmd("DEL").arg(self.keys.stream(channel))).await.map(|_| ())
    }

    /// Reads the ends of many streams; `None` where there is none.
    pub(crate) async fn tops(&self, channels: &[Channel]) -> Result<Vec<Option<Position>>, Error> {
        let mut tops = Vec::with_capacity(channels.len());
        for batch in channels.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            for channel in batch {
                pipeline.cmd("HMGET").arg(self.keys.meta(channel)).arg("e").arg("s");
            }
            tops.extend(self.commands.pipeline(&pipeline).await?.into_iter().map(|answer| {
                let [epoch, offset] = <[_; 2]>::try_from(items(answer)).ok()?;
                Some(Position { epoch: Epoch::from(&*text(epoch)?), offset: text(offset)?.parse().ok()? })
            }));
        }
        Ok(tops)
    }
}

fn millis(duration: Duration) -> Bytes {
    duration.as_millis().to_string().into()
}

pub(crate) fn unexpected() -> Error {
    Error::Unavailable("unexpected answer from Redis".into())
}
