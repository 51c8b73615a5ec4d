//! Random names.

/// A random UUID (RFC 9562 §5.4).
pub(crate) fn random() -> [u8; 16] {
    let mut id = [0; 16];
    fill(&mut id);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

/// The usual text form of a UUID.
pub(crate) fn format(id: &[u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (index, byte) in id.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
    text
}

/// Reads that form.
pub(crate) fn parse(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|char| *char != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    Some(number.to_be_bytes()).filter(|id| format(id) == text)
}

/// A short random word of letters and digits that tells one life of a stream from another.
pub(crate) fn epoch() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
    let mut word = [0; 10];
    fill(&mut word);
    word.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// A random number from 0 to 1.
pub(crate) fn share() -> f64 {
    let mut bytes = [0; 4];
    fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// A node without a source of randomness must not hand out ids that repeat.
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system's source of randomness answers");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_form() {
        let text = format(&random());
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert_ne!(random(), random());
        assert_eq!(epoch().len(), 10);
    }
}
