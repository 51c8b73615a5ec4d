//! What really stood in a channel's stream: put together from what is kept, what was acknowledged and what was seen.

use std::collections::{BTreeMap, HashMap};

use super::log::{At, Entry, Stream};

/// A channel's stream, with what the server forgot of it.
#[derive(Debug, Default)]
pub(super) struct Truth<'a> {
    lives: HashMap<&'a str, BTreeMap<u64, Known<'a>>>,
    top: Option<&'a At>,
    /// What lies up to here is gone in the course of things, whatever there was.
    horizon: u64,
    trimmed: Vec<&'a At>,
}

/// What is known of one position.
#[derive(Debug, Default)]
struct Known<'a> {
    pub_id: Option<u64>,
    prev: Option<u64>,
    acked: bool,
    kept: bool,
    /// Who said what it is.
    source: &'a str,
}

/// How one position follows another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// At once.
    Next,
    /// With these offsets in between.
    Over(Vec<u64>),
    /// Not at all: they belong to different futures of the stream, or to different streams.
    Elsewhere,
}

/// Two accounts of one position that do not agree.
#[derive(Debug)]
pub(super) struct Contradiction(pub(super) String);

impl<'a> Truth<'a> {
    /// Takes what was read of the stream.
    pub(super) fn read(&mut self, stream: &'a Stream) -> Result<(), Contradiction> {
        self.top = Some(&stream.top);
        for Entry { at, prev, pub_id } in &stream.entries {
            self.learn(at, Some(*pub_id), "the stream")?;
            let known = self.known(at);
            if known.prev.is_some_and(|other| other != *prev) {
                return Err(Contradiction(format!("{at:?} follows {prev} and {:?}", known.prev)));
            }
            known.prev = Some(*prev);
        }
        Ok(())
    }

    /// Takes an acknowledgement.
    pub(super) fn acked(&mut self, at: &'a At, pub_id: u64) -> Result<(), Contradiction> {
        self.learn(at, Some(pub_id), "the publisher")?;
        self.known(at).acked = true;
        Ok(())
    }

    /// Takes what somebody says of a position.
    pub(super) fn learn(&mut self, at: &'a At, pub_id: Option<u64>, source: &'a str) -> Result<(), Contradiction> {
        let known = self.known(at);
        match (known.pub_id, pub_id) {
            (Some(one), Some(other)) if one != other => {
                Err(Contradiction(format!("{at:?} is {one} for {} and {other} for {source}", known.source)))
            }
            (None, Some(_)) => {
                (known.pub_id, known.source) = (pub_id, source);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn trimmed(&mut self, at: &'a At) {
        self.trimmed.push(at);
    }

    fn known(&mut self, at: &'a At) -> &mut Known<'a> {
        self.lives.entry(&at.epoch).or_default().entry(at.offset).or_default()
    }

    /// Follows the links down from the top: what they reach is kept. To be called when everything is learned.
    pub(super) fn settle(&mut self) {
        let Some(top) = self.top else { return };
        let Some(life) = self.lives.get_mut(top.epoch.as_str()) else {
            self.horizon = top.offset;
            return;
        };
        let mut offset = top.offset;
        while let Some(Known { prev: Some(prev), kept, .. }) = life.get_mut(&offset) {
            *kept = true;
            offset = *prev;
        }
        // The first link leads to what is gone, or to the very beginning.
        self.horizon = offset;
    }

    /// Whether the server still knows of a position. Without a reading of the stream, all are.
    pub(super) fn is_kept(&self, at: &At) -> bool {
        let Some(top) = self.top else { return true };
        at.epoch == top.epoch && (at.offset <= self.horizon || self.find(at).is_some_and(|known| known.kept))
    }

    /// How `to` follows `from`.
    pub(super) fn step(&self, from: &At, to: &At) -> Step {
        if from.epoch != to.epoch || to.offset <= from.offset {
            return Step::Elsewhere;
        }
        let life = self.lives.get(to.epoch.as_str());
        let mut between = Vec::new();
        let mut offset = to.offset;
        loop {
            match self.prev(&to.epoch, offset, from.offset) {
                Some(prev) if prev == from.offset => break,
                Some(prev) if prev < from.offset => return Step::Elsewhere,
                Some(prev) => {
                    between.push(prev);
                    offset = prev;
                }
                None => {
                    // Of what lies between, it is sure only of what was never forgotten that it was there.
                    let sure = life.into_iter().flat_map(|life| life.range(from.offset + 1..offset));
                    let sure = sure.filter(|(_, known)| known.kept || known.acked && self.top.is_none());
                    between.extend(sure.map(|(offset, _)| *offset));
                    break;
                }
            }
        }
        between.sort_unstable();
        if between.is_empty() { Step::Next } else { Step::Over(between) }
    }

    /// The offset before another one. Where no reading says it: a server counts by one as long as it runs.
    fn prev(&self, epoch: &str, offset: u64, from: u64) -> Option<u64> {
        let life = self.lives.get(epoch)?;
        let before = offset.checked_sub(1)?;
        let known = life.get(&offset).and_then(|known| known.prev);
        known.or_else(|| (before == 0 || before == from || life.contains_key(&before)).then_some(before))
    }

    /// Whether somebody at `from` may have been refused a recovery of at most `most` publications into the life of `to`, at
    /// some time of the run: the log does not say where the stream ended then.
    pub(super) fn may_refuse(&self, from: &At, to: &At, most: usize) -> bool {
        let trimmed = |at: &&At| at.epoch == from.epoch && at.offset > from.offset;
        from.epoch != to.epoch
            || !self.is_kept(from)
            || self.trimmed.iter().any(trimmed)
            || self.longest_behind(from) > most
    }

    /// The most publications that ever followed a position, in any of the stream's futures.
    fn longest_behind(&self, from: &At) -> usize {
        let mut steps = HashMap::from([(from.offset, 0)]);
        let life = self.lives.get(from.epoch.as_str());
        for offset in life.into_iter().flat_map(|life| life.range(from.offset + 1..)).map(|(offset, _)| *offset) {
            let prev = self.prev(&from.epoch, offset, from.offset);
            if let Some(before) = prev.and_then(|prev| steps.get(&prev)).copied() {
                steps.insert(offset, before + 1);
            }
        }
        steps.into_values().max().unwrap_or_default()
    }

    /// The publications behind `from` that are kept.
    pub(super) fn behind(&self, from: &At) -> usize {
        match self.top.map(|top| self.step(from, top)) {
            Some(Step::Next) => 1,
            Some(Step::Over(between)) => between.len() + 1,
            Some(Step::Elsewhere) | None => 0,
        }
    }

    pub(super) fn top(&self) -> Option<&'a At> {
        self.top
    }

    /// The acknowledged publications that the server forgot.
    pub(super) fn acked_but_lost(&self) -> usize {
        let all =
            self.lives.iter().flat_map(|(epoch, life)| life.iter().map(move |(offset, known)| (epoch, offset, known)));
        let lost = all.filter(|(epoch, offset, known)| {
            known.acked && !self.is_kept(&At { epoch: (**epoch).to_owned(), offset: **offset })
        });
        lost.count()
    }

    /// The positions the server still knows, each with its publication.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&'a str, u64, u64)> {
        self.lives.iter().flat_map(move |(epoch, life)| {
            let kept =
                life.iter().filter(|(offset, _)| self.is_kept(&At { epoch: (*epoch).to_owned(), offset: **offset }));
            kept.filter_map(|(offset, known)| Some((*epoch, *offset, known.pub_id?)))
        })
    }

    fn find(&self, at: &At) -> Option<&Known<'a>> {
        self.lives.get(at.epoch.as_str())?.get(&at.offset)
    }
}
