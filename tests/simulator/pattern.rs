//! Bytes that tell where they belong: which stream, and which place in it.

use l4lb::link::scripted::Dice;
use std::sync::LazyLock;

/// A prime, so that no loss of a round number of bytes goes unseen.
const PERIOD: usize = 65_521;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dice = Dice::new(0x006c_346c_6200);
    (0..PERIOD).map(|_| dice.roll() as u8).collect()
});

/// A stream of bytes, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) u64);

impl Pattern {
    fn place(self, at: u64) -> usize {
        ((self.0.wrapping_mul(40_503) % PERIOD as u64 + at) % PERIOD as u64) as usize
    }

    /// The bytes from `at` on.
    pub(crate) fn bytes(self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let from = self.place(at + bytes.len() as u64);
            let to = PERIOD.min(from + count - bytes.len());
            bytes.extend_from_slice(&TABLE[from..to]);
        }
        bytes
    }

    /// True when `bytes` are those from `at` on.
    pub(crate) fn holds(self, at: u64, bytes: &[u8]) -> bool {
        self.bytes(at, bytes.len()) == bytes
    }
}
