//! What an application does: something for everybody now and then, groups that talk, and a lot for one connection each.

use super::Bench;
use super::measured::{Pace, measure};
use crate::dialect::{Purpose, native};
use crate::error::Error;
use crate::figure::Figure;
use crate::layout::Layout;
use crate::mux::Idle;
use crate::outcome::Run;
use crate::scenario::Mixed;
use crate::traffic::{Class, Faults};

pub(super) fn run(load: &Mixed, bench: &mut Bench<'_>) -> Result<(), Error> {
    bench.native_only("mixed")?;
    for round in 1..=load.rounds {
        bench.progress.now(format_args!("round {round} of {}", load.rounds));
        round_of(load, bench)?;
    }
    Ok(())
}

fn round_of(load: &Mixed, bench: &mut Bench<'_>) -> Result<(), Error> {
    let direct = 1 + load.groups;
    let channels = direct + load.subscribers;
    let layout = Layout::new(load.subscribers, channels, 3, |n| [0, 1 + n % load.groups, direct + n]);
    let prefix = bench.client.channel.clone();
    let mut traffic = bench.open_in(&prefix, layout, 1, load.payload, Idle::Sleep, Purpose::Publish)?;
    for subscriber in 0..load.subscribers as usize {
        for place in 0..3 {
            let channel = traffic.layout().channels_of(subscriber)[place];
            let command = native::subscribe(2 + place as u64, &traffic.channel_name(channel));
            traffic.command(subscriber, &command, 1)?;
        }
    }
    traffic.await_replies(0)?;

    let classes = vec![
        Class::new("broadcast", 0..1, load.broadcast_rate),
        Class::new("groups", 1..direct, load.group_rate),
        Class::new("direct", direct..channels, load.direct_rate),
    ];
    let (mut run, _) = measure(&mut traffic, Pace::Schedule(classes), load.seconds.0, bench)?;
    run.label = "all".to_owned();
    bench.note(run, traffic.faults());
    for class in traffic.classes() {
        let mut run = Run::new(class.name.clone());
        run.set_latencies(&class.latency);
        run.set(Figure::PublicationsPerSecond, class.rate);
        bench.note(run, &Faults::default());
    }
    Ok(())
}
