//! One hash for everything that several programs must agree on: XXH3 with a fixed seed.

use twox_hash::XxHash3_64;

/// Fixed for ever: a change moves every key of every user.
const SEED: u64 = 0x6c34_6c62_0000_0001;

/// The hash of what a client is told by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key(pub u64);

/// The key of some bytes: an address, a path, a header's value.
#[inline]
pub fn key_of(bytes: &[u8]) -> Key {
    Key(XxHash3_64::oneshot_with_seed(SEED, bytes))
}

/// The point number `point` of the backend `id`.
pub(super) fn point_of(id: &str, point: u32) -> u64 {
    mix(key_of(id.as_bytes()).0 ^ mix(u64::from(point) + 1))
}

/// A number from 0 to 1 for a key at a place, independent of where the key falls.
pub(super) fn spread(key: Key, place: u32) -> f32 {
    (mix(key.0 ^ mix(u64::from(place) ^ SEED)) >> 40) as f32 / (1u64 << 24) as f32
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit in moves every bit out.
pub(super) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_what_they_were_in_every_release() {
        // A change of these moves every key of every user.
        let found = [key_of(b"").0, key_of(b"192.0.2.1").0, point_of("backend1", 0), point_of("backend1", 511)];
        assert_eq!(found, KNOWN);
    }

    const KNOWN: [u64; 4] =
        [9_585_162_385_903_623_826, 17_349_062_596_614_061_875, 11_438_683_731_927_067_990, 10_680_190_975_442_216_093];
}
