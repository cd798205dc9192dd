//! A secret: compared in a time that tells nothing of it, and never printed.

use std::fmt;
use std::hint::black_box;

/// A token. Shows as dots, wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// `None` when there is nothing in it: a secret that everybody knows is none.
    pub fn new(bytes: &[u8]) -> Option<Secret> {
        (!bytes.is_empty()).then(|| Secret(bytes.into()))
    }

    /// Whether `given` is the same. How long that takes depends on the length of `given` alone.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.iter().cycle();
        let differences = given.iter().zip(own).fold(0, |all, (given, own)| black_box(all | (given ^ own)));
        // Not before: a wrong length takes as long as a wrong letter.
        (differences == 0) & (given.len() == self.0.len())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_is_the_same() {
        let secret = Secret::new(b"abcabc").unwrap();
        for (given, expected) in
            [("abcabc", true), ("", false), ("abc", false), ("abcabcabc", false), ("abcabd", false), ("Abcabc", false)]
        {
            assert_eq!(secret.is(given.as_bytes()), expected, "{given:?}");
        }
        assert!(Secret::new(b"").is_none());
        assert!(!format!("{secret:?}").contains('a'));
    }
}
