//! The merge against a model: whatever the stream and the way to it do, subscribers get the set of what stands in the stream
//! between any two of their positions, in its order; what they do not get they are told, and only if it is gone.

use std::collections::BTreeSet;

use super::*;

/// What happens to the stream, or on the way.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// So many publications arrive.
    Arrive(usize),
    /// So many get lost on their way.
    Lost(usize),
    /// One comes so much later.
    Late(u64),
    /// One that has come comes again.
    Again,
    /// The oldest are forgotten, all but so many.
    Trim(usize),
    /// The server forgets so many of the latest, and jumps with the next one.
    Rewind(usize),
    /// The stream begins anew.
    Anew,
    /// The node has subscribed again.
    Sync,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1_usize..4).prop_map(Op::Arrive),
        // More than is held during a read.
        1 => Just(Op::Arrive(MAX_HELD + 100)),
        5 => (1_usize..4).prop_map(Op::Lost),
        // More than a page, and exactly one.
        1 => prop_oneof![Just(Op::Lost(PAGE + 100)), Just(Op::Lost(PAGE))],
        3 => (0_u64..15).prop_map(Op::Late),
        3 => Just(Op::Again),
        1 => (0_usize..4).prop_map(Op::Trim),
        1 => (0_usize..6).prop_map(Op::Rewind),
        1 => Just(Op::Anew),
        3 => Just(Op::Sync),
        6 => (0_u64..12).prop_map(Op::Wait),
    ]
}

/// The stream, and everything that ever stood in it.
#[derive(Default)]
struct Stream {
    life: u64,
    incarnation: u64,
    top: u64,
    kept: VecDeque<Arc<Publication>>,
    /// The offsets of this life, without those of a future that was lost.
    standing: BTreeSet<u64>,
    /// Something was forgotten that a subscriber may need.
    forgetful: bool,
}

impl Stream {
    fn epoch(&self) -> Epoch {
        Epoch::from(&*format!("life{}", self.life))
    }

    fn end(&self) -> Position {
        Position { epoch: self.epoch(), offset: self.top }
    }

    fn publish(&mut self) -> Arc<Publication> {
        let prev = self.top;
        self.top = (prev + 1).max(self.incarnation << 32);
        let stamp = Stamp { position: self.end(), prev };
        let publication = Arc::new(Publication { stamp: Some(stamp), ..(*publication(1)).clone() });
        self.kept.push_back(Arc::clone(&publication));
        self.standing.insert(self.top);
        publication
    }

    fn trim(&mut self, keep: usize) {
        let gone = self.kept.len().saturating_sub(keep);
        self.forgetful |= gone > 0;
        self.kept.drain(..gone);
    }

    fn rewind(&mut self, count: usize) {
        self.incarnation += 1;
        for _ in 0..count {
            let Some(lost) = self.kept.pop_back().and_then(|lost| lost.stamp.clone()) else { return };
            self.forgetful = true;
            self.standing.remove(&lost.position.offset);
            self.top = lost.prev;
        }
    }

    fn anew(&mut self) {
        *self = Self { life: self.life + 1, forgetful: true, ..Self::default() };
    }

    fn read(&self, query: &HistoryQuery) -> History {
        let offset = |publication: &Publication| publication.stamp.as_ref().map_or(0, |stamp| stamp.position.offset);
        let behind = self.kept.iter().filter(|publication| query.since.is_none_or(|since| offset(publication) > since));
        History { publications: behind.take(query.limit).cloned().collect(), top: self.end() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn subscribers_get_the_set_between_their_positions(ops in proptest::collection::vec(op(), 1..60)) {
        paused(async { play(ops).await })?;
    }
}

async fn play(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let dispatcher = Dispatcher::new(1);
    let channel = Channel::new("a").unwrap();
    dispatcher.want(&channel, 0, &MemoryBroker::new(Arc::clone(&dispatcher))).await.unwrap();
    let stream = Arc::new(Mutex::new(Stream::default()));
    let read = {
        let stream = Arc::clone(&stream);
        move |_, query: HistoryQuery| -> BoxFuture<'static, _> {
            let stream = Arc::clone(&stream);
            Box::pin(async move {
                sleep(Duration::from_millis(2)).await;
                let history = stream.lock().read(&query);
                sleep(Duration::from_millis(3)).await;
                Ok(history)
            })
        }
    };
    let sequencer = Sequencer::new(Arc::clone(&dispatcher), Box::new(read));
    sequencer.follow(&channel);
    let accept = |publication| sequencer.accept(&Broadcast::Publication(publication));
    let sync = || {
        for (channel, position) in sequencer.positions() {
            sequencer.compare(&channel, &position, Some(stream.lock().end()), Comparison::Suspicious);
        }
    };
    let mut subscriber = Subscriber::default();
    let (mut last, mut shown) = (None, false);
    for op in ops {
        shown = match op {
            Op::Arrive(_) => true,
            Op::Lost(_) | Op::Late(_) | Op::Rewind(_) | Op::Anew => false,
            Op::Again | Op::Trim(_) | Op::Sync | Op::Wait(_) => shown,
        };
        match op {
            Op::Arrive(count) => {
                for _ in 0..count {
                    let publication = stream.lock().publish();
                    last = Some(Arc::clone(&publication));
                    accept(publication);
                }
            }
            Op::Lost(count) => (0..count).for_each(|_| drop(stream.lock().publish())),
            Op::Late(wait) => {
                let (publication, sequencer) = (stream.lock().publish(), Arc::clone(&sequencer));
                tokio::spawn(async move {
                    sleep(Duration::from_millis(wait)).await;
                    sequencer.accept(&Broadcast::Publication(publication));
                });
            }
            Op::Again => last.iter().cloned().for_each(accept),
            Op::Trim(keep) => stream.lock().trim(keep),
            Op::Rewind(count) => {
                stream.lock().rewind(count);
                last = None;
            }
            Op::Anew => {
                stream.lock().anew();
                last = None;
            }
            Op::Sync => sync(),
            Op::Wait(ms) => sleep(Duration::from_millis(ms)).await,
        }
        subscriber.take(&dispatcher)?;
    }
    // What is late has come by then, and what it broke is repaired.
    sleep(Duration::from_secs(1)).await;
    subscriber.take(&dispatcher)?;
    if shown && subscriber.at.is_some() {
        prop_assert_eq!(
            subscriber.at.as_ref(),
            Some(&stream.lock().end()),
            "the last arrival shows every gap before it"
        );
    }
    // What nothing shows is found by comparison.
    for _ in 0..3 {
        sleep(Duration::from_secs(1)).await;
        sync();
    }
    sleep(Duration::from_secs(1)).await;
    subscriber.take(&dispatcher)?;
    subscriber.judge(&stream.lock())
}

/// What a worker makes of its letters: subscribers that stand somewhere, and are told now and then that they cannot go on.
#[derive(Default)]
struct Subscriber {
    at: Option<Position>,
    /// Where it began to stand, and what it got since.
    segment: Option<(Position, BTreeSet<u64>)>,
    told: usize,
}

impl Subscriber {
    fn take(&mut self, dispatcher: &Dispatcher) -> Result<(), TestCaseError> {
        let mut letters = VecDeque::new();
        dispatcher.mailboxes()[0].swap(&mut letters);
        for letter in letters {
            match letter {
                Letter::Run(_) => self.tell(),
                Letter::Dispatch(Broadcast::Publication(publication), _) => {
                    let Stamp { position, prev } = publication.stamp.clone().expect("each has one");
                    if let Some(at) = &self.at {
                        // As the hub: old ones are dropped there, and nothing else is out of order.
                        let newer = at.epoch != position.epoch || at.offset < position.offset;
                        prop_assert!(newer, "{position:?} is dispatched behind {at:?}");
                        if at.epoch != position.epoch || at.offset != prev {
                            self.tell();
                        }
                    }
                    let start = Position { offset: prev, ..position.clone() };
                    self.segment.get_or_insert_with(|| (start, BTreeSet::new())).1.insert(position.offset);
                    self.at = Some(position);
                }
                Letter::Dispatch(..) => {}
            }
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.told += 1;
        self.segment = None;
        self.at = None;
    }

    fn judge(&self, stream: &Stream) -> Result<(), TestCaseError> {
        prop_assert!(stream.forgetful || self.told == 0, "told {} times of what is all there", self.told);
        let (Some(at), Some((start, got))) = (&self.at, &self.segment) else { return Ok(()) };
        prop_assert_eq!(at, &stream.end(), "it has come to the end");
        let expected: BTreeSet<u64> = stream.standing.range(start.offset + 1..=at.offset).copied().collect();
        prop_assert_eq!(got, &expected, "from {:?} on", start);
        Ok(())
    }
}
