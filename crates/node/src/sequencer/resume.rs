//! How new subscribers learn where a channel stands: from what the node remembers, or from one read for all who wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fanwire_wire::{Channel, Epoch, Position, Publication};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Comparison, PAGE, Sequencer, Track, Tracks};
use crate::broker::{Error, History, HistoryQuery, Order, Resume, Start, weight};

/// A read of a channel's stream that is under way, for all who wait for it.
pub(super) struct Flight {
    waiting: Vec<Waiting>,
    /// The channel has moved.
    pub(super) moved: Arc<Notify>,
}

struct Waiting {
    resume: Resume,
    how: Comparison,
    /// It was there when the read began: what is not in the stream then is of no use to it.
    aboard: bool,
    answer: oneshot::Sender<Result<History, Error>>,
}

/// What was read of a stream, page by page: the end of it, without a gap.
struct Window {
    /// Behind which offset it was begun to read.
    since: Option<u64>,
    entries: VecDeque<Arc<Publication>>,
    bytes: usize,
    top: Position,
    /// Where the channel stood when the read began.
    before: Option<Position>,
}

/// How long a subscriber waits for an answer: shorter than the patience of client libraries.
const PATIENCE: Duration = Duration::from_secs(2);

/// The least time between the beginnings of two reads of a channel for its subscribers: whoever comes in between shares the
/// second one.
const PACE: Duration = Duration::from_millis(200);

/// How long publications may be under way that a subscriber has seen elsewhere; then they are fetched.
const GRACE: Duration = Duration::from_millis(300);

impl Sequencer {
    /// Answers [`Broker::resume`](crate::Broker::resume). `Suspicious` if the way from the broker is not proven at the moment:
    /// then the stream itself is asked, and the answer waits until the channel has come up to its end.
    ///
    /// # Errors
    ///
    /// If the stream cannot be read, or the channel does not come up to it, within two seconds.
    pub async fn resume(
        self: &Arc<Self>,
        channel: &Channel,
        resume: Resume,
        how: Comparison,
    ) -> Result<History, Error> {
        let answer = {
            let mut tracks = self.tracks.lock();
            let Some(track) = tracks.channels.get_mut(channel) else {
                return Err(Error::Unavailable("the channel does not arrive".into()));
            };
            track.retention = Some(resume.retention);
            if how == Comparison::Routine
                && let Some(history) = track.recall(&resume.from, Some(Instant::now()))
            {
                track.used = true;
                self.metrics.from_memory.increment(1);
                return Ok(history);
            }
            self.metrics.from_broker.increment(1);
            let (sender, answer) = oneshot::channel();
            let waiting = Waiting { resume, how, aboard: false, answer: sender };
            match &mut track.flight {
                Some(flight) => flight.wait(waiting),
                None => self.take_off(channel, track, vec![waiting]),
            }
            answer
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable("the channel does not come up to its stream".into())),
        }
    }

    fn take_off(self: &Arc<Self>, channel: &Channel, track: &mut Track, waiting: Vec<Waiting>) {
        track.flight = Some(Flight { waiting, moved: Arc::default() });
        let (sequencer, channel, life) = (Arc::clone(self), channel.clone(), track.life);
        let begin = track.read_at.map(|read_at| read_at + PACE);
        tokio::spawn(async move {
            if let Some(begin) = begin {
                sleep_until(begin).await;
            }
            let read = timeout(PATIENCE, sequencer.read_window(&channel, life)).await;
            let read = read.unwrap_or_else(|_| Err(Error::Unavailable("the stream is not read in time".into())));
            if let Ok(Some(window)) = &read {
                // Whoever still waits when this takes too long gives up by itself.
                let _ = timeout(PATIENCE, sequencer.come_up(&channel, life, window)).await;
            }
            sequencer.land(&channel, life, read);
        });
    }

    /// Reads from where the farthest of those who wait stood to the end of the stream. Nothing if the stream began anew
    /// meanwhile, or if nobody waits any more.
    async fn read_window(&self, channel: &Channel, life: u64) -> Result<Option<Window>, Error> {
        let Ok(_permit) = self.flights.acquire().await else { return Ok(None) };
        let Some((query, before)) = self.with_track(channel, life, Track::first_page) else { return Ok(None) };
        let mut whole = query.limit < PAGE;
        let since = query.since;
        let first = self.read_page(channel, query).await?;
        whole |= first.publications.len() < PAGE;
        let mut window = Window { since, entries: VecDeque::new(), bytes: 0, top: first.top.clone(), before };
        window.push(first.publications);
        while !whole {
            let useful = |track: &mut Track| track.flight.as_ref()?.use_for(&window);
            let Some(max_bytes) = self.with_track(channel, life, useful) else { break };
            window.shrink(max_bytes);
            let query = HistoryQuery { since: Some(window.end()), limit: PAGE, order: Order::Forward };
            let page = self.read_page(channel, query).await?;
            if page.top.epoch != window.top.epoch {
                return Ok(None);
            }
            whole = page.publications.len() < PAGE;
            window.top = page.top;
            window.push(page.publications);
        }
        Ok(Some(window))
    }

    async fn read_page(&self, channel: &Channel, query: HistoryQuery) -> Result<History, Error> {
        self.metrics.reads.increment(1);
        (self.read)(channel.clone(), query).await
    }

    /// Waits until the channel stands where those who wait can go on, and sees to it that it gets there.
    async fn come_up(self: &Arc<Self>, channel: &Channel, life: u64, window: &Window) {
        let Some((goal, mut overdue)) = self.with_track(channel, life, |track| {
            let at = track.at.get_or_insert_with(|| window.top.clone());
            let here = at.epoch == window.top.epoch;
            let rewound = window
                .before
                .as_ref()
                .is_some_and(|before| before.epoch == at.epoch && (!here || window.top.offset < before.offset));
            let (goal, at_once) = track.flight.as_ref()?.goal(&window.top);
            if rewound && track.repair.is_none() {
                self.repair(channel, track);
            }
            Some((goal, Instant::now() + if at_once || !here { Duration::ZERO } else { GRACE }))
        }) else {
            return;
        };
        loop {
            let moved = self.with_track(channel, life, |track| {
                let at = track.at.as_ref()?;
                let there = at.epoch == window.top.epoch && at.offset >= goal;
                if track.repair.is_none() {
                    if there {
                        return None;
                    }
                    if Instant::now() >= overdue {
                        self.repair(channel, track);
                    }
                }
                if track.repair.is_some() {
                    overdue = overdue.max(Instant::now() + GRACE);
                }
                Some(Arc::clone(&track.flight.as_ref()?.moved))
            });
            let Some(moved) = moved else { return };
            tokio::select! {
                biased;
                () = moved.notified() => {}
                () = sleep_until(overdue) => {}
            }
        }
    }

    /// Answers all who wait, but for those who came too late for this read: theirs is the next one.
    fn land(self: &Arc<Self>, channel: &Channel, life: u64, read: Result<Option<Window>, Error>) {
        let mut tracks = self.tracks.lock();
        let Tracks { channels, memory, .. } = &mut *tracks;
        let Some(track) = channels.get_mut(channel).filter(|track| track.life == life) else { return };
        let Some(Flight { mut waiting, .. }) = track.flight.take() else { return };
        let window = match read {
            Ok(window) => window,
            Err(error) => {
                // Whoever waited may have given up.
                waiting.drain(..).for_each(|waiting| drop(waiting.answer.send(Err(error.clone()))));
                return;
            }
        };
        if let (Some(window), Some(at), Some(retention)) = (&window, &track.at, track.retention) {
            // Whether the channel keeps something is better known now.
            track.recent.expire(Instant::now());
            track.recent.put_before(&window.entries, at, retention.ttl);
        }
        let mut late = Vec::new();
        for waiting in waiting.into_iter().filter(|waiting| !waiting.answer.is_closed()) {
            let gone = || {
                let gone = waiting.aboard && window.as_ref()?.lacks(&waiting.resume.from);
                gone.then(|| Some(History { publications: Vec::new(), top: track.at.clone()? }))?
            };
            match track.recall(&waiting.resume.from, None).or_else(gone) {
                Some(history) => drop(waiting.answer.send(Ok(history))),
                None => late.push(Waiting { aboard: false, ..waiting }),
            }
        }
        if let Some(retention) = track.retention {
            track.recent.trim(retention);
        }
        if !late.is_empty() {
            self.take_off(channel, track, late);
        }
        memory.settle(channel, track);
        memory.shrink(channels);
    }

    fn with_track<T>(&self, channel: &Channel, life: u64, work: impl FnOnce(&mut Track) -> Option<T>) -> Option<T> {
        let mut tracks = self.tracks.lock();
        work(tracks.channels.get_mut(channel).filter(|track| track.life == life)?)
    }
}

impl Track {
    /// What a subscriber needs to go on from `from`, if it is remembered and kept at `now` (`None`: never mind).
    fn recall(&self, from: &Start, now: Option<Instant>) -> Option<History> {
        let at = self.at.as_ref()?;
        let publications = match from {
            Start::End => Vec::new(),
            Start::Behind(since) if since.epoch.is_empty() || since.epoch == at.epoch => {
                self.recent.behind(since.offset, at, now)?
            }
            Start::Behind(_) => return None,
            Start::Latest => self.recent.latest(at, now)?,
        };
        Some(History { publications, top: at.clone() })
    }

    /// What to read first, for all who wait by now, and where the channel stands before it. Nothing if nobody waits.
    fn first_page(&mut self) -> Option<(HistoryQuery, Option<Position>)> {
        let waiting = &mut self.flight.as_mut()?.waiting;
        waiting.retain(|waiting| !waiting.answer.is_closed());
        waiting.iter_mut().for_each(|waiting| waiting.aboard = true);
        let life = self.at.as_ref().map(|at| &at.epoch);
        // Positions in another life of the stream say nothing about this one.
        let lowest = waiting.iter().filter_map(|waiting| waiting.offset_in(life)).min();
        let query = if waiting.is_empty() {
            return None;
        } else if waiting.iter().any(|waiting| waiting.resume.from == Start::Latest) {
            HistoryQuery { since: None, limit: 1, order: Order::Reverse }
        } else {
            HistoryQuery { since: lowest, limit: lowest.map_or(0, |_| PAGE), order: Order::Forward }
        };
        // The first position of a channel is no reason to let those wait who ask for more.
        if query.limit > 0 || self.at.is_some() {
            self.read_at = Some(Instant::now());
        }
        Some((query, self.at.clone()))
    }
}

impl Flight {
    fn wait(&mut self, waiting: Waiting) {
        // Those who gave up make room before more is taken.
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|waiting| !waiting.answer.is_closed());
        }
        self.waiting.push(waiting);
    }

    /// The bytes that one of those who wait can make use of, if more of the stream is of any use to them.
    fn use_for(&self, window: &Window) -> Option<usize> {
        let life = Some(&window.top.epoch);
        let useful = |waiting: &&Waiting| waiting.offset_in(life).is_some_and(|offset| offset >= window.begin());
        self.waiting.iter().filter(useful).map(|waiting| waiting.resume.max_bytes).max()
    }

    /// The offset to which the channel has to come so that those aboard can go on, in a stream that ends at `top`; and whether
    /// to fetch what is missing at once.
    fn goal(&self, top: &Position) -> (u64, bool) {
        let aboard = self.waiting.iter().filter(|waiting| waiting.aboard);
        if aboard.clone().any(|waiting| waiting.how == Comparison::Suspicious) {
            return (top.offset, true);
        }
        let seen = aboard.filter_map(|waiting| waiting.offset_in(Some(&top.epoch)));
        (seen.filter(|offset| *offset <= top.offset).max().unwrap_or_default(), false)
    }
}

impl Waiting {
    /// Where it stood in this life of the stream (`None`: whichever it is).
    fn offset_in(&self, life: Option<&Epoch>) -> Option<u64> {
        let Start::Behind(since) = &self.resume.from else { return None };
        let fits = since.epoch.is_empty() || life.is_none_or(|life| *life == since.epoch);
        fits.then_some(since.offset)
    }
}

impl Window {
    fn push(&mut self, page: Vec<Arc<Publication>>) {
        for publication in page {
            let Some(stamp) = &publication.stamp else { continue };
            if self.entries.back().is_some_and(|_| self.end() != stamp.prev) {
                // What stood in between was forgotten between two pages.
                self.entries.clear();
                self.bytes = 0;
            }
            self.bytes += weight(&publication);
            self.entries.push_back(publication);
        }
    }

    /// Gives up the oldest over so many bytes: for whoever needs them it is too much anyway.
    fn shrink(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes && self.entries.len() > 1 {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= weight(&oldest);
        }
    }

    /// The offset before the first publication.
    fn begin(&self) -> u64 {
        let first = self.entries.front().and_then(|first| first.stamp.as_ref());
        first.map_or(self.top.offset, |stamp| stamp.prev)
    }

    /// The offset of the last publication.
    fn end(&self) -> u64 {
        let last = self.entries.back().and_then(|last| last.stamp.as_ref());
        last.map_or(self.top.offset, |stamp| stamp.position.offset)
    }

    /// Whether the stream, as it was read, cannot be continued from there.
    fn lacks(&self, from: &Start) -> bool {
        match from {
            Start::End => false,
            Start::Latest => self.end() != self.top.offset || self.entries.is_empty(),
            Start::Behind(since) => {
                let elsewhere =
                    !since.epoch.is_empty() && since.epoch != self.top.epoch || since.offset > self.top.offset;
                let read = self.since.is_some_and(|begun| begun <= since.offset);
                let link = |publication: &Arc<Publication>| {
                    publication.stamp.as_ref().is_some_and(|stamp| stamp.prev == since.offset)
                };
                // A stream whose end is forgotten brings nobody there.
                let gone = self.end() != self.top.offset || !self.entries.iter().any(link);
                elsewhere || read && since.offset < self.top.offset && gone
            }
        }
    }
}
