//! Lists of publications in the bytes of an encoding, kept for a moment: after an outage many clients miss the same ones.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use fanwire_wire::{Disconnect, Publication};

use crate::Worker;

impl Worker {
    /// Encodes a list of publications, or finds the bytes that were made of the same ones less than a second ago.
    /// `encoding` says all that the bytes depend on beside the publications.
    ///
    /// # Errors
    ///
    /// Those of `encode`.
    pub fn encoded_once(
        &self,
        encoding: &'static str,
        publications: &[Arc<Publication>],
        encode: impl FnOnce() -> Result<Bytes, Disconnect>,
    ) -> Result<Bytes, Disconnect> {
        self.lists.borrow_mut().encoded(encoding, publications, encode)
    }
}

/// What was encoded on a worker since the second began.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// By encoding, and by the first publication's address: one of each, for those who stand at the same place ask for the same end.
    kept: HashMap<(&'static str, usize), List>,
    /// The bytes in all of them.
    bytes: usize,
}

/// A list holds its publications, so nothing else comes to their addresses.
#[derive(Debug)]
struct List {
    publications: Vec<Arc<Publication>>,
    encoded: Bytes,
}

/// The most bytes kept; the publications themselves are as much again.
const MAX_BYTES: usize = 4 * 1024 * 1024;

impl Lists {
    /// Finds the bytes of a list, or makes them.
    pub(crate) fn encoded(
        &mut self,
        encoding: &'static str,
        publications: &[Arc<Publication>],
        encode: impl FnOnce() -> Result<Bytes, Disconnect>,
    ) -> Result<Bytes, Disconnect> {
        let Some(first) = publications.first() else { return encode() };
        let key = (encoding, Arc::as_ptr(first).addr());
        if let Some(list) = self.kept.get(&key).filter(|list| list.is_of(publications)) {
            return Ok(list.encoded.clone());
        }
        let encoded = encode()?;
        if self.bytes + encoded.len() > MAX_BYTES {
            self.clear();
        }
        if encoded.len() <= MAX_BYTES {
            self.bytes += encoded.len();
            let list = List { publications: publications.to_vec(), encoded: encoded.clone() };
            self.bytes -= self.kept.insert(key, list).map_or(0, |replaced| replaced.encoded.len());
        }
        Ok(encoded)
    }

    /// Forgets everything, so that what nobody asks for takes no memory.
    pub(crate) fn clear(&mut self) {
        mem::take(self);
    }
}

impl List {
    /// Whether it has these publications, and not only equal ones: that would have to look into each.
    fn is_of(&self, publications: &[Arc<Publication>]) -> bool {
        let same = |(mine, other): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(mine, other);
        self.publications.len() == publications.len() && self.publications.iter().zip(publications).all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanwire_wire::{Channel, Payload};

    #[test]
    fn what_several_ask_for_is_encoded_once() {
        let (mut lists, all) = (Lists::default(), publications(4));
        assert_eq!(ask(&mut lists, "a", &all), (true, 4));
        assert_eq!(ask(&mut lists, "a", &all), (false, 4));
        assert_eq!(ask(&mut lists, "a", &all.clone()), (false, 4), "the same publications in a list of their own");
        assert_eq!(ask(&mut lists, "b", &all), (true, 4), "another encoding");
        assert_eq!(ask(&mut lists, "b", &all), (false, 4));
    }

    #[test]
    fn another_list_has_bytes_of_its_own() {
        let (mut lists, all) = (Lists::default(), publications(4));
        let without_one = [&all[..1], &all[2..]].concat();
        for list in [&all[..], &all[..3], &all[1..], &without_one, &publications(4), &all] {
            assert_eq!(ask(&mut lists, "a", list), (true, list.len()));
            assert_eq!(ask(&mut lists, "a", list), (false, list.len()));
        }
        assert_eq!(ask(&mut lists, "a", &all[1..]), (false, 3), "from another place on");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let (mut lists, large) = (Lists::default(), Bytes::from(vec![0; MAX_BYTES / 2]));
        let others: Vec<_> = (0..5).map(|_| publications(1)).collect();
        for other in &others {
            lists.encoded("a", other, || Ok(large.clone())).unwrap();
            assert_eq!(lists.bytes, lists.kept.values().map(|list| list.encoded.len()).sum::<usize>());
            assert!(lists.bytes <= MAX_BYTES);
        }
        assert_eq!(lists.kept.len(), 1);
        lists.encoded("a", &publications(1), || Ok(vec![0; MAX_BYTES + 1].into())).unwrap();
        assert_eq!((lists.kept.len(), lists.bytes), (0, 0));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let (mut lists, all) = (Lists::default(), publications(1));
        let failed = lists.encoded("a", &all, || Err(Disconnect::InappropriateProtocol));
        assert_eq!(failed, Err(Disconnect::InappropriateProtocol));
        assert_eq!(ask(&mut lists, "a", &all), (true, 1));
        lists.clear();
        assert_eq!(lists.bytes, 0);
        assert_eq!(ask(&mut lists, "a", &all), (true, 1));
        assert_eq!(Arc::strong_count(&all[0]), 2);
    }

    /// Whether it was encoded for this, and what the bytes say it has.
    fn ask(lists: &mut Lists, encoding: &'static str, list: &[Arc<Publication>]) -> (bool, usize) {
        let mut made = false;
        let bytes = lists.encoded(encoding, list, || {
            made = true;
            Ok(vec![0; list.len()].into())
        });
        (made, bytes.unwrap().len())
    }

    fn publications(count: usize) -> Vec<Arc<Publication>> {
        let publication = || Publication {
            channel: Channel::new("a").unwrap(),
            payload: Payload::json("1".into()),
            event: None,
            tags: [].into(),
            info: None,
            exclude: None,
            stamp: None,
            time_ms: 0,
        };
        (0..count).map(|_| Arc::new(publication())).collect()
    }
}
