//! Publications that are applied under a condition, and many in one step.

use fanwire_node::Publish;
use fanwire_node::broker::{Condition, MAX_BATCH, Published, Verdict, Version};
use fanwire_wire::{Epoch, Position, Refusal};
use futures_util::future::join_all;
use serde_json::json;

use super::{Bench, HistoryRequest, channel, data};

pub(super) async fn suite(bench: impl AsyncFn() -> Bench) {
    one_of_those_who_expect_the_same_is_applied(&bench().await).await;
    a_position_is_compared_as_a_whole(&bench().await).await;
    only_higher_versions_are_applied(&bench().await).await;
    a_repetition_is_not_asked_again(&bench().await).await;
    conditions_need_a_history(&bench().await).await;
    a_batch_is_applied_in_its_order(&bench().await).await;
}

async fn one_of_those_who_expect_the_same_is_applied(bench: &Bench) {
    let subscriber = bench.subscriber("long:a").await;
    let mut top = bench.history("long:a", HistoryRequest::default()).await.top;
    for round in 0..5 {
        let raced = join_all((0..8).map(|n| at(bench, &top, round * 8 + n))).await;
        let applied: Vec<_> = raced.iter().filter(|published| published.verdict == Verdict::Applied).collect();
        assert_eq!(applied.len(), 1, "{raced:?}");
        assert_eq!(raced.iter().filter(|published| published.verdict == Verdict::Conflict).count(), 7);
        assert!(raced.iter().all(|each| each.position == applied[0].position), "all are told where it stands");
        let place = applied[0].position.clone().expect("a position");
        assert!(place.offset > top.offset, "{raced:?}");
        top = place;
    }
    assert_eq!(bench.publications(&subscriber, 5).await.last().expect("one")["offset"], json!(top.offset));
    assert_eq!(bench.history("long:a", whole()).await.publications.len(), 5, "what conflicts is not kept");
}

async fn a_position_is_compared_as_a_whole(bench: &Bench) {
    let first = bench.publish("long:a", json!(1)).await;
    let next = Position { offset: first.offset + 1, ..first.clone() };
    let elsewhere = Position { epoch: Epoch::from("elsewhere"), ..first.clone() };
    let far = Position { offset: u64::MAX, ..first.clone() };
    for wrong in [Position { offset: first.offset - 1, ..first.clone() }, next, elsewhere, far] {
        let refused = Published { position: Some(first.clone()), verdict: Verdict::Conflict };
        assert_eq!(at(bench, &wrong, 0).await, refused, "{wrong:?}");
    }
    let without_epoch = Position { epoch: Epoch::default(), ..first.clone() };
    assert_eq!(at(bench, &without_epoch, 2).await.verdict, Verdict::Applied, "the offset alone counts");
    assert_eq!(at(bench, &Position::default(), 3).await.verdict, Verdict::Conflict);
    let untouched =
        Publish { condition: Some(Condition::At(Position::default())), ..bench.publication("long:b", &json!(1)) };
    let begun = bench.node().publish(untouched).await.expect("published");
    assert_eq!(begun.verdict, Verdict::Applied, "0 is where a stream begins");
}

async fn only_higher_versions_are_applied(bench: &Bench) {
    let subscriber = bench.subscriber("stream:a").await;
    // Both are the same number to those who count in floats.
    let (large, larger) = (u64::MAX - 1, u64::MAX);
    let steps = [
        (5, "", Verdict::Applied),
        (5, "", Verdict::Outdated),
        (4, "", Verdict::Outdated),
        (6, "", Verdict::Applied),
        (10, "", Verdict::Applied),
        (9, "", Verdict::Outdated),
        (1, "other life", Verdict::Applied),
        (1, "other life", Verdict::Outdated),
        (large, "other life", Verdict::Applied),
        (large, "other life", Verdict::Outdated),
        (larger, "other life", Verdict::Applied),
        (larger, "", Verdict::Applied),
    ];
    let mut top = bench.history("stream:a", HistoryRequest::default()).await.top;
    for (number, epoch, verdict) in steps {
        let version = Version { number, epoch: epoch.into() };
        let publish = Publish {
            condition: Some(Condition::Below(version)),
            ..bench.publication("stream:a", &json!([number, epoch]))
        };
        let published = bench.node().publish(publish).await.expect("an answer");
        assert_eq!(published.verdict, verdict, "{number} of {epoch:?}");
        let at = published.position.expect("a position");
        if verdict == Verdict::Applied {
            assert!(at.offset > top.offset);
            top = at;
        } else {
            assert_eq!(at, top, "where the stream ends");
        }
    }
    let applied: Vec<_> =
        steps.iter().filter(|step| step.2 == Verdict::Applied).map(|step| json!([step.0, step.1])).collect();
    let seen = bench.publications(&subscriber, applied.len()).await;
    assert_eq!(seen.iter().map(|publication| publication["pub"].clone()).collect::<Vec<_>>(), applied);
    // Those without a version come between, and leave it as it is.
    bench.publish("stream:a", json!("none")).await;
    let publish = Publish {
        condition: Some(Condition::Below(Version { number: larger, epoch: "".into() })),
        ..bench.publication("stream:a", &json!(0))
    };
    assert_eq!(bench.node().publish(publish).await.expect("an answer").verdict, Verdict::Outdated);
    // In a batch each sees the one before it, and the last stays.
    let batch = |name: &str| {
        let version = |number, epoch: &str| Some(Condition::Below(Version { number, epoch: epoch.into() }));
        let publish = |(number, epoch, _): &(u64, &str, Verdict)| Publish {
            condition: version(*number, epoch),
            ..bench.publication(name, &json!(0))
        };
        bench.node().publish_all(steps.iter().map(publish).collect())
    };
    let verdicts = |outcomes: Vec<Result<Published, Refusal>>| {
        outcomes.into_iter().map(|outcome| outcome.expect("an answer").verdict).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(batch("stream:b").await), steps.map(|(_, _, verdict)| verdict));
    let last = Publish {
        condition: Some(Condition::Below(Version { number: larger, epoch: "".into() })),
        ..bench.publication("stream:b", &json!(0))
    };
    assert_eq!(bench.node().publish(last).await.expect("an answer").verdict, Verdict::Outdated);
}

async fn a_repetition_is_not_asked_again(bench: &Bench) {
    let start = bench.publish("long:a", json!(0)).await;
    let expecting = |position: &Position| Publish {
        idempotency_key: Some("expecting".into()),
        condition: Some(Condition::At(position.clone())),
        ..bench.publication("long:a", &json!(1))
    };
    let wrong = Position { offset: start.offset + 7, ..start.clone() };
    let refused = bench.node().publish(expecting(&wrong)).await.expect("an answer");
    assert_eq!((refused.verdict, refused.position.as_ref()), (Verdict::Conflict, Some(&start)));
    let applied = bench.node().publish(expecting(&start)).await.expect("published");
    assert_eq!(applied.verdict, Verdict::Applied, "nothing came of the first attempt, and its key is free");
    bench.publish("long:a", json!(2)).await;
    let again = bench.node().publish(expecting(&start)).await.expect("published");
    assert_eq!(again, applied, "the answer of the first, though the channel went on");
    let versioned = |number, key: &str| Publish {
        idempotency_key: Some(key.into()),
        condition: Some(Condition::Below(Version { number, epoch: "".into() })),
        ..bench.publication("long:a", &json!(number))
    };
    let second = bench.node().publish(versioned(2, "second")).await.expect("published");
    let first = bench.node().publish(versioned(1, "first")).await.expect("an answer");
    assert_eq!((second.verdict, first.verdict), (Verdict::Applied, Verdict::Outdated));
    bench.publish("long:a", json!(3)).await;
    assert_eq!(bench.node().publish(versioned(2, "second")).await.expect("an answer"), second);
    assert_eq!(bench.node().publish(versioned(1, "first")).await.expect("an answer"), first);
}

async fn conditions_need_a_history(bench: &Bench) {
    let condition = Some(Condition::At(Position::default()));
    let plain = Publish { condition: condition.clone(), ..bench.publication("plain", &json!(1)) };
    assert_eq!(bench.node().publish(plain).await, Err(Refusal::NotAvailable));
    let skipping = Publish { condition, skip_history: true, ..bench.publication("long:a", &json!(1)) };
    assert_eq!(bench.node().publish(skipping).await, Err(Refusal::NotAvailable));
}

async fn a_batch_is_applied_in_its_order(bench: &Bench) {
    for name in ["long:a", "plain"] {
        let subscriber = bench.subscriber(name).await;
        let keyed =
            |key: &str, n: i32| Publish { idempotency_key: Some(key.into()), ..bench.publication(name, &json!(n)) };
        let batches = (0..4).map(|batch| {
            let publications = (0..MAX_BATCH as i32).map(|n| bench.publication(name, &json!(batch * 1000 + n)));
            bench.node().publish_all(publications.collect())
        });
        let places: Vec<Vec<_>> =
            join_all(batches).await.into_iter().map(|batch| batch.into_iter().map(applied).collect()).collect();
        for places in &places {
            assert!(name == "plain" || places.is_sorted() && places[0] > 0, "{places:?}");
        }
        let seen = bench.publications(&subscriber, 4 * MAX_BATCH).await;
        for batch in 0..4_i64 {
            let of_batch = seen.iter().filter_map(|seen| seen["pub"].as_i64()).filter(|n| n / 1000 == batch);
            assert!(of_batch.eq((0..MAX_BATCH as i64).map(|n| batch * 1000 + n)), "{name}: as sent, each once");
        }
        let mut all = places.concat();
        all.sort_unstable();
        all.dedup();
        assert!(name == "plain" || all.len() == 4 * MAX_BATCH, "a place for each");

        // Each has an outcome of its own.
        let nowhere = Publish::new(channel("nowhere:a"), bench.publication(name, &json!(0)).payload);
        let untimely = Publish {
            condition: Some(Condition::At(Position { offset: 1 << 60, epoch: Epoch::default() })),
            ..bench.publication(name, &json!(3))
        };
        let skipping = Publish { skip_history: true, ..bench.publication(name, &json!(5)) };
        let mixed = vec![keyed("k", 1), nowhere, keyed("k", 2), untimely, bench.publication(name, &json!(4)), skipping];
        let outcomes = bench.node().publish_all(mixed).await;
        let told: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().map(|published| published.verdict)).collect();
        let untimely = if name == "plain" { Err(&Refusal::NotAvailable) } else { Ok(Verdict::Conflict) };
        let fine = Ok(Verdict::Applied);
        assert_eq!(told, [fine, Err(&Refusal::UnknownChannel), fine, untimely, fine, fine]);
        assert_eq!(outcomes[0], outcomes[2], "{name}: the same key in one batch");
        assert_eq!(outcomes[5].as_ref().map(|skipped| &skipped.position), Ok(&None));
        let seen = bench.publications(&subscriber, 3).await;
        assert_eq!(seen.iter().map(|seen| seen["pub"].clone()).collect::<Vec<_>>(), [json!(1), json!(4), json!(5)]);
    }
    assert_eq!(bench.node().publish_all(Vec::new()).await, []);
    let kept = bench.history("long:a", HistoryRequest { limit: 2, order: super::Order::Reverse, since: None }).await;
    assert_eq!(data(&kept), [json!(4), json!(1)], "what skips the history is delivered alone");
}

async fn at(bench: &Bench, position: &Position, n: i32) -> Published {
    let condition = Some(Condition::At(position.clone()));
    bench.node().publish(Publish { condition, ..bench.publication("long:a", &json!(n)) }).await.expect("an answer")
}

fn applied(outcome: Result<Published, Refusal>) -> u64 {
    let published = outcome.expect("published");
    assert_eq!(published.verdict, Verdict::Applied);
    published.position.map_or(0, |position| position.offset)
}

fn whole() -> HistoryRequest {
    HistoryRequest { limit: -1, ..HistoryRequest::default() }
}
