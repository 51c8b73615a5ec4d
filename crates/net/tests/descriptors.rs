//! A process without free descriptors. Alone in its file: the limit is the whole process's.

mod common;

use std::fs::File;

use common::{Peer, Server, opening};
use fanwire_net::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn connections_wait_until_there_are_descriptors() {
    let server = Server::echo(Limits::default());
    let mut neighbour = Peer::open(&server);
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum }).unwrap();
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();

    // The last one is the peer's own; the server has none for its end.
    taken.pop();
    let mut peer = Peer::connect(&server);
    peer.send(opening("/", ""));
    for _ in 0..100 {
        neighbour.echo("still here");
    }

    drop(taken);
    assert!(peer.head().starts_with("HTTP/1.1 101 "));
    peer.echo("at last");
}
