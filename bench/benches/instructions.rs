//! How many instructions the hot paths take, and how many they may.
//!
//! `./test instructions` runs this under Valgrind and fails where a path takes more than its budget: four percent above what
//! it took when the budget was written down, because hash seeds and allocators move a little. Whoever makes a path cheaper
//! lowers its budget in the same commit; whoever needs more says why.
#![allow(missing_docs, unused_qualifications, reason = "the macros make them")]

use std::hint::black_box;
use std::ops::Range;

use bytes::BytesMut;
use fanwire_bench::{Encoding, Gap, Stage, broadcast, client_frames, publication};
use fanwire_net::Reader;
use fanwire_node::Session;
use fanwire_node::protocol::Opening;
use fanwire_wire::Broadcast;
use fanwire_wire::cluster::Envelope;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};

/// At most so many instructions.
fn budget(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

fn session(encoding: Encoding) -> (Box<dyn Session>, Broadcast, BytesMut) {
    let opening = Opening { query: encoding.query().to_owned(), ..Opening::default() };
    let accepted = encoding.protocol().accept(&opening).expect("a known query");
    (accepted.session, broadcast(), BytesMut::with_capacity(64 * 1024))
}

// One publication becomes a frame, a hundred times.
#[library_benchmark(setup = session)]
#[bench::json(args = (Encoding::Json), config = budget(190_000))]
#[bench::protobuf(args = (Encoding::Protobuf), config = budget(310_000))]
#[bench::plain(args = (Encoding::Plain), config = budget(18_200))]
fn encode((session, broadcast, mut out): (Box<dyn Session>, Broadcast, BytesMut)) -> usize {
    for _ in 0..100 {
        session.encoder().encode(black_box(&broadcast), &mut out).expect("JSON fits everywhere");
    }
    out.len()
}

fn channel_of(subscribers: usize, history: usize) -> Stage {
    let stage = Stage::new(history).subscribers(subscribers, 1);
    // What the first publication makes is not the path.
    stage.publish("bench0", 1);
    stage
}

// Publications of one turn reach a thousand subscribers, from the broker to the sockets.
#[library_benchmark(setup = channel_of)]
#[bench::one(args = (1_000, 0), config = budget(247_000))]
#[bench::one_of_a_stream(args = (1_000, 1_000), config = budget(248_000))]
fn deliver(stage: Stage) -> Stage {
    stage.publish("bench0", 1);
    stage
}

// The same with sixteen publications: they leave in one write.
#[library_benchmark(setup = channel_of)]
#[bench::sixteen(args = (1_000, 0), config = budget(330_000))]
#[bench::sixteen_of_a_stream(args = (1_000, 1_000), config = budget(345_000))]
fn deliver_a_turn(stage: Stage) -> Stage {
    stage.publish("bench0", 16);
    stage
}

// A client's command: read, permitted, published, answered, delivered to its one subscriber.
#[library_benchmark(setup = channel_of)]
#[bench::one(args = (1, 0), config = budget(45_100))]
fn publish_command(stage: Stage) -> Stage {
    stage.publish_as(0, "bench0");
    stage
}

fn crowd(subscriptions: usize, channels: usize) -> Stage {
    let stage = Stage::new(0).subscribers(subscriptions, channels);
    stage.subscribe(0, "warm");
    stage.unsubscribe(0, "warm");
    stage
}

// A subscription begins and ends among others: in a channel of its own, and in one with many.
#[library_benchmark(setup = crowd)]
#[bench::among_ten_channels(args = (2_000, 10), config = budget(57_100))]
#[bench::among_a_thousand_channels(args = (2_000, 1_000), config = budget(56_600))]
fn subscribe_and_leave(stage: Stage) -> Stage {
    stage.subscribe(0, "other");
    stage.unsubscribe(0, "other");
    stage
}

fn missed(count: usize, clients: usize) -> (Stage, Range<usize>, String) {
    let mut stage = Stage::new(1_000).subscribers(1, 1);
    (0..clients).for_each(|_| stage.connect());
    let epoch = stage.publish("bench0", count).expect("the channel keeps a stream");
    (stage, 1..1 + clients, epoch)
}

// Clients come back to a channel and get what they missed: one alone, and eleven after one another.
#[library_benchmark(setup = missed)]
#[bench::fifty(args = (50, 1), config = budget(88_600))]
#[bench::fifty_for_eleven(args = (50, 11), config = budget(366_800))]
fn resume((stage, clients, epoch): (Stage, Range<usize>, String)) -> Stage {
    stage.resume(clients, "bench0", &epoch, 0);
    stage
}

fn reader(frames: usize) -> (Reader, Vec<u8>) {
    let mut reader = Reader::default();
    // The decoder is made with the first frame.
    reader.read(&client_frames(1)).expect("a frame that is allowed");
    (reader, client_frames(frames))
}

// What a client sends becomes messages: inspected, unmasked, checked.
#[library_benchmark(setup = reader)]
#[bench::a_hundred_frames(args = (100), config = budget(193_400))]
fn read((mut reader, bytes): (Reader, Vec<u8>)) -> usize {
    reader.read(black_box(&bytes)).expect("frames that are allowed")
}

// What is missing before a publication is read, merged and dispatched, once for a channel.
#[library_benchmark(setup = Gap::new)]
#[bench::fifty_missing(args = (50), config = budget(22_700))]
fn repair(gap: Gap) -> Gap {
    gap.repair();
    gap
}

// What travels between nodes, there and back.
#[library_benchmark]
#[bench::publication(config = budget(6_700))]
fn envelope() -> Envelope {
    let envelope = Envelope::Broadcast(Broadcast::Publication(publication()));
    let bytes = black_box(&envelope).encode();
    Envelope::decode(black_box(bytes)).expect("what was encoded")
}

library_benchmark_group!(
    name = paths,
    benchmarks =
        [encode, deliver, deliver_a_turn, publish_command, subscribe_and_leave, resume, read, repair, envelope]
);

main!(library_benchmark_groups = paths);
