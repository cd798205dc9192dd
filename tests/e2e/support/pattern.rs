//! Bytes that say where they belong: any byte lost, added, doubled or swapped shows.

/// An endless stream of bytes, another one for each seed. The byte at a position depends on seed and position alone.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    pub seed: u64,
}

impl Pattern {
    fn word(self, index: u64) -> [u8; 8] {
        // splitmix64's finisher: cheap, and no two words in a row look alike
        let mut x = (index ^ self.seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (x ^ (x >> 27)).to_le_bytes()
    }

    /// Fills `buf` with what stands at `at`.
    pub fn fill(self, at: u64, buf: &mut [u8]) {
        let (mut position, mut rest) = (at, buf);
        while !rest.is_empty() {
            let skip = (position % 8) as usize;
            let word = &self.word(position / 8)[skip..];
            let n = word.len().min(rest.len());
            rest[..n].copy_from_slice(&word[..n]);
            position += n as u64;
            rest = &mut rest[n..];
        }
    }

    /// `len` bytes from `at` on.
    pub fn bytes(self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(at, &mut bytes);
        bytes
    }

    /// Fails unless `found` is what stands at `at`.
    pub fn check(self, at: u64, found: &[u8]) {
        let expected = self.bytes(at, found.len());
        if let Some(off) = (0..found.len()).find(|&i| found[i] != expected[i]).filter(|_| expected != found) {
            panic!("byte {} of the stream is {:#x} and should be {:#x}", at + off as u64, found[off], expected[off]);
        }
    }
}

/// A checksum over a stream, taken piece by piece (FNV-1a over words, the tail padded).
#[derive(Clone, Debug, PartialEq)]
pub struct Checksum {
    state: u64,
    tail: Vec<u8>,
    pub bytes: u64,
}

impl Checksum {
    pub fn new() -> Self {
        Checksum { state: 0xcbf2_9ce4_8422_2325, tail: Vec::new(), bytes: 0 }
    }

    pub fn add(&mut self, mut piece: &[u8]) {
        self.bytes += piece.len() as u64;
        while !self.tail.is_empty() && self.tail.len() < 8 && !piece.is_empty() {
            self.tail.push(piece[0]);
            piece = &piece[1..];
        }
        if self.tail.len() == 8 {
            let word = std::mem::take(&mut self.tail);
            self.mix(&word);
        }
        if self.tail.is_empty() {
            let (words, tail) = piece.as_chunks::<8>();
            for word in words {
                self.mix(word);
            }
            self.tail = tail.to_vec();
        }
    }

    fn mix(&mut self, word: &[u8]) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        self.state = (self.state ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}

#[test]
fn a_pattern_shows_a_byte_that_is_out_of_place() {
    let pattern = Pattern { seed: 7 };
    pattern.check(13, &pattern.bytes(13, 1000));
    for (why, found) in [
        ("one byte early", pattern.bytes(12, 1000)),
        ("a word early", pattern.bytes(5, 1000)),
        ("another stream", Pattern { seed: 8 }.bytes(13, 1000)),
        ("the last byte is wrong", {
            let mut bytes = pattern.bytes(13, 1000);
            bytes[999] ^= 1;
            bytes
        }),
    ] {
        assert!(std::panic::catch_unwind(|| pattern.check(13, &found)).is_err(), "{why}");
    }
}

#[test]
fn a_checksum_does_not_depend_on_how_the_stream_was_cut() {
    let bytes = Pattern { seed: 1 }.bytes(0, 1001);
    let mut whole = Checksum::new();
    whole.add(&bytes);
    for cut in [1, 2, 3, 5, 8, 13, 64, 999] {
        let mut pieces = Checksum::new();
        bytes.chunks(cut).for_each(|piece| pieces.add(piece));
        assert_eq!(pieces, whole, "cut every {cut} bytes");
    }
}
