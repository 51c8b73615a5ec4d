//! The end of a turn: every dirty connection is written once.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use fanwire_wire::Disconnect;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::Node;
use crate::burst::{self, Shot};
use crate::clock;
use crate::hub::{Hub, LocalChannel, Mark};
use crate::metrics::Metrics;
use crate::outlet::{Outlet, Queues};
use crate::shedding::Relief;

/// Sealed batches on their way to their subscribers.
#[derive(Default)]
pub(crate) struct Sweeps {
    running: VecDeque<Sweep>,
    /// The bytes of their batches, each counted once.
    bytes: usize,
    /// Reused between slices.
    slice: Slice,
    /// The marks of the sweeps that end with this slice.
    finished: Vec<Mark>,
}

/// One group's sealed batch.
struct Sweep {
    channel: Rc<LocalChannel>,
    group: usize,
    batch: Bytes,
    marks: Vec<Mark>,
    /// What not everyone gets, by client; mostly empty.
    cuts: Vec<Cut>,
    /// The number of the batch.
    number: u32,
    /// Entries from here on have been looked at. It runs downwards: entries that come during the sweep stand behind
    /// it, and one that moves in front of it is known by its number.
    cursor: usize,
}

/// A part of a batch that one client does not get.
struct Cut {
    client: [u8; 16],
    part: Range<usize>,
}

/// What is written before anybody else has a turn.
#[derive(Default)]
struct Slice {
    deliveries: Vec<Delivery>,
    /// What the deliveries send, each once, however many they go to.
    frames: Vec<Bytes>,
}

/// A batch, or a piece of it, for one client.
struct Delivery {
    outlet: Rc<Outlet>,
    /// Which of the slice's frames.
    frames: usize,
}

/// The writes of one slice: about a millisecond.
const SLICE: usize = 256;

/// The bytes of sealed batches over which nothing more is dispatched until sweeps have ended.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The fewest entries a sweep advances in a slice, however many sweeps there are.
const MIN_SHARE: usize = 8;

impl Sweeps {
    /// Whether there is room for more batches.
    pub(crate) fn have_room(&self) -> bool {
        self.bytes < MAX_BYTES
    }

    /// Seals the open batches, then writes one slice of what is sealed.
    ///
    /// Returns whether anything is left, and the connections that ended.
    pub(crate) fn advance(
        &mut self,
        hub: &Hub,
        node: &Node,
        queues: &Queues,
        second: u32,
    ) -> (bool, Vec<(u32, Disconnect)>) {
        let metrics = node.metrics();
        self.seal(hub);
        let spare_slow = node.relief() >= Relief::Publications || queues.are_full();
        let sweeps = self.gather(node, spare_slow);
        if sweeps > 1 {
            // Stable, so that the batches of one connection keep their order.
            self.slice.deliveries.sort_by_key(|delivery| Rc::as_ptr(&delivery.outlet).cast::<()>() as usize);
        }
        let ended = self.write(metrics, second);
        if !self.finished.is_empty() {
            self.measure(metrics, hub);
        }
        (!self.running.is_empty() || !hub.dirty.borrow().is_empty(), ended)
    }

    /// Measures how long the broadcasts took that have reached everybody.
    fn measure(&mut self, metrics: &Metrics, hub: &Hub) {
        let (now, now_ms) = (Instant::now(), clock::unix_ms());
        for mark in self.finished.drain(..) {
            let took = now.duration_since(mark.at);
            metrics.delivery_seconds.record(took.as_secs_f64());
            hub.meter.delivered(took);
            if mark.time_ms > 0 {
                let age = now_ms.saturating_sub(mark.time_ms.unsigned_abs());
                metrics.publication_age_seconds.record(Duration::from_millis(age).as_secs_f64());
            }
        }
    }

    /// Takes the open batch of every dirty group that is not being swept; the others wait for their turn.
    fn seal(&mut self, hub: &Hub) {
        let mut dirty = hub.dirty.borrow_mut();
        dirty.retain(|channel| {
            let mut waiting = false;
            for (index, group) in channel.groups.borrow_mut().iter_mut().enumerate() {
                if group.batch.is_empty() {
                    continue;
                }
                if group.sweeping {
                    waiting = true;
                    continue;
                }
                group.sealed = group.sealed.wrapping_add(1);
                group.sweeping = true;
                // Taken whole: what a channel keeps would be far more than an idle channel needs.
                let batch = std::mem::take(&mut group.batch).freeze();
                hub.open_bytes.set(hub.open_bytes.get() - batch.len());
                self.bytes += batch.len();
                let marks = std::mem::take(&mut group.marks);
                self.running.push_back(Sweep {
                    channel: Rc::clone(channel),
                    group: index,
                    batch,
                    cuts: cuts(&marks),
                    marks,
                    number: group.sealed,
                    cursor: group.entries.len(),
                });
            }
            channel.dirty.set(waiting);
            waiting
        });
    }

    /// Collects the next slice, a fair share from each running sweep; returns how many had a share.
    fn gather(&mut self, node: &Node, spare_slow: bool) -> usize {
        let share = (SLICE / self.running.len().max(1)).max(MIN_SHARE);
        let round = self.running.len();
        let mut sweeps = 0;
        while sweeps < round && self.slice.deliveries.len() < SLICE {
            sweeps += 1;
            let Some(mut sweep) = self.running.pop_front() else { break };
            if sweep.gather(share, &mut self.slice, node, spare_slow) {
                self.running.push_back(sweep);
            } else {
                self.bytes -= sweep.batch.len();
                self.finished.append(&mut sweep.marks);
            }
        }
        sweeps
    }

    /// Writes the slice: one system call per connection.
    fn write(&mut self, metrics: &Metrics, second: u32) -> Vec<(u32, Disconnect)> {
        let mut ended = Vec::new();
        let (mut bytes, mut writes) = (0, 0);
        let Slice { deliveries, frames: all } = &mut self.slice;
        let mut burst: SmallVec<[Shot<'_>; 8]> = SmallVec::new();
        for deliveries in deliveries.chunk_by(|a, b| Rc::ptr_eq(&a.outlet, &b.outlet)) {
            let outlet = &deliveries[0].outlet;
            outlet.last_write.set(second);
            writes += 1;
            let written = match deliveries {
                [delivery] => {
                    let frame = &all[delivery.frames];
                    bytes += frame.len();
                    match Shot::new(outlet, frame) {
                        Some(shot) => {
                            burst.push(shot);
                            continue;
                        }
                        None => outlet.write(std::slice::from_ref(frame)),
                    }
                }
                _ => {
                    let frames: SmallVec<[Bytes; 16]> =
                        deliveries.iter().map(|delivery| all[delivery.frames].clone()).collect();
                    bytes += frames.iter().map(Bytes::len).sum::<usize>();
                    outlet.write(&frames)
                }
            };
            if let Err(disconnect) = written {
                ended.push((outlet.key.get(), disconnect));
            }
        }
        burst::fire(&mut burst);
        for Shot { outlet, frame, sent, .. } in burst {
            if sent < frame.len()
                && let Err(disconnect) = outlet.put_behind(std::slice::from_ref(frame), sent)
            {
                ended.push((outlet.key.get(), disconnect));
            }
        }
        metrics.delivered_bytes.increment(bytes as u64);
        metrics.writes.increment(writes);
        deliveries.clear();
        all.clear();
        ended
    }
}

impl Sweep {
    /// Collects up to `share` deliveries; false when the sweep is at its end.
    fn gather(&mut self, share: usize, slice: &mut Slice, node: &Node, spare_slow: bool) -> bool {
        let Slice { deliveries, frames } = slice;
        let whole = frames.len();
        frames.push(self.batch.clone());
        let mut groups = self.channel.groups.borrow_mut();
        let group = &mut groups[self.group];
        self.cursor = self.cursor.min(group.entries.len());
        let stop = self.cursor.saturating_sub(share);
        let mut publications = 0;
        while self.cursor > stop {
            self.cursor -= 1;
            let entry = &mut group.entries[self.cursor];
            if entry.done == self.number {
                continue;
            }
            entry.done = self.number;
            let skip = std::mem::take(&mut entry.skip);
            if skip as usize >= self.batch.len() {
                continue;
            }
            let cuts = self.cuts_of(&entry.outlet.client, skip);
            let count = self.marks_behind(skip) - cuts.len();
            // At most once: who has a position would notice, and ask for it again.
            if spare_slow && !entry.subscription.terms.positioned && entry.outlet.blocked_bytes() > 0 {
                node.shedding().count(Relief::Publications, count as u64);
                continue;
            }
            publications += count;
            if skip == 0 && cuts.is_empty() {
                deliveries.push(Delivery { outlet: Rc::clone(&entry.outlet), frames: whole });
                continue;
            }
            let starts = std::iter::once(skip as usize).chain(cuts.iter().map(|cut| cut.part.end));
            let ends = cuts.iter().map(|cut| cut.part.start).chain([self.batch.len()]);
            for (start, end) in starts.zip(ends).filter(|(start, end)| start < end) {
                deliveries.push(Delivery { outlet: Rc::clone(&entry.outlet), frames: frames.len() });
                frames.push(self.batch.slice(start..end));
            }
        }
        node.metrics().deliveries.increment(publications as u64);
        if self.cursor == 0 {
            group.sweeping = false;
        }
        self.cursor > 0
    }

    /// What a client does not get of the bytes behind those it skips.
    fn cuts_of(&self, client: &[u8; 16], skip: u32) -> &[Cut] {
        if self.cuts.is_empty() {
            return &[];
        }
        let first = self.cuts.partition_point(|cut| (&cut.client, cut.part.start) < (client, skip as usize));
        let count = self.cuts[first..].iter().take_while(|cut| cut.client == *client).count();
        &self.cuts[first..first + count]
    }

    /// How many broadcasts lie behind the bytes somebody skips.
    fn marks_behind(&self, skip: u32) -> usize {
        if skip == 0 { self.marks.len() } else { self.marks.iter().filter(|mark| mark.end > skip).count() }
    }
}

/// What not everyone gets, sorted by client, that of one client in its order.
fn cuts(marks: &[Mark]) -> Vec<Cut> {
    let mut start = 0;
    let mut cuts = Vec::new();
    for mark in marks {
        let end = mark.end as usize;
        cuts.extend(mark.exclude.map(|client| Cut { client, part: start..end }));
        start = end;
    }
    cuts.sort_by_key(|cut| cut.client);
    cuts
}
