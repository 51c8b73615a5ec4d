//! The oracle finds what is wrong, and nothing where all is well.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use fanwire_testkit::oracle::{
    At, Entry, Event, Figure, Log, Marker, Outcome, Published, Record, Report, Rule, Rules, Seen, Settled, Stream,
    Trimmed,
};

#[test]
fn all_is_well() {
    let report = judge(&streamed());
    report.assert_clean();
    assert_eq!((report.acked, report.delivered, report.recovered, report.live), (6, 12, 1, 2));
    let report = judge(&plain());
    report.assert_clean();
    assert_eq!((report.acked, report.delivered, report.lost_plain, report.live), (6, 12, 0, 2));
}

#[test]
fn a_log_survives_its_file() {
    let mut log = streamed();
    log.records.extend(plain().records);
    log.records.push(trimmed("c", 3));
    log.records.push(Record::Figure(Figure { name: "memory (MiB)".into(), value: 1.5, at_most: None }));
    let mut file = Vec::new();
    log.write(&mut file).unwrap();
    assert_eq!(Log::read(&*file).unwrap(), log);
}

/// Every deviation from a clean log, each with the rule it breaks.
#[test]
fn mutated_logs_are_found() {
    let mutants: &[(&str, Rule, Mutation)] = &[
        ("drop one", Rule::Contiguity, |records| drop(records.remove(delivery(records, "b", 3)))),
        ("drop the last", Rule::Convergence, |records| drop(records.remove(delivery(records, "b", 6)))),
        ("swap two", Rule::Contiguity, |records| swap(records)),
        ("duplicate", Rule::Contiguity, duplicate),
        ("deliver before the subscription", Rule::Contiguity, |records| {
            let delivered = records.remove(delivery(records, "b", 1));
            let subscribed =
                records.iter().position(|record| matches!(record, Record::Seen(seen) if seen.subscriber == "b"));
            records.insert(subscribed.unwrap(), delivered);
        }),
        ("a partial recovery sold as complete", Rule::Contiguity, |records| {
            drop(records.remove(delivery(records, "a", 4)));
        }),
        ("an empty recovery of a quiet channel", Rule::Convergence, |records| {
            for offset in 4..=6 {
                drop(records.remove(delivery(records, "a", offset)));
            }
        }),
        ("recovered in another life of the stream", Rule::Contiguity, |records| {
            *event(records, "a", |event| matches!(event, Event::Subscribed { recovered: true, .. })) =
                Event::Subscribed { recovered: true, was_recovering: true, at: Some(at("other", 3)) };
        }),
        ("ignore the epoch", Rule::NoSilentLoss, |records| {
            *event(records, "b", |event| matches!(event, Event::Publication { pub_id: Some(6), .. })) =
                Event::Publication { at: Some(at("other", 6)), pub_id: Some(6) };
        }),
        ("two publications at one place", Rule::Agreement, |records| {
            *event(records, "b", |event| matches!(event, Event::Publication { pub_id: Some(4), .. })) =
                Event::Publication { at: Some(at("e", 4)), pub_id: Some(5) };
        }),
        ("another place than acknowledged", Rule::Agreement, |records| {
            records[0] = published(1, "c", Outcome::Acked(Some(at("e", 2))));
        }),
        ("something nobody published", Rule::NoPhantom, |records| drop(records.remove(0))),
        ("damaged data", Rule::NoPhantom, |records| {
            *event(records, "b", |event| matches!(event, Event::Publication { pub_id: Some(4), .. })) =
                Event::Publication { at: Some(at("e", 4)), pub_id: None };
        }),
        ("told without need", Rule::NoNeedlessTelling, |records| {
            records.insert(delivery(records, "b", 4), seen("b", "c", Event::Unsubscribed { code: 2500 }));
            records.insert(delivery(records, "b", 4), seen("b", "c", subscribed(true, true, Some(at("e", 3)))));
        }),
        ("refused without need", Rule::NoNeedlessTelling, |records| {
            *event(records, "a", |event| matches!(event, Event::Subscribed { recovered: true, .. })) =
                subscribed(false, true, Some(at("e", 3)));
        }),
        ("told without need at the end", Rule::NoNeedlessTelling, |records| {
            records.push(seen("b", "c", Event::Disconnected { code: 3010 }));
        }),
        ("one publication at two places", Rule::Idempotency, |records| {
            let Some(Record::Stream(stream)) = records.last_mut() else { panic!("the stream is last") };
            stream.top = at("e", 7);
            stream.entries.push(Entry { at: at("e", 7), prev: 6, pub_id: 1 });
        }),
        ("two answers for one key", Rule::Idempotency, |records| {
            records.push(published(1, "c", Outcome::Acked(Some(at("e", 9)))));
        }),
        ("a marker that does not arrive", Rule::Convergence, |records| {
            records.push(Record::Marker(Marker { channel: "c".into(), pub_id: 7 }));
        }),
        ("settled elsewhere", Rule::Convergence, |records| {
            let settled = Settled { channel: "c".into(), top: at("e", 6) };
            records.insert(delivery(records, "b", 6), Record::Settled(settled));
        }),
        ("a figure over its bound", Rule::Figure, |records| {
            records.push(Record::Figure(Figure { name: "memory (MiB)".into(), value: 2.0, at_most: Some(1.5) }));
        }),
    ];
    for (name, rule, mutate) in mutants {
        let mut log = streamed();
        mutate(&mut log.records);
        assert_breaks(&judge(&log), *rule, name);
    }
}

#[test]
fn mutated_logs_of_plain_channels_are_found() {
    let mutants: [(&str, Mutation); 2] = [("swap two", |records| swap(records)), ("duplicate", duplicate)];
    for (name, mutate) in mutants {
        let mut log = plain();
        mutate(&mut log.records);
        assert_breaks(&judge(&log), Rule::Plain, name);
    }
    let mut log = plain();
    log.seen("b", "p", Event::Disconnected { code: 3001 });
    log.records.push(published(7, "p", Outcome::Acked(None)));
    log.seen("b", "p", Event::Publication { at: None, pub_id: Some(7) });
    assert_breaks(&judge(&log), Rule::Plain, "delivered to nobody");
}

#[test]
fn plain_channels_may_lose_and_it_is_counted() {
    let mut log = plain();
    for pub_id in [2, 3] {
        drop(log.records.remove(delivery(&log.records, "b", pub_id)));
    }
    log.records.push(published(9, "p", Outcome::Acked(None)));
    let report = judge(&log);
    report.assert_clean();
    assert_eq!((report.lost_plain, report.unseen_plain), (2, 1));
    // Two who were never there at the same time say nothing about each other.
    let mut log = Log::default();
    for (name, from) in [("a", 1), ("b", 7)] {
        log.records.push(seen(name, "p", subscribed(false, false, None)));
        for pub_id in from..from + 3 {
            log.records.push(published(pub_id, "p", Outcome::Acked(None)));
            log.records.push(seen(name, "p", Event::Publication { at: None, pub_id: Some(pub_id) }));
        }
    }
    assert_eq!(judge(&log).lost_plain, 0);
}

/// The server forgets 4 to 6 and goes on at 100, twice from the same snapshot.
#[test]
fn who_saw_what_was_lost_must_be_told() {
    let told =
        [seen("b", "c", Event::Unsubscribed { code: 2500 }), seen("b", "c", subscribed(false, true, Some(at("e", 3))))];
    let (well, silent) = (rewound(&told), rewound(&[]));
    let report = judge(&well);
    report.assert_clean();
    assert_eq!((report.told, report.acked_but_lost, report.failed_recoveries), (1, 4, 1));
    assert_breaks(&judge(&silent), Rule::NoSilentLoss, "goes on over what was lost");
    // In silence, too: nothing is published after the loss.
    let quiet = |records: &[Record]| {
        let mut log = Log { records: rewound(records).records };
        let ends = |record: &Record| matches!(record, Record::Stream(_));
        log.records.retain(|record| !is_delivery(record, 100) && !is_delivery(record, 101) && !ends(record));
        log.records.push(stream("c", 3, &[(1, 0, 1), (2, 1, 2), (3, 2, 3)]));
        log
    };
    assert_breaks(&judge(&quiet(&[])), Rule::Convergence, "stands where nothing is");
    judge(&quiet(&told)).assert_clean();
    // Without the links of what was lost: they count by one.
    let mut unread = well;
    unread.records.retain(|record| !matches!(record, Record::Stream(stream) if stream.top.offset == 6));
    judge(&unread).assert_clean();
    drop(unread.records.remove(delivery(&unread.records, "b", 5)));
    assert_breaks(&judge(&unread), Rule::Contiguity, "5 was lost twice: by the server, and on its way");
}

#[test]
fn a_recovery_may_fail_for_a_reason() {
    let refused = |log: &mut Log| {
        *event(&mut log.records, "a", |event| matches!(event, Event::Subscribed { recovered: true, .. })) =
            subscribed(false, true, Some(at("e", 6)));
        for offset in 4..=6 {
            drop(log.records.remove(delivery(&log.records, "a", offset)));
        }
    };
    let mut log = streamed();
    refused(&mut log);
    assert_breaks(&log.judge(&Rules { recoverable: 3 }), Rule::NoNeedlessTelling, "three can be recovered");
    log.judge(&Rules { recoverable: 2 }).assert_clean();
    judge(&log).assert_sound();
    log.records.push(trimmed("c", 4));
    judge(&log).assert_clean();
}

#[test]
fn a_retry_with_a_key_is_one_publication() {
    let mut log = streamed();
    log.records.insert(0, published(1, "c", Outcome::Unknown));
    log.records.push(published(1, "c", Outcome::Acked(Some(at("e", 1)))));
    judge(&log).assert_clean();
}

type Mutation = fn(&mut Vec<Record>);

fn swap(records: &mut [Record]) {
    let (one, other) = (delivery(records, "b", 3), delivery(records, "b", 4));
    records.swap(one, other);
}

fn duplicate(records: &mut Vec<Record>) {
    let again = records[delivery(records, "b", 3)].clone();
    records.insert(delivery(records, "b", 5), again);
}

fn assert_breaks(report: &Report, rule: Rule, name: &str) {
    assert!(report.violations.iter().any(|violation| violation.rule == rule), "{name}: {rule:?} in {report}");
}

fn judge(log: &Log) -> Report {
    log.judge(&Rules::default())
}

/// Six publications; `a` loses its connection after the third and recovers, `b` is there all the time.
fn streamed() -> Log {
    let mut log = Log::default();
    for offset in 1..=6 {
        log.records.push(published(offset, "c", Outcome::Acked(Some(at("e", offset)))));
    }
    for name in ["a", "b"] {
        log.seen(name, "c", subscribed(false, false, Some(at("e", 0))));
        for offset in 1..=6 {
            if (name, offset) == ("a", 4) {
                log.seen(name, "c", Event::Disconnected { code: 3001 });
                log.seen(name, "c", subscribed(true, true, Some(at("e", 3))));
            }
            log.seen(name, "c", publication(offset));
        }
    }
    log.records.push(stream("c", 6, &[(1, 0, 1), (2, 1, 2), (3, 2, 3), (4, 3, 4), (5, 4, 5), (6, 5, 6)]));
    log
}

/// The same without positions.
fn plain() -> Log {
    let mut log = Log::default();
    for pub_id in 1..=6 {
        log.records.push(published(pub_id, "p", Outcome::Acked(None)));
    }
    for name in ["a", "b"] {
        log.seen(name, "p", subscribed(false, false, None));
        for pub_id in 1..=6 {
            log.seen(name, "p", Event::Publication { at: None, pub_id: Some(pub_id) });
        }
    }
    log
}

/// `b` sees 1 to 6, of which 4 to 6 are lost, and then `then`, and what came after.
fn rewound(then: &[Record]) -> Log {
    let mut log = Log::default();
    for offset in (1..=6).chain([50, 100, 101]) {
        log.records.push(published(offset, "c", Outcome::Acked(Some(at("e", offset)))));
    }
    log.records.push(stream("c", 6, &[(1, 0, 1), (2, 1, 2), (3, 2, 3), (4, 3, 4), (5, 4, 5), (6, 5, 6)]));
    log.seen("b", "c", subscribed(false, false, Some(at("e", 0))));
    (1..=6).for_each(|offset| log.seen("b", "c", publication(offset)));
    log.records.extend_from_slice(then);
    [100, 101].iter().for_each(|offset| log.seen("b", "c", publication(*offset)));
    log.records.push(stream("c", 101, &[(1, 0, 1), (2, 1, 2), (3, 2, 3), (100, 3, 100), (101, 100, 101)]));
    log
}

fn at(epoch: &str, offset: u64) -> At {
    At { epoch: epoch.into(), offset }
}

fn published(pub_id: u64, channel: &str, outcome: Outcome) -> Record {
    Record::Published(Published { pub_id, channel: channel.into(), key: Some(pub_id.to_string()), outcome })
}

fn subscribed(recovered: bool, was_recovering: bool, at: Option<At>) -> Event {
    Event::Subscribed { recovered, was_recovering, at }
}

/// The publication whose id is its offset.
fn publication(offset: u64) -> Event {
    Event::Publication { at: Some(at("e", offset)), pub_id: Some(offset) }
}

fn seen(subscriber: &str, channel: &str, event: Event) -> Record {
    Record::Seen(Seen { subscriber: subscriber.into(), channel: channel.into(), event })
}

fn stream(channel: &str, top: u64, entries: &[(u64, u64, u64)]) -> Record {
    let entries =
        entries.iter().map(|(offset, prev, pub_id)| Entry { at: at("e", *offset), prev: *prev, pub_id: *pub_id });
    Record::Stream(Stream { channel: channel.into(), top: at("e", top), entries: entries.collect() })
}

fn trimmed(channel: &str, offset: u64) -> Record {
    Record::Trimmed(Trimmed { channel: channel.into(), at: at("e", offset) })
}

fn is_delivery(record: &Record, id: u64) -> bool {
    matches!(record, Record::Seen(Seen { event: Event::Publication { pub_id: Some(pub_id), .. }, .. }) if *pub_id == id)
}

/// Where `subscriber` gets a publication.
fn delivery(records: &[Record], subscriber: &str, id: u64) -> usize {
    let wanted = |record: &Record| {
        is_delivery(record, id) && matches!(record, Record::Seen(seen) if seen.subscriber == subscriber)
    };
    records.iter().position(wanted).unwrap()
}

/// What `subscriber` saw first of a kind.
fn event<'a>(records: &'a mut [Record], subscriber: &str, wanted: fn(&Event) -> bool) -> &'a mut Event {
    let events = records.iter_mut().filter_map(|record| match record {
        Record::Seen(seen) if seen.subscriber == subscriber => Some(&mut seen.event),
        _ => None,
    });
    events.into_iter().find(|event| wanted(event)).unwrap()
}
