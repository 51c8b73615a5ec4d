use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanwire_wire::{Epoch, Payload, Stamp};
use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::MemoryBroker;
use crate::mailbox::Letter;

/// A sequencer over a stream of `1..=top` in which the first `gone` are not kept any more.
struct Bench {
    dispatcher: Arc<Dispatcher>,
    sequencer: Arc<Sequencer>,
    channel: Channel,
    reads: Arc<AtomicUsize>,
}

impl Bench {
    async fn new(top: u64, gone: u64) -> Self {
        let dispatcher = Dispatcher::new(1);
        let channel = Channel::new("a").unwrap();
        dispatcher.want(&channel, 0, &MemoryBroker::new(Arc::clone(&dispatcher))).await.unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&reads);
        let read = move |_, query: HistoryQuery| -> BoxFuture<'static, _> {
            counter.fetch_add(1, Ordering::Relaxed);
            let since = query.since.unwrap_or_default().max(gone);
            let publications = (since + 1..=top).take(query.limit).map(publication).collect();
            Box::pin(async move {
                sleep(Duration::from_millis(5)).await;
                Ok(History { publications, top: position(top) })
            })
        };
        let sequencer = Sequencer::new(Arc::clone(&dispatcher), Box::new(read));
        sequencer.follow(&channel);
        Self { dispatcher, sequencer, channel, reads }
    }

    fn deliver(&self, offset: u64) {
        self.sequencer.accept(&Broadcast::Publication(publication(offset)));
    }

    /// The offsets dispatched so far, and how often subscribers are told of a loss.
    async fn outcome(&self) -> (Vec<u64>, usize) {
        sleep(Duration::from_secs(1)).await;
        let mut letters = VecDeque::new();
        self.dispatcher.mailboxes()[0].swap(&mut letters);
        let (mut offsets, mut losses) = (Vec::new(), 0);
        for letter in letters {
            match letter {
                Letter::Dispatch(Broadcast::Publication(publication), _) => {
                    offsets.extend(publication.stamp.as_ref().map(|stamp| stamp.position.offset));
                }
                Letter::Dispatch(..) => {}
                Letter::Run(_) => losses += 1,
            }
        }
        (offsets, losses)
    }
}

fn position(offset: u64) -> Position {
    Position { epoch: Epoch::from("e"), offset }
}

fn publication(offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        channel: Channel::new("a").unwrap(),
        payload: Payload::json("1".into()),
        event: None,
        tags: Arc::default(),
        info: None,
        stamp: Some(Stamp { position: position(offset), prev: offset - 1 }),
        time_ms: 0,
    })
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
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
        assert_eq!(bench.outcome().await, (vec![2], 0), "but not twice");
        assert_eq!(bench.reads.load(Ordering::Relaxed), 1);
    });
}
