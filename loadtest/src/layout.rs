//! Who is subscribed to what.

/// Subscribers with the same number of subscriptions each, channels by number.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    channels: u32,
    /// Subscriptions of each subscriber.
    each: usize,
    /// The channels of subscriber `n` stand at `n * each`.
    slots: Vec<u32>,
    /// Subscribers by channel.
    audience: Vec<u32>,
}

impl Layout {
    /// A layout in which subscriber `n` has the channels of `channels_of(n)`, `each` of them.
    pub(crate) fn new<I>(subscribers: u32, channels: u32, each: u32, channels_of: impl Fn(u32) -> I) -> Self
    where
        I: IntoIterator<Item = u32>,
    {
        let each = each as usize;
        let mut slots = Vec::with_capacity(subscribers as usize * each);
        for subscriber in 0..subscribers {
            slots.extend(channels_of(subscriber).into_iter().take(each));
        }
        let mut audience = vec![0; channels as usize];
        for channel in &slots {
            audience[*channel as usize] += 1;
        }
        Self { channels, each, slots, audience }
    }

    /// One channel each, in turn.
    pub(crate) fn spread(subscribers: u32, channels: u32) -> Self {
        Self::new(subscribers, channels, 1, |subscriber| [subscriber % channels])
    }

    /// Channels.
    pub(crate) fn channels(&self) -> u32 {
        self.channels
    }

    /// Subscribers.
    pub(crate) fn subscribers(&self) -> usize {
        self.slots.len() / self.each
    }

    /// Subscriptions.
    pub(crate) fn subscriptions(&self) -> usize {
        self.slots.len()
    }

    /// The channels of a subscriber.
    pub(crate) fn channels_of(&self, subscriber: usize) -> &[u32] {
        &self.slots[subscriber * self.each..][..self.each]
    }

    /// Subscribers of a channel.
    pub(crate) fn audience(&self, channel: u32) -> u32 {
        self.audience[channel as usize]
    }

    /// The number, among all subscriptions, of this one; `None` if there is no such subscription.
    pub(crate) fn subscription(&self, subscriber: usize, channel: u32) -> Option<usize> {
        let place = self.channels_of(subscriber).iter().position(|own| *own == channel)?;
        Some(subscriber * self.each + place)
    }

    /// Lets a subscription change its channel.
    pub(crate) fn move_to(&mut self, subscription: usize, channel: u32) {
        let before = std::mem::replace(&mut self.slots[subscription], channel);
        self.audience[before as usize] -= 1;
        self.audience[channel as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_found_counted_and_moved() {
        let mut layout = Layout::new(3, 5, 2, |n| [n, 3]);
        assert_eq!((layout.subscribers(), layout.subscriptions()), (3, 6));
        assert_eq!((layout.audience(3), layout.audience(4)), (3, 0));
        assert_eq!(layout.subscription(2, 3), Some(5));
        assert_eq!(layout.subscription(2, 1), None);
        layout.move_to(5, 4);
        assert_eq!((layout.audience(3), layout.audience(4)), (2, 1));
        assert_eq!(layout.channels_of(2), [2, 4]);
    }
}
