//! Data that carries a number, and finding that number in whatever a server wraps around the data.

use memchr::memmem;

use crate::frames::{Fault, Tally, text};

/// The shortest data that [`payload`] can make.
pub(crate) const MIN_PAYLOAD: u32 = 35;

const MARK: &[u8] = br#"{"seq":""#;
const DIGITS: usize = 16;

/// Publication data of exactly `size` bytes that carries `sequence`.
pub(crate) fn payload(sequence: u64, size: u32) -> String {
    let padding = "x".repeat(size.saturating_sub(MIN_PAYLOAD) as usize);
    format!(r#"{{"seq":"{sequence:016}","pad":"{padding}"}}"#)
}

/// Whether a message is such data, with nothing around it.
pub(super) fn is_payload(message: &[u8]) -> bool {
    message.starts_with(MARK)
}

/// Reads numbers, first at the place in the message where the last one stood.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    at: usize,
}

impl Numbers {
    /// Whether a number stands where the last one did.
    pub(super) fn at_usual_place(&self, message: &[u8]) -> bool {
        message.get(self.at..).is_some_and(is_payload)
    }

    /// The number of the publication that `message` is.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<u64, Fault> {
        let foreign = || Fault::Unexpected(text(message));
        if !self.at_usual_place(message) {
            self.at = memmem::find(message, MARK).ok_or_else(foreign)?;
        }
        digits(&message[self.at + MARK.len()..]).ok_or_else(foreign)
    }

    /// Counts all publications that `message` holds.
    pub(super) fn read_all(&self, message: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for at in memmem::find_iter(message, MARK) {
            let number = digits(&message[at + MARK.len()..]).ok_or_else(|| Fault::Unexpected(text(message)))?;
            tally.publication(number);
        }
        Ok(())
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.get(..DIGITS).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_size() {
        for size in [MIN_PAYLOAD, 36, 128, 60_000] {
            assert_eq!(payload(12, size).len(), size as usize);
        }
    }

    #[test]
    fn a_number_is_found_wherever_it_stands() {
        let mut numbers = Numbers::default();
        for (around, sequence) in [("", 1), ("some text ", 2), ("some text ", 3), ("x", u64::MAX / 2_000)] {
            let message = format!("{around}{}", payload(sequence, 60));
            assert_eq!(numbers.read(message.as_bytes()), Ok(sequence));
        }
        assert!(numbers.read(br#"{"seq":"12"}"#).is_err());
        assert!(numbers.read(b"").is_err());
    }
}
