//! The same traffic while there is more and more around it: what a publication and a delivery cost must not depend on how many
//! channels and subscriptions a server has.
//!
//! The same connections subscribe to more channels from step to step. At each step publications go to all channels in turn, and
//! then to the first ones only, so that the others are nothing but there.

use super::Bench;
use super::measured::{Pace, measure};
use crate::dialect::{Purpose, native};
use crate::error::Error;
use crate::layout::Layout;
use crate::mux::Idle;
use crate::scenario::Growth;
use crate::traffic::Traffic;

/// Subscribes in flight.
const WINDOW: u64 = 64;

pub(super) fn run(load: &Growth, bench: &mut Bench<'_>) -> Result<(), Error> {
    bench.native_only("growth")?;
    bench.warm()?;
    // A layer of channels takes one subscription of each connection.
    let layer = load.layer();
    let layers = load.channels.last().map_or(1, |channels| channels / layer);
    let layout = Layout::new(load.connections, layers * layer, layers, |n| {
        (0..layers).map(move |place| place * layer + n % layer)
    });
    let prefix = bench.client.channel.clone();
    let mut traffic = bench.open_in(&prefix, layout, 1, load.payload, Idle::Spin, Purpose::Publish)?;
    let mut made = 0;
    for &channels in &load.channels {
        bench.progress.now(format_args!("subscribing until there are {channels} channels"));
        for place in made..channels / layer {
            subscribe(place as usize, &mut traffic)?;
        }
        made = channels / layer;
        for (to, among) in [("to all in turn", channels), ("to the first", layer)] {
            traffic.publish_among(among);
            for round in 1..=load.rounds {
                bench.progress.now(format_args!("{channels} channels, {to}, round {round} of {}", load.rounds));
                let (mut run, _) = measure(&mut traffic, Pace::Window(load.window), load.seconds.0, bench)?;
                run.label = format!("{channels} channels, {to}");
                bench.note(run, traffic.faults());
            }
        }
    }
    Ok(())
}

/// Lets every connection subscribe to its channel of a layer.
fn subscribe(place: usize, traffic: &mut Traffic) -> Result<(), Error> {
    for subscriber in 0..traffic.layout().subscribers() {
        let channel = traffic.layout().channels_of(subscriber)[place];
        let command = native::subscribe(place as u64 + 2, &traffic.channel_name(channel));
        traffic.command(subscriber, &command, 1)?;
        traffic.await_replies(WINDOW)?;
    }
    traffic.await_replies(0)
}
