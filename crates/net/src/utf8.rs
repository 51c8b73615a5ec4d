//! UTF-8 that comes in pieces.

use fanwire_wire::Disconnect;

/// Checks a text that comes in pieces, and complains at the first byte that cannot be right.
#[derive(Debug, Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character whose rest has not come.
    begun: [u8; 4],
    len: usize,
}

impl Utf8 {
    /// Checks the next piece.
    pub(crate) fn check(&mut self, mut piece: &[u8]) -> Result<(), Disconnect> {
        while self.len > 0 {
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.begun[self.len] = *byte;
            self.len += 1;
            match std::str::from_utf8(&self.begun[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Disconnect::InvalidPayload),
            }
        }
        let Err(error) = simdutf8::compat::from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Disconnect::InvalidPayload);
        }
        let begun = &piece[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = begun.len();
        Ok(())
    }

    /// Checks that the text may end here.
    pub(crate) fn finish(&self) -> Result<(), Disconnect> {
        if self.len == 0 { Ok(()) } else { Err(Disconnect::InvalidPayload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_whole_text(text in texts(), cuts in prop::collection::vec(0_usize..40, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut utf8 = Utf8::default();
            let mut from = 0;
            let mut verdict = Ok(());
            for to in cuts {
                verdict = verdict.and_then(|()| utf8.check(&text[from..to]));
                from = to;
            }
            verdict = verdict.and_then(|()| utf8.finish());
            prop_assert_eq!(verdict.is_ok(), std::str::from_utf8(&text).is_ok());
        }

        #[test]
        fn complains_at_the_first_wrong_byte(text in texts()) {
            let mut utf8 = Utf8::default();
            let complained = text.iter().position(|byte| utf8.check(&[*byte]).is_err());
            // A beginning is good if it is UTF-8 up to a character that may go on.
            let good = |end: &usize| std::str::from_utf8(&text[..*end]).is_ok_and(|_| true)
                || std::str::from_utf8(&text[..*end]).is_err_and(|error| error.error_len().is_none());
            let first_bad = (1..=text.len()).find(|end| !good(end)).map(|end| end - 1);
            prop_assert_eq!(complained, first_bad);
        }
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "\\PC{0,4}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..4),
            Just(vec![0xED, 0xA0, 0x80]),
            Just(vec![0xF4, 0x90, 0x80, 0x80]),
            Just(vec![0xF0, 0x9F, 0x98]),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }
}
