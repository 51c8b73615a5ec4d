//! The names of keys and pub/sub channels.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use fanwire_wire::Channel;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::partitions::{Partition, Partitions};

/// Makes names under the configured prefix. In a cluster each begins with the hash tag of its partition, so that everything of a
/// channel lies in one slot: no channel contains `{`, and the first pair of braces counts.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
    pub(crate) partitions: Partitions,
}

impl Keys {
    pub(crate) fn new(prefix: &str, partitions: Partitions) -> Self {
        Self { prefix: prefix.to_owned(), partitions }
    }

    /// The partition of a channel.
    pub(crate) fn partition(&self, channel: &Channel) -> Partition {
        self.partitions.of(channel)
    }

    /// The pub/sub channel of a channel.
    pub(crate) fn channel(&self, channel: &Channel) -> String {
        self.of_channel("channel", channel)
    }

    /// The channel that a pub/sub channel carries.
    pub(crate) fn channel_of(&self, name: &str) -> Option<Channel> {
        let mut name = name.strip_prefix(&*self.prefix)?.strip_prefix(':')?;
        if self.partitions.is_cluster() {
            name = name.strip_prefix('{')?.split_once("}:")?.1;
        }
        Channel::new(name.strip_prefix("channel:")?).ok()
    }

    /// The command that publishes: in a cluster, within the slot of the pub/sub channel.
    pub(crate) fn publish(&self) -> &'static str {
        if self.partitions.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// The command that subscribes, and the one that ends that.
    pub(crate) fn subscribe(&self) -> (&'static str, &'static str) {
        if self.partitions.is_cluster() { ("SSUBSCRIBE", "SUNSUBSCRIBE") } else { ("SUBSCRIBE", "UNSUBSCRIBE") }
    }

    /// The pub/sub channel on which a node hears itself, over the server of a partition.
    pub(crate) fn proof(&self, partition: Partition, node: &str) -> String {
        self.of_partition("proof", partition, node)
    }

    /// The pub/sub channel on which all nodes hear what is said to all.
    pub(crate) fn nodes(&self) -> String {
        self.of_partition("nodes", Partition::NODES, "")
    }

    /// The pub/sub channel on which a node hears what is said to it alone.
    pub(crate) fn node(&self, node: &str) -> String {
        self.of_partition("node", Partition::NODES, node)
    }

    /// The revocations of all users.
    pub(crate) fn revocations(&self) -> String {
        self.of_partition("revocations", Partition::NODES, "")
    }

    /// Epoch, top and last incarnation of a stream.
    pub(crate) fn meta(&self, channel: &Channel) -> String {
        self.of_channel("meta", channel)
    }

    /// The publications kept.
    pub(crate) fn stream(&self, channel: &Channel) -> String {
        self.of_channel("stream", channel)
    }

    /// What came of a publication with an idempotency key. No channel contains `{`.
    pub(crate) fn result(&self, channel: &Channel, key: &str) -> String {
        format!("{}{{{key}", self.of_channel("result", channel))
    }

    /// Who is listed in a channel.
    pub(crate) fn members(&self, channel: &Channel) -> String {
        self.of_channel("members", channel)
    }

    /// How many of each user's connections are listed in a channel.
    pub(crate) fn users(&self, channel: &Channel) -> String {
        self.of_channel("users", channel)
    }

    /// How many of each user's connections are announced per user in a channel.
    pub(crate) fn joined(&self, channel: &Channel) -> String {
        self.of_channel("joined", channel)
    }

    /// The nodes' signs of life in a partition.
    pub(crate) fn signs(&self, partition: Partition) -> String {
        self.of_partition("signs", partition, "")
    }

    /// The nodes' seals in a partition.
    pub(crate) fn fence(&self, partition: Partition) -> String {
        self.of_partition("fence", partition, "")
    }

    /// The clients a node answers for in a partition.
    pub(crate) fn index(&self, partition: Partition, node: &str) -> String {
        self.of_partition("index", partition, node)
    }

    /// Exists for a while after a node was condemned in a partition.
    pub(crate) fn condemned(&self, partition: Partition, node: &str) -> String {
        self.of_partition("condemned", partition, node)
    }

    fn of_channel(&self, kind: &str, channel: &Channel) -> String {
        self.of_partition(kind, self.partition(channel), channel.as_str())
    }

    fn of_partition(&self, kind: &str, partition: Partition, name: &str) -> String {
        let colon = if name.is_empty() { "" } else { ":" };
        match self.partitions.tag(partition) {
            Some(tag) => format!("{}:{{{tag}}}:{kind}{colon}{name}", self.prefix),
            None => format!("{}:{kind}{colon}{name}", self.prefix),
        }
    }
}

/// A short word of letters and digits, another one with every call. Made for every publication, in case its stream begins: so
/// the system is asked for randomness once.
pub(crate) fn fresh_word() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
    static SEED: LazyLock<u64> = LazyLock::new(|| u64::from_le_bytes(random_bytes()));
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let number = xxh3_64_with_seed(&CALLS.fetch_add(1, Ordering::Relaxed).to_le_bytes(), *SEED);
    (0..10).map(|letter| char::from(LETTERS[(number >> (5 * letter) & 31) as usize])).collect()
}

/// A random number from 0 to 1.
pub(crate) fn random_share() -> f64 {
    f64::from(u32::from_le_bytes(random_bytes())) / f64::from(u32::MAX)
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's source of randomness answers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_channels() {
        let channel = Channel::new("chat:a").unwrap();
        for partitions in [Partitions::servers(2), Partitions::cluster()] {
            let keys = Keys::new("fanwire", partitions);
            assert_eq!(keys.channel_of(&keys.channel(&channel)), Some(channel.clone()));
            assert_eq!(keys.channel_of("fanwire:other:chat"), None);
            assert_eq!(keys.channel_of("other:channel:chat"), None);
        }
    }

    #[test]
    fn everything_of_a_channel_has_one_tag() {
        let keys = Keys::new("fanwire", Partitions::cluster());
        let channel = Channel::new("chat:42").unwrap();
        let tag = format!("fanwire:{{{}}}:", keys.partitions.tag(keys.partition(&channel)).unwrap());
        for name in [keys.channel(&channel), keys.meta(&channel), keys.stream(&channel), keys.result(&channel, "{x}")] {
            assert!(name.starts_with(&tag), "{name}");
        }
    }
}
