//! One coarse clock for all of a worker's clients, in place of a timer each.

/// Turns seconds into the clients to look at. A client stands in it once.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<u32>>,
    now: u32,
}

/// Seconds the wheel spans. What is due later is looked at in between.
const SPAN: u32 = 64;

impl Wheel {
    pub(crate) fn new() -> Self {
        // Second 0 stands for "never" elsewhere.
        Self { slots: vec![Vec::new(); SPAN as usize], now: 1 }
    }

    /// The current second.
    pub(crate) fn now(&self) -> u32 {
        self.now
    }

    /// Puts a client down for a second; returns the second at which it will really be looked at.
    pub(crate) fn add(&mut self, key: u32, second: u32) -> u32 {
        let second = second.clamp(self.now + 1, self.now + SPAN - 1);
        self.slots[(second % SPAN) as usize].push(key);
        second
    }

    /// Goes on by one second and hands out the clients put down for it.
    pub(crate) fn advance(&mut self) -> Vec<u32> {
        self.now += 1;
        std::mem::take(&mut self.slots[(self.now % SPAN) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_up_in_their_second() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.add(7, 3), 3);
        assert_eq!(wheel.add(8, 1), 2, "the past means the next second");
        assert_eq!(wheel.add(9, 1000), 64, "the far future means the end of the span");
        assert_eq!(wheel.advance(), [8]);
        assert_eq!(wheel.advance(), [7]);
        for _ in 4..64 {
            assert!(wheel.advance().is_empty());
        }
        assert_eq!(wheel.advance(), [9]);
    }
}
