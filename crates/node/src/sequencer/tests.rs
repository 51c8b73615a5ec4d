use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use fanwire_wire::{Epoch, Payload, Stamp};
use proptest::prelude::*;
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::*;
use crate::MemoryBroker;
use crate::mailbox::Letter;

mod model;
mod resume;

/// A sequencer over a stream of `1..=top` in which the first `gone` are not kept any more.
struct Bench {
    dispatcher: Arc<Dispatcher>,
    sequencer: Arc<Sequencer>,
    channel: Channel,
    top: Arc<AtomicU64>,
    gone: Arc<AtomicU64>,
    life: Arc<Mutex<Epoch>>,
    broken: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
    letters: Mutex<VecDeque<Letter>>,
}

impl Bench {
    async fn new(top: u64, gone: u64) -> Self {
        let dispatcher = Dispatcher::new(1);
        let channel = Channel::new("a").unwrap();
        dispatcher.want(&channel, 0, &MemoryBroker::new(Arc::clone(&dispatcher))).await.unwrap();
        let (top, gone) = (Arc::new(AtomicU64::new(top)), Arc::new(AtomicU64::new(gone)));
        let life = Arc::new(Mutex::new(Epoch::from("e")));
        let (broken, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let stream = (Arc::clone(&top), Arc::clone(&gone), Arc::clone(&life), Arc::clone(&broken), Arc::clone(&reads));
        let read = move |_, query: HistoryQuery| -> BoxFuture<'static, _> {
            let (top, gone, life, broken, reads) = stream.clone();
            Box::pin(async move {
                sleep(Duration::from_millis(2)).await;
                reads.fetch_add(1, Ordering::Relaxed);
                if broken.load(Ordering::Relaxed) {
                    return Err(Error::Unavailable("the test says so".into()));
                }
                let (top, gone, life) =
                    (top.load(Ordering::Relaxed), gone.load(Ordering::Relaxed), life.lock().clone());
                let from = match query.order {
                    Order::Forward => query.since.unwrap_or_default().max(gone),
                    Order::Reverse => top.saturating_sub(query.limit as u64).max(gone),
                };
                let publications = (from + 1..=top).take(query.limit).map(|n| publication_in(&life, n)).collect();
                sleep(Duration::from_millis(3)).await;
                Ok(History { publications, top: Position { epoch: life, offset: top } })
            })
        };
        let sequencer = Sequencer::new(Arc::clone(&dispatcher), Box::new(read));
        sequencer.follow(&channel);
        Self { dispatcher, sequencer, channel, top, gone, life, broken, reads, letters: Mutex::default() }
    }

    fn deliver(&self, offset: u64) {
        self.top.fetch_max(offset, Ordering::Relaxed);
        self.sequencer.accept(&Broadcast::Publication(publication(offset)));
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// The offsets dispatched so far, and how often subscribers are told of a loss.
    async fn outcome(&self) -> (Vec<u64>, usize) {
        sleep(Duration::from_secs(1)).await;
        let dispatched = self.dispatched();
        (dispatched, self.letters.lock().iter().filter(|letter| matches!(letter, Letter::Run(_))).count())
    }

    fn dispatched(&self) -> Vec<u64> {
        let mut new = VecDeque::new();
        self.dispatcher.mailboxes()[0].swap(&mut new);
        let mut letters = self.letters.lock();
        letters.append(&mut new);
        let publication = |letter: &Letter| match letter {
            Letter::Dispatch(Broadcast::Publication(publication), _) => publication.stamp.clone(),
            _ => None,
        };
        letters.iter().filter_map(publication).map(|stamp| stamp.position.offset).collect()
    }
}

fn position(offset: u64) -> Position {
    Position { epoch: Epoch::from("e"), offset }
}

fn publication(offset: u64) -> Arc<Publication> {
    publication_in(&Epoch::from("e"), offset)
}

fn publication_in(life: &Epoch, offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        channel: Channel::new("a").unwrap(),
        payload: Payload::json("1".into()),
        event: None,
        tags: Arc::default(),
        info: None,
        exclude: None,
        stamp: Some(Stamp { position: Position { epoch: life.clone(), offset }, prev: offset - 1 }),
        time_ms: crate::clock::unix_ms() as i64,
    })
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

proptest! {
    #[test]
    fn whatever_arrives_leaves_complete_and_in_order(
        arrivals in proptest::collection::vec((1_u64..30, 0_u64..8), 1..60),
    ) {
        paused(async {
            let bench = Bench::new(30, 0).await;
            bench.deliver(1);
            for (offset, wait) in arrivals {
                bench.deliver(offset);
                sleep(Duration::from_millis(wait)).await;
            }
            bench.sequencer.compare(&bench.channel, &position(1), Some(position(30)), Comparison::Suspicious);
            let (offsets, losses) = bench.outcome().await;
            prop_assert_eq!(offsets, (1..=30).collect::<Vec<_>>());
            prop_assert_eq!(losses, 0);
            Ok(())
        })?;
    }
}

#[test]
fn one_read_for_one_gap() {
    paused(async {
        let bench = Bench::new(9, 0).await;
        for offset in [1, 2, 5, 6, 7, 8, 9] {
            bench.deliver(offset);
        }
        assert_eq!(bench.outcome().await, ((1..=9).collect(), 0));
        assert_eq!(bench.reads.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn more_than_a_page() {
    paused(async {
        let bench = Bench::new(2000, 0).await;
        bench.deliver(1);
        bench.deliver(2000);
        assert_eq!(bench.outcome().await, ((1..=2000).collect(), 0));
    });
}

#[test]
fn what_is_gone_for_good_is_told() {
    paused(async {
        let bench = Bench::new(9, 9).await;
        bench.deliver(1);
        bench.deliver(9);
        assert_eq!(bench.outcome().await, (vec![1], 1), "nothing is left of it");
        let rewound = Some(position(4));
        bench.sequencer.compare(&bench.channel, &position(9), rewound, Comparison::Routine);
        bench.outcome().await;
        assert_eq!(bench.reads.load(Ordering::Relaxed), 2, "a position above the top is looked into at once");
    });
}

#[test]
fn what_is_on_its_way_is_waited_for() {
    paused(async {
        let bench = Bench::new(2, 0).await;
        bench.deliver(1);
        let compare = || bench.sequencer.compare(&bench.channel, &position(1), Some(position(2)), Comparison::Routine);
        compare();
        assert_eq!(bench.outcome().await, (vec![1], 0));
        compare();
        assert_eq!(bench.outcome().await, (vec![1, 2], 0), "but not twice");
        assert_eq!(bench.reads.load(Ordering::Relaxed), 1);
    });
}
