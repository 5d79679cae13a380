//! Bytes that are expected next, laid out so that comparing them takes a few instructions.

/// Words of a pattern.
const WORDS: usize = 3;

/// Longest pattern in bytes: the longest key of a signal, encoded, is just as long.
pub const MAX_PATTERN: usize = WORDS * size_of::<u64>();

/// Up to [`MAX_PATTERN`] bytes.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    words: [u64; WORDS],
    masks: [u64; WORDS],
    length: usize,
}

impl Pattern {
    /// The pattern of these bytes, if they are not too many.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; MAX_PATTERN];
        let mut covered = [0; MAX_PATTERN];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        covered[..bytes.len()].fill(0xff);
        Some(Self { words: words(&padded), masks: words(&covered), length: bytes.len() })
    }

    /// What follows the pattern in `bytes`, if they start with it. Sees only patterns behind which
    /// the longest one would fit too.
    #[inline]
    #[must_use]
    pub fn strip<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let head = words(bytes.first_chunk()?);
        let differs = |at: usize| (head[at] ^ self.words[at]) & self.masks[at];
        if differs(0) | differs(1) | differs(2) != 0 {
            return None;
        }
        bytes.get(self.length..)
    }
}

#[inline]
fn words(bytes: &[u8; MAX_PATTERN]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_comparing_bytes(
            pattern in proptest::collection::vec(0..3_u8, 0..30),
            mut bytes in proptest::collection::vec(0..3_u8, 0..60),
            same in any::<bool>(),
        ) {
            if same && bytes.len() >= pattern.len() {
                bytes[..pattern.len()].copy_from_slice(&pattern);
            }
            let Some(found) = Pattern::new(&pattern) else {
                prop_assert!(pattern.len() > MAX_PATTERN);
                return Ok(());
            };
            let expected = bytes.strip_prefix(&pattern[..]).filter(|_| bytes.len() >= MAX_PATTERN);
            prop_assert_eq!(found.strip(&bytes), expected);
        }
    }
}
