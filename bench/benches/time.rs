//! How long the hot paths take: `cargo bench -p fanwire-bench --bench time`, on a quiet machine.
#![allow(missing_docs, unused_qualifications, reason = "the macros make them")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fanwire_bench::{Encoding, Gap, Stage, broadcast, client_frames, publication};
use fanwire_net::Reader;
use fanwire_node::protocol::Opening;
use fanwire_wire::Broadcast;
use fanwire_wire::cluster::Envelope;

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for encoding in [Encoding::Json, Encoding::Protobuf, Encoding::Plain] {
        let opening = Opening { query: encoding.query().to_owned(), ..Opening::default() };
        let session = encoding.protocol().accept(&opening).expect("a known query").session;
        let broadcast = broadcast();
        let mut out = BytesMut::with_capacity(64 * 1024);
        group.bench_function(format!("{encoding:?}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                session.encoder().encode(black_box(&broadcast), &mut out).expect("JSON fits everywhere");
                out.len()
            });
        });
    }
}

fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deliver");
    for (name, history) in [("plain", 0), ("stream", 1_000)] {
        let stage = Stage::new(history).subscribers(1_000, 1);
        for turn in [1, 16, 64] {
            group.throughput(Throughput::Elements(1_000 * turn as u64));
            group.bench_function(format!("{name}/{turn}"), |bencher| {
                bencher.iter(|| stage.publish("bench0", turn));
            });
        }
    }
}

fn command(criterion: &mut Criterion) {
    let stage = Stage::new(0).subscribers(1, 1);
    criterion.bench_function("publish_command", |bencher| bencher.iter(|| stage.publish_as(0, "bench0")));
}

fn subscribe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscribe_and_leave");
    // A client has at most so many subscriptions: the million is spread over many of them.
    for (subscriptions, clients) in [(10_000, 100), (1_000_000, 10_000)] {
        let mut stage = Stage::new(0);
        for number in 0..clients {
            stage.connect();
            for of_client in 0..subscriptions / clients {
                stage.subscribe(number, &format!("channel{}", (number * 7 + of_client * 31) % (subscriptions / 10)));
            }
        }
        group.bench_function(format!("among {subscriptions}"), |bencher| {
            bencher.iter(|| {
                stage.subscribe(0, "other");
                stage.unsubscribe(0, "other");
            });
        });
    }
}

fn resume(criterion: &mut Criterion) {
    criterion.bench_function("resume/50", |bencher| {
        let mut stage = Stage::new(1_000).subscribers(1, 1);
        stage.connect();
        let epoch = stage.publish("bench0", 50).expect("the channel keeps a stream");
        bencher.iter(|| {
            stage.resume(1..2, "bench0", &epoch, 0);
            stage.unsubscribe(1, "bench0");
        });
    });
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for frames in [1, 16] {
        let (bytes, mut reader) = (client_frames(frames), Reader::default());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("{frames} frames"), |bencher| bencher.iter(|| reader.read(black_box(&bytes))));
    }
}

fn repair(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("repair");
    for missing in [1, 50, 500] {
        group.throughput(Throughput::Elements(missing));
        group.bench_function(format!("{missing} missing"), |bencher| {
            bencher.iter_batched(|| Gap::new(missing), |gap| gap.repair(), BatchSize::PerIteration);
        });
    }
}

fn envelope(criterion: &mut Criterion) {
    let envelope = Envelope::Broadcast(Broadcast::Publication(publication()));
    criterion.bench_function("envelope/encode", |bencher| bencher.iter(|| black_box(&envelope).encode()));
    let bytes = envelope.encode();
    criterion.bench_function("envelope/decode", |bencher| {
        bencher.iter_batched(|| bytes.clone(), |bytes| Envelope::decode(black_box(bytes)), BatchSize::SmallInput);
    });
}

criterion_group!(paths, encode, deliver, command, subscribe, resume, read, repair, envelope);
criterion_main!(paths);
