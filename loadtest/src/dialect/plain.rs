//! Bare payloads: a frame is a publication. Whatever else comes answers a publisher.
//!
//! There is no answer to subscribing. The upgrade's has to do: a publication that a server gives only to those whom it
//! subscribed later is missed, and the measurement fails.

use super::numbers::{Numbers, is_payload};
use crate::frames::{Fault, Tally};

pub(super) fn read(payload: &[u8], numbers: &mut Numbers, tally: &mut Tally) -> Result<(), Fault> {
    if is_payload(payload) {
        tally.publication(numbers.read(payload)?);
    } else {
        tally.replies += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Dialect::Plain;
    use super::super::numbers::payload;
    use super::super::testing::scan_split;
    use crate::frames::{NumberRun, Tally, server_text};

    #[test]
    fn payloads_are_told_from_answers() {
        let mut stream = server_text(b"queued messages: 1\r\n");
        for number in 4..7 {
            stream.extend(server_text(payload(number, 60).as_bytes()));
        }
        scan_split(
            Plain,
            &stream,
            &Tally { runs: vec![NumberRun { first: 4, count: 3 }], replies: 1, ..Tally::default() },
        );
    }
}
