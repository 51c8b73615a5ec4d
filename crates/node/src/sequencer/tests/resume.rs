use ::metrics::with_local_recorder;
use futures_util::FutureExt;
use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;
use crate::broker::{Resume, Start};
use crate::sequencer::memory::MAX_REMEMBERED;

const MAX_BYTES: usize = 1 << 20;

fn request(from: Start) -> Resume {
    let retention = Retention { size: 10_000, ttl: Duration::from_secs(60) };
    Resume { from, retention, max_bytes: MAX_BYTES }
}

fn behind(offset: u64) -> Start {
    Start::Behind(position(offset))
}

impl Bench {
    /// What somebody who comes back from `from` learns: what it missed, and where it stands then.
    async fn ask(&self, from: Start, how: Comparison) -> Result<(Vec<u64>, u64), Error> {
        let history = self.sequencer.resume(&self.channel, request(from), how).await?;
        Ok((history.publications.iter().map(|publication| offset(publication)).collect(), history.top.offset))
    }

    async fn resume(&self, from: Start) -> (Vec<u64>, u64) {
        self.ask(from, Comparison::Routine).await.unwrap()
    }
}

fn offset(publication: &Publication) -> u64 {
    publication.stamp.as_ref().map_or(0, |stamp| stamp.position.offset)
}

#[test]
fn what_was_received_is_read_by_nobody() {
    paused(async {
        let bench = Bench::new(0, 0).await;
        assert_eq!(bench.resume(Start::End).await, (vec![], 0));
        assert_eq!(bench.reads(), 1, "the position, for the first one");
        for n in 1..=9 {
            bench.deliver(n);
        }
        assert_eq!(bench.resume(Start::End).await, (vec![], 9));
        assert_eq!(bench.resume(behind(9)).await, (vec![], 9));
        assert_eq!(bench.resume(behind(4)).await, ((5..=9).collect(), 9));
        assert_eq!(bench.resume(behind(0)).await, ((1..=9).collect(), 9));
        assert_eq!(bench.resume(Start::Latest).await, (vec![9], 9));
        assert_eq!(bench.reads(), 1);
    });
}

#[test]
fn all_who_wait_share_a_read() {
    paused(async {
        let bench = Bench::new(2000, 0).await;
        let asking = (0..5000_u64).map(|n| async move {
            // Some come while the first ones wait.
            sleep(Duration::from_millis(n % 20)).await;
            n % 2001
        });
        let bench = &bench;
        let all = join_all(asking.map(|asked| async move {
            let since = asked.await;
            (since, bench.resume(behind(since)).await)
        }))
        .await;
        for (since, answer) in all {
            assert_eq!(answer, ((since + 1..=2000).collect(), 2000));
        }
        assert!(bench.reads() <= 10, "{} reads of 512 publications", bench.reads());
    });
}

#[test]
fn what_was_read_for_one_is_remembered_for_the_next() {
    paused(async {
        let bench = Bench::new(50, 0).await;
        assert_eq!(bench.resume(behind(20)).await, ((21..=50).collect(), 50));
        bench.deliver(51);
        assert_eq!(bench.resume(behind(30)).await, ((31..=51).collect(), 51));
        assert_eq!(bench.reads(), 1);
        // Farther back: another read, joined to what is remembered.
        assert_eq!(bench.resume(behind(10)).await, ((11..=51).collect(), 51));
        assert_eq!(bench.reads(), 2);
    });
}

#[test]
fn what_is_gone_is_said_to_be_gone() {
    paused(async {
        let bench = Bench::new(50, 20).await;
        assert_eq!(bench.resume(behind(20)).await, ((21..=50).collect(), 50), "the oldest that can be continued");
        for lost in [19, 5, 0, 60] {
            assert_eq!(bench.resume(behind(lost)).await, (vec![], 50), "{lost}");
        }
        let other = Start::Behind(Position { epoch: Epoch::from("other"), offset: 30 });
        assert_eq!(bench.resume(other).await, (vec![], 50));
        let unknown = Start::Behind(Position { epoch: Epoch::default(), offset: 48 });
        assert_eq!(bench.resume(unknown).await, (vec![49, 50], 50));
    });
}

#[test]
fn hopeless_ones_are_many_and_cost_little() {
    paused(async {
        let bench = Bench::new(50, 20).await;
        let started = Instant::now();
        let bench = &bench;
        join_all((0..2000_u64).map(|n| async move {
            sleep(Duration::from_millis(n)).await;
            assert_eq!(bench.resume(behind(n % 15)).await, (vec![], 50));
        }))
        .await;
        let seconds = started.elapsed().as_secs() as usize;
        assert!(bench.reads() <= 6 * (seconds + 1), "{} reads in {seconds} s", bench.reads());
    });
}

#[test]
fn too_much_is_not_read_for_ever() {
    paused(async {
        let bench = Bench::new(100_000, 0).await;
        // What is over the bound is not handed out; who is near the end gets it.
        let (far, near) = tokio::join!(bench.resume(behind(0)), bench.resume(behind(99_990)));
        assert_eq!(far, (vec![], 100_000));
        assert_eq!(near, ((99_991..=100_000).collect(), 100_000));
        let reads = bench.reads();
        assert_eq!(bench.resume(behind(3)).await, (vec![], 100_000));
        assert!(bench.reads() - reads < 30, "given up as soon as it is too much");
    });
}

#[test]
fn who_is_ahead_is_waited_for() {
    paused(async {
        let bench = Bench::new(12, 0).await;
        for n in 1..=9 {
            bench.deliver(n);
        }
        // It has seen on another node what is still under way to this one.
        let (answer, ()) = tokio::join!(bench.resume(behind(11)), async {
            sleep(Duration::from_millis(100)).await;
            (10..=12).for_each(|n| bench.deliver(n));
        });
        assert_eq!(answer.0.first(), answer.0.first().map(|_| &12));
        assert!(answer.1 >= 11);
        let reads = bench.reads();
        assert_eq!(bench.outcome().await, ((1..=12).collect(), 0));
        assert_eq!((reads, bench.reads()), (1, 1), "and nothing was repaired");
    });
}

#[test]
fn who_is_ahead_of_what_does_not_come_is_repaired_for() {
    paused(async {
        let bench = Bench::new(12, 0).await;
        (1..=9).for_each(|n| bench.deliver(n));
        assert_eq!(bench.resume(behind(11)).await, (vec![12], 12));
        assert_eq!(bench.outcome().await, ((1..=12).collect(), 0), "everybody else gets it, too");
    });
}

#[test]
fn a_deaf_node_asks() {
    paused(async {
        let bench = Bench::new(12, 0).await;
        (1..=9).for_each(|n| bench.deliver(n));
        assert_eq!(bench.ask(behind(5), Comparison::Suspicious).await, Ok(((6..=12).collect(), 12)));
        assert_eq!(bench.ask(Start::End, Comparison::Suspicious).await, Ok((vec![], 12)));
        assert_eq!(bench.outcome().await, ((1..=12).collect(), 0));
    });
}

#[test]
fn another_life_is_found_by_who_has_seen_it() {
    paused(async {
        let bench = Bench::new(12, 0).await;
        (1..=9).for_each(|n| bench.deliver(n));
        assert_eq!(bench.resume(behind(9)).await, (vec![], 9));
        *bench.life.lock() = Epoch::from("other");
        let there = |offset| Start::Behind(Position { epoch: Epoch::from("other"), offset });
        assert_eq!(bench.resume(there(10)).await, (vec![11, 12], 12), "it can go on");
        assert_eq!(bench.outcome().await, ((1..=9).collect(), 1), "the others are told");
        assert_eq!(bench.resume(behind(9)).await, (vec![], 12));
    });
}

#[test]
fn a_broker_that_fails_is_no_gap() {
    paused(async {
        let bench = Bench::new(12, 0).await;
        bench.broken.store(true, Ordering::Relaxed);
        assert!(matches!(bench.ask(behind(5), Comparison::Routine).await, Err(Error::Unavailable(_))));
        bench.broken.store(false, Ordering::Relaxed);
        assert_eq!(bench.resume(behind(5)).await, ((6..=12).collect(), 12));
    });
}

#[test]
fn removed_history_is_handed_out_no_more() {
    paused(async {
        let bench = Bench::new(9, 9).await;
        assert_eq!(bench.resume(Start::End).await, (vec![], 9));
        bench.deliver(10);
        assert_eq!(bench.resume(behind(9)).await, (vec![10], 10));
        bench.gone.store(10, Ordering::Relaxed);
        bench.top.store(10, Ordering::Relaxed);
        bench.sequencer.clear(&bench.channel);
        assert_eq!(bench.resume(behind(9)).await, (vec![], 10));
        assert_eq!(bench.resume(Start::Latest).await, (vec![], 10));
    });
}

#[test]
fn what_the_channel_keeps_no_more_is_asked_for() {
    paused(async {
        let bench = Bench::new(0, 0).await;
        assert_eq!(bench.resume(Start::End).await, (vec![], 0));
        (1..=5).for_each(|n| bench.deliver(n));
        sleep(Duration::from_secs(61)).await;
        bench.top.store(5, Ordering::Relaxed);
        bench.gone.store(5, Ordering::Relaxed);
        assert_eq!(bench.resume(behind(3)).await, (vec![], 5));
        assert_eq!(bench.resume(behind(5)).await, (vec![], 5), "nothing is missing");
    });
}

#[test]
fn what_lies_before_a_loss_leads_nowhere() {
    paused(async {
        let bench = Bench::new(0, 0).await;
        assert_eq!(bench.resume(Start::End).await, (vec![], 0));
        (1..=5).for_each(|n| bench.deliver(n));
        // The sixth is lost, and forgotten before anybody can read it.
        bench.gone.store(7, Ordering::Relaxed);
        bench.deliver(7);
        assert_eq!(bench.outcome().await, ((1..=5).collect(), 1));
        assert_eq!(bench.resume(behind(3)).await, (vec![], 7));
        bench.deliver(8);
        assert_eq!(bench.resume(behind(3)).await, (vec![], 8));
        assert_eq!(bench.resume(behind(7)).await, (vec![8], 8));
    });
}

#[test]
fn memory_is_bounded() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let bench = async {
        let dispatcher = Dispatcher::new(1);
        let broker = MemoryBroker::new(Arc::clone(&dispatcher));
        let empty = |_, _| async { Ok(History { publications: Vec::new(), top: position(0) }) }.boxed();
        let sequencer = Sequencer::new(Arc::clone(&dispatcher), Box::new(empty));
        let shown = |bytes| metrics.render().contains(&format!("fanwire_recent_bytes {bytes}\n"));
        let big: bytes::Bytes = vec![b'1'; 100_000].into();
        let channels: Vec<_> = (0..300).map(|n| Channel::new(&format!("c{n}")).unwrap()).collect();
        for channel in &channels {
            dispatcher.want(channel, 0, &broker).await.unwrap();
            sequencer.follow(channel);
            sequencer.resume(channel, request(Start::End), Comparison::Routine).await.unwrap();
            for n in 1..=10 {
                let publication = Publication {
                    channel: channel.clone(),
                    payload: Payload::json(big.clone()),
                    ..Publication::clone(&publication(n))
                };
                sequencer.accept(&Broadcast::Publication(Arc::new(publication)));
            }
            let tracks = sequencer.tracks.lock();
            assert!(tracks.memory.bytes <= MAX_REMEMBERED);
            assert_eq!(tracks.memory.bytes, tracks.channels.values().map(|track| track.recent.bytes()).sum::<usize>());
            let aged = tracks.channels.values().filter(|track| track.age.is_some()).count();
            assert_eq!(tracks.memory.ages.len(), aged);
            assert!(shown(tracks.memory.bytes));
        }
        let remembered = |channel| {
            let request = request(behind(8));
            sequencer.resume(channel, request, Comparison::Routine).now_or_never().is_some_and(|answer| answer.is_ok())
        };
        assert!(remembered(&channels[299]) && !remembered(&channels[0]), "the oldest went");
        channels.iter().for_each(|channel| sequencer.forget(channel));
        let tracks = sequencer.tracks.lock();
        assert_eq!((tracks.memory.bytes, tracks.memory.ages.len(), tracks.channels.len()), (0, 0, 0));
        assert!(shown(0));
    };
    with_local_recorder(&recorder, || paused(bench));
}

/// What happens to a channel.
#[derive(Clone, Debug)]
enum Step {
    /// Something is published, and comes, or not.
    Publish {
        arrives: bool,
    },
    /// Somebody comes back from so far behind the end, or from the end.
    Resume {
        back: u64,
        how: Comparison,
    },
    /// The connection was lost, and everything is compared.
    Interrupt,
    /// All but so many are forgotten.
    Trim(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::bool::weighted(0.8).prop_map(|arrives| Step::Publish { arrives }),
        4 => (0_u64..20, prop::bool::weighted(0.2)).prop_map(|(back, suspicious)| {
            let how = if suspicious { Comparison::Suspicious } else { Comparison::Routine };
            Step::Resume { back, how }
        }),
        1 => Just(Step::Interrupt),
        1 => (0_u64..12).prop_map(Step::Trim),
        4 => (0_u64..30).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whoever resumes gets everything from where it stood to where it is told to stand, and what is dispatched from then on
    /// continues there.
    #[test]
    fn an_answer_is_whole_and_what_follows_continues_it(steps in prop::collection::vec(step(), 1..60)) {
        paused(async {
            let bench = Rc::new(Bench::new(0, 0).await);
            let mut asking = Vec::new();
            for step in steps {
                let top = bench.top.load(Ordering::Relaxed);
                match step {
                    Step::Publish { arrives } => {
                        bench.top.store(top + 1, Ordering::Relaxed);
                        if arrives {
                            bench.deliver(top + 1);
                        }
                    }
                    Step::Resume { back, how } => {
                        let since = top.saturating_sub(back);
                        let bench = Rc::clone(&bench);
                        asking.push(tokio::task::spawn_local(async move {
                            let answer = bench.ask(behind(since), how).await;
                            // In the same moment: what comes from here on comes behind the answer.
                            (since, answer, bench.dispatched().len(), bench.gone.load(Ordering::Relaxed))
                        }));
                    }
                    Step::Interrupt => {
                        bench.sequencer.interrupted(|_| true);
                        for (channel, at) in bench.sequencer.positions() {
                            bench.sequencer.compare(&channel, &at, Some(position(top)), Comparison::Suspicious);
                        }
                    }
                    Step::Trim(kept) => drop(bench.gone.fetch_max(top.saturating_sub(kept), Ordering::Relaxed)),
                    Step::Wait(ms) => sleep(Duration::from_millis(ms)).await,
                }
            }
            let answers = join_all(asking).await;
            sleep(Duration::from_secs(5)).await;
            let dispatched = bench.dispatched();
            for answer in answers {
                let (since, answer, before, gone) = answer.unwrap();
                let (missed, top) = answer.expect("the broker answers");
                let whole = missed == (since + 1..=top).collect::<Vec<_>>() && since <= top;
                prop_assert!(whole || missed.is_empty() && since < gone, "{since}: {missed:?} up to {top}, {gone} gone");
                let next = dispatched[before..].iter().find(|next| **next > top);
                let behind: Vec<_> = dispatched[before..].iter().filter(|next| **next > top).collect();
                prop_assert!(
                    next.is_none_or(|next| *next == top + 1) || bench.gone.load(Ordering::Relaxed) > top,
                    "{since}: told to stand at {top}, then comes {behind:?}"
                );
            }
            Ok(())
        })?;
    }
}
