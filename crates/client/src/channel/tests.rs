use super::*;
use bytes::Bytes;

/// A subscription whose queue holds `room` events.
fn channel(room: usize, since: Option<Position>) -> (Channel, mpsc::Receiver<Event>, Arc<Shared>) {
    let (sender, events) = mpsc::channel(room);
    let shared = Arc::<Shared>::default();
    let subscribe = Subscribe { since, ..Subscribe::new("a") };
    (Channel::new(1, subscribe, sender, Arc::clone(&shared)), events, shared)
}

fn at(offset: u64, epoch: &str) -> Position {
    Position { offset, epoch: epoch.to_owned() }
}

fn publication(offset: u64) -> proto::Publication {
    proto::Publication { data: Bytes::from(offset.to_string()), offset, ..proto::Publication::default() }
}

fn result(offset: u64, epoch: &str) -> proto::SubscribeResult {
    proto::SubscribeResult {
        positioned: true,
        recoverable: true,
        offset,
        epoch: epoch.to_owned(),
        ..proto::SubscribeResult::default()
    }
}

/// What is in the queue, in short.
fn taken(events: &mut mpsc::Receiver<Event>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(match event {
            Event::Subscribed(now) => format!("{:?} {}", now.recovery, now.position.map_or(0, |at| at.offset)),
            Event::Publication(one) => format!("{:?}", one.position.map(|at| at.offset)),
            Event::Interrupted(_) => "interrupted".to_owned(),
            other => format!("{other:?}"),
        });
    }
    seen
}

#[test]
fn it_goes_on_where_it_was() {
    let (mut channel, mut events, _) = channel(16, None);
    assert!(!channel.request().recover);
    assert!(channel.confirmed(result(5, "e")));
    assert!(channel.published(publication(6)));
    channel.interrupted(&Arc::new(Error::NotConnected));
    let request = channel.request();
    assert_eq!((request.recover, request.offset, &*request.epoch), (true, 6, "e"));
    let recovered = proto::SubscribeResult {
        was_recovering: true,
        recovered: true,
        publications: vec![publication(7), publication(9)],
        ..result(6, "e")
    };
    assert!(channel.confirmed(recovered));
    assert_eq!(taken(&mut events), ["Fresh 5", "Some(6)", "interrupted", "Whole 6", "Some(7)", "Some(9)"]);
    assert_eq!(channel.request().offset, 9);
}

#[test]
fn nothing_comes_twice() {
    let (mut channel, mut events, _) = channel(16, None);
    assert!(channel.confirmed(result(5, "e")));
    for offset in [6, 6, 5, 7, 6] {
        assert!(channel.published(publication(offset)));
    }
    assert_eq!(taken(&mut events), ["Fresh 5", "Some(6)", "Some(7)"]);
}

#[test]
fn a_loss_is_told() {
    let (mut channel, mut events, _) = channel(16, Some(at(3, "old")));
    assert!(channel.confirmed(proto::SubscribeResult { was_recovering: true, ..result(9, "new") }));
    assert_eq!(channel.request().epoch, "new");
    // A channel that keeps nothing any more.
    channel.interrupted(&Arc::new(Error::NotConnected));
    assert!(channel.confirmed(proto::SubscribeResult::default()));
    assert!(!channel.request().recover);
    assert_eq!(taken(&mut events), ["Lost 9", "interrupted", "Lost 0"]);
}

#[test]
fn what_was_published_past_the_history_moves_nothing() {
    let (mut channel, mut events, _) = channel(16, None);
    assert!(channel.confirmed(result(5, "e")));
    assert!(channel.published(publication(0)));
    assert_eq!(channel.request().offset, 5);
    assert_eq!(taken(&mut events), ["Fresh 5", "None"]);
}

#[test]
fn a_full_queue_ends_at_what_fitted() {
    let (mut channel, mut events, shared) = channel(3, None);
    assert!(channel.confirmed(result(0, "e")));
    assert!(channel.published(publication(1)) && channel.published(publication(2)));
    assert!(!channel.published(publication(3)));
    assert_eq!(channel.state, State::Lagging);
    assert!(shared.lagging.load(Ordering::Acquire));
    // Not even if there is room: it has not been asked for again.
    assert_eq!(taken(&mut events), ["Fresh 0", "Some(1)", "Some(2)"]);
    assert!(!channel.push(Event::Interrupted(Arc::new(Error::Slow))));
    channel.interrupted(&Arc::new(Error::NotConnected));
    assert_eq!((channel.state, channel.request().offset), (State::Lagging, 2));
}

#[test]
fn a_confirmation_that_does_not_fit_is_asked_for_again() {
    let (mut channel, mut events, _) = channel(1, Some(at(3, "old")));
    assert!(channel.push(Event::Interrupted(Arc::new(Error::NotConnected))));
    let lost = proto::SubscribeResult { was_recovering: true, ..result(9, "new") };
    assert!(!channel.confirmed(lost.clone()));
    assert_eq!(channel.request().epoch, "old");
    assert_eq!(taken(&mut events), ["interrupted"]);
    channel.state = State::Asked(2);
    assert!(channel.confirmed(lost));
    assert_eq!(taken(&mut events), ["Lost 9"]);
}
