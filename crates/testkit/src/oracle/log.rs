//! What a run writes down: one record for each thing that happened, as JSON lines.

use std::io::{self, BufRead, Write};

use fanwire_wire::Position;
use serde::{Deserialize, Serialize};

/// The records of one run. The events of one subscription stand in the order in which its client saw them; markers and the
/// word that all is settled stand where they are true. No other order matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// All of them.
    pub records: Vec<Record>,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A publisher learned what became of an attempt to publish.
    Published(Published),
    /// A client saw something on one of its channels.
    Seen(Seen),
    /// A channel's stream as it is kept. Several of the same channel complete each other; the last one says where it ends.
    Stream(Stream),
    /// Somebody removed a channel's history up to here.
    Trimmed(Trimmed),
    /// A publication follows that must arrive: all faults are over. Every subscription that is live here, and stays so, must
    /// see it.
    Marker(Marker),
    /// All faults are over, and nothing is under way: every subscription that is live here must stand at the stream's end.
    Settled(Settled),
    /// A measurement beside the logs, with its bound.
    Figure(Figure),
}

/// A position in a channel's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    /// The stream's life.
    pub epoch: String,
    /// The offset.
    pub offset: u64,
}

/// One attempt to publish. An attempt with a key may be repeated, with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Names the publication; it stands in its payload.
    pub pub_id: u64,
    /// Where to.
    pub channel: String,
    /// The idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the publisher was told.
    pub outcome: Outcome,
}

/// What a publisher was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Applied, at this place if the channel keeps a stream.
    Acked(Option<At>),
    /// Not applied.
    Refused,
    /// Applied or not.
    Unknown,
}

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Who; the same one over all of its connections.
    pub subscriber: String,
    /// On which channel.
    pub channel: String,
    /// What.
    pub event: Event,
}

/// One event of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The subscription begins, or goes on.
    Subscribed {
        /// Everything missed follows as publications.
        recovered: bool,
        /// The client asked for that.
        was_recovering: bool,
        /// Where the subscription stands; `None` without positions.
        at: Option<At>,
    },
    /// A publication arrived, live or by a recovery.
    Publication {
        /// Its place; `None` for one that is not kept, and where the subscription has no position.
        at: Option<At>,
        /// Its id as read from the payload; `None` if that is damaged.
        pub_id: Option<u64>,
    },
    /// The node ended the subscription.
    Unsubscribed {
        /// Why; 2500 tells of a gap.
        code: u32,
    },
    /// The connection ended, and the subscription with it.
    Disconnected {
        /// Why; 3010 tells of a gap.
        code: u32,
    },
}

/// What is kept of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Whose.
    pub channel: String,
    /// Its end.
    pub top: At,
    /// Its entries, in any order.
    pub entries: Vec<Entry>,
}

/// One kept publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub at: At,
    /// The offset before it.
    pub prev: u64,
    /// Its id.
    pub pub_id: u64,
}

/// A history somebody removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trimmed {
    /// Whose.
    pub channel: String,
    /// Up to where, at most.
    pub at: At,
}

/// What must arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Where it is published.
    pub channel: String,
    /// Its id.
    pub pub_id: u64,
}

/// Where a stream ends when nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Whose.
    pub channel: String,
    /// Its end.
    pub top: At,
}

/// A measurement, for what logs do not show: memory, descriptors, latency, agreement of a metric with the logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured, with its unit.
    pub name: String,
    /// The value.
    pub value: f64,
    /// The bound, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

impl Log {
    /// Writes down what a publisher was told.
    pub fn published(&mut self, published: Published) {
        self.records.push(Record::Published(published));
    }

    /// Writes down what a client saw.
    pub fn seen(&mut self, subscriber: &str, channel: &str, event: Event) {
        self.records.push(Record::Seen(Seen { subscriber: subscriber.to_owned(), channel: channel.to_owned(), event }));
    }

    /// Reads JSON lines.
    ///
    /// # Errors
    ///
    /// If reading fails, or a line is no record.
    pub fn read(lines: impl BufRead) -> io::Result<Self> {
        let parse = |line: io::Result<String>| Ok(serde_json::from_str(&line?)?);
        Ok(Self { records: lines.lines().map(parse).collect::<io::Result<_>>()? })
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    ///
    /// If writing fails.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for record in &self.records {
            serde_json::to_writer(&mut to, record)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}

impl From<&Position> for At {
    fn from(position: &Position) -> Self {
        Self { epoch: position.epoch.as_str().to_owned(), offset: position.offset }
    }
}

impl From<&At> for Position {
    fn from(at: &At) -> Self {
        Self { epoch: at.epoch.as_str().into(), offset: at.offset }
    }
}
