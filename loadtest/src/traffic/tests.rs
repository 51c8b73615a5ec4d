//! Traffic against sockets whose other ends a test holds.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::dialect::Dialect;
use crate::frames::{Carry, server_text};
use crate::mux::Idle;

/// Traffic to the subscribers of `layout` by one publisher, and the server's ends of all sockets.
fn traffic(layout: Layout) -> (Traffic, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut mux = Mux::new(Dialect::Native, Idle::Sleep).unwrap();
    let mut servers = Vec::new();
    for _ in 0..=layout.subscribers() {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        servers.push(listener.accept().unwrap().0);
        mux.add(client, Carry::default()).unwrap();
    }
    (Traffic::new(mux, layout, 1, "bench", 64), servers)
}

fn deliver(server: &mut TcpStream, channel: u64, numbers: &[u64]) {
    for number in numbers {
        let data = payload(channel * CHANNEL + number, 64);
        let push = format!(r#"{{"push":{{"channel":"bench-{channel}","pub":{{"data":{data}}}}}}}"#);
        server.write_all(&server_text(push.as_bytes())).unwrap();
    }
}

fn receive_until(traffic: &mut Traffic, deliveries: u64) -> Result<(), Error> {
    while traffic.deliveries < deliveries {
        traffic.receive(PATIENCE, &mut usize::MAX.clone())?;
    }
    Ok(())
}

#[test]
fn the_next_publication_follows_the_slowest_subscriber() {
    let (mut traffic, mut servers) = traffic(Layout::spread(2, 1));
    traffic.fill(3).unwrap();
    deliver(&mut servers[0], 0, &[1, 2, 3]);
    receive_until(&mut traffic, 3).unwrap();
    assert_eq!((traffic.in_flight, traffic.published), (3, 3));
    deliver(&mut servers[1], 0, &[1, 2]);
    receive_until(&mut traffic, 5).unwrap();
    assert_eq!((traffic.in_flight, traffic.published), (3, 5));
    deliver(&mut servers[1], 0, &[3, 4, 5]);
    deliver(&mut servers[0], 0, &[4, 5]);
    receive_until(&mut traffic, 10).unwrap();
    assert_eq!(traffic.published, 8);
    assert!(traffic.latency().quantile(1.0) > 0);
    assert_eq!((traffic.faults().lost, traffic.faults().out_of_order), (0, 0));
}

#[test]
fn channels_take_turns_and_have_numbers_of_their_own() {
    let (mut traffic, mut servers) = traffic(Layout::spread(2, 2));
    traffic.fill(3).unwrap();
    deliver(&mut servers[0], 0, &[1, 2]);
    deliver(&mut servers[1], 1, &[1]);
    receive_until(&mut traffic, 3).unwrap();
    assert_eq!((traffic.published, traffic.faults().lost), (6, 0));
}

#[test]
fn what_is_lost_repeated_or_late_is_counted_and_the_run_goes_on() {
    for (numbers, lost, out_of_order) in
        [(&[1, 3][..], 1, 0), (&[3], 2, 0), (&[1, 1, 2], 0, 1), (&[1, 3, 2], 1, 1), (&[1, 2, 1, 2, 3], 0, 2)]
    {
        let (mut traffic, mut servers) = traffic(Layout::spread(1, 1));
        traffic.fill(3).unwrap();
        deliver(&mut servers[0], 0, numbers);
        receive_until(&mut traffic, numbers.len() as u64).unwrap();
        let faults = traffic.faults();
        assert_eq!((faults.lost, faults.out_of_order), (lost, out_of_order), "{numbers:?}");
        assert!(faults.first.as_ref().unwrap().contains("subscriber 0"), "{faults:?}");
    }
}

#[test]
fn unheard_of_publications_end_the_run() {
    for (channel, number) in [(0, 4), (1, 1)] {
        let (mut traffic, mut servers) = traffic(Layout::new(1, 2, 1, |_| [0]));
        traffic.fill(1).unwrap();
        deliver(&mut servers[0], channel, &[number]);
        let outcome = receive_until(&mut traffic, 1);
        assert!(matches!(outcome, Err(Error::Failed(_))), "{channel} {number}: {outcome:?}");
    }
}

#[test]
fn a_channel_without_subscribers_is_published_to_and_not_waited_for() {
    let (mut traffic, _servers) = traffic(Layout::new(1, 2, 1, |_| [1]));
    traffic.publish(0, 0);
    assert_eq!((traffic.published, traffic.in_flight), (1, 0));
}

#[test]
fn a_schedule_counts_from_when_a_publication_was_due() {
    let (mut traffic, mut servers) = traffic(Layout::spread(1, 1));
    traffic.schedule(vec![Class::new("all", 0..1, 1_000.0)]);
    // A client that was held up for a while: what was due meanwhile is late by that much.
    let held_up = Duration::from_millis(20);
    clock::spin(held_up);
    traffic.run_for(Duration::ZERO).unwrap();
    assert!(traffic.published >= 20, "{}", traffic.published);
    assert!(traffic.late().quantile(1.0) >= clock::nanoseconds(held_up));
    deliver(&mut servers[0], 0, &[1]);
    while traffic.deliveries == 0 {
        traffic.listen(PATIENCE).unwrap();
    }
    assert!(traffic.classes()[0].latency.quantile(1.0) >= clock::nanoseconds(held_up));
}
