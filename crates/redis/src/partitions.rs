//! How channels are divided: the part of a channel never depends on which servers are up.

use fanwire_wire::Channel;
use xxhash_rust::xxh3::xxh3_64;

/// A part of all channels, and of everything that is kept for them. One server serves it at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Partition(u16);

/// The division: a partition for each independent server, or a fixed number of them over the slots of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    count: u16,
    /// For a cluster: the hash tag of each partition, which decides its slot.
    tags: Vec<String>,
}

/// The partitions of a cluster. Part of the layout of the data, so never changed. Enough that each of a few dozen primaries
/// gets about as many as the others; few enough that a node subscribes to everything in a few hundred commands.
pub(crate) const CLUSTER: u16 = 128;

/// The slots of a cluster.
pub(crate) const SLOTS: u16 = 16384;

impl Partition {
    /// The one that carries what nodes say to each other, so that it keeps its order.
    pub(crate) const NODES: Self = Self(0);

    /// The one with this number.
    pub(crate) fn at(index: u16) -> Self {
        Self(index)
    }

    /// Its number, from 0.
    pub(crate) fn index(self) -> usize {
        self.0.into()
    }
}

impl Partitions {
    /// One partition for each independent server, by its place in the list.
    pub(crate) fn servers(count: usize) -> Self {
        Self { count: count.clamp(1, u16::MAX.into()) as u16, tags: Vec::new() }
    }

    /// The partitions of a cluster: number i has the smallest decimal number as its tag whose slot lies in the i-th of
    /// [`CLUSTER`] equal stretches of the slots. So neighbours are equally far apart, wherever stretches of slots are cut.
    pub(crate) fn cluster() -> Self {
        let mut tags = vec![String::new(); CLUSTER.into()];
        let mut missing = tags.len();
        for number in 0_u32.. {
            if missing == 0 {
                break;
            }
            let word = number.to_string();
            let tag = &mut tags[usize::from(slot(word.as_bytes()) / (SLOTS / CLUSTER))];
            if tag.is_empty() {
                *tag = word;
                missing -= 1;
            }
        }
        Self { count: CLUSTER, tags }
    }

    /// The partition of a channel. Of one more, about 1/n of the channels go there, and no other moves.
    pub(crate) fn of(&self, channel: &Channel) -> Partition {
        Partition(jump(xxh3_64(channel.as_str().as_bytes()), self.count))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.count).map(Partition)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        !self.tags.is_empty()
    }

    /// The hash tag of a partition, in a cluster.
    pub(crate) fn tag(&self, partition: Partition) -> Option<&str> {
        self.tags.get(partition.index()).map(String::as_str)
    }

    /// The slot of a partition, in a cluster.
    pub(crate) fn slot(&self, partition: Partition) -> Option<u16> {
        self.tag(partition).map(|tag| slot(tag.as_bytes()))
    }
}

/// The slot of a hash tag: CRC-16 (XMODEM) modulo their number.
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    });
    crc % SLOTS
}

/// Jump consistent hash (Lamping and Veach, 2014).
fn jump(mut key: u64, buckets: u16) -> u16 {
    let (mut bucket, mut next) = (0_u64, 0_u64);
    while next < buckets.into() {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as u64;
    }
    bucket as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels() -> impl Iterator<Item = Channel> {
        (0..10_000).map(|n| Channel::new(&format!("chat:{n}")).unwrap())
    }

    #[test]
    fn one_more_server_takes_its_share_and_moves_nothing_else() {
        let (three, four) = (Partitions::servers(3), Partitions::servers(4));
        let mut share = [0; 4];
        for channel in channels() {
            let (before, after) = (three.of(&channel), four.of(&channel));
            assert!(after == before || after == Partition(3), "{channel} moved from {before:?} to {after:?}");
            share[after.index()] += 1;
        }
        assert!(share.iter().all(|share| (2_300..2_700).contains(share)), "{share:?}");
    }

    #[test]
    fn partitions_lie_evenly_over_the_slots() {
        let partitions = Partitions::cluster();
        for partition in partitions.all() {
            let slot = partitions.slot(partition).unwrap();
            assert_eq!(usize::from(slot / (SLOTS / CLUSTER)), partition.index());
        }
        let mut share = vec![0; CLUSTER.into()];
        channels().for_each(|channel| share[partitions.of(&channel).index()] += 1);
        assert!(share.iter().all(|share| (40..120).contains(share)), "{share:?}");
    }

    /// Part of the layout of the data: a change would orphan what is stored.
    #[test]
    fn the_layout_stays() {
        let partitions = Partitions::cluster();
        assert_eq!(slot(b"123456789"), 0x31c3);
        let tags: Vec<_> = partitions.all().take(4).map(|partition| partitions.tag(partition).unwrap()).collect();
        assert_eq!(tags, ["14", "10", "100", "18"]);
        let chat = Channel::new("chat:42").unwrap();
        assert_eq!((partitions.of(&chat).index(), Partitions::servers(5).of(&chat).index()), (24, 1));
    }
}
