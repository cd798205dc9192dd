//! Picking a backend: pure, without locks.
//!
//! Knows: places in a pool, their weights, and what a [`Field`] tells of them. Must not touch: sockets, the clock,
//! configuration. A [`Picker`] is built when a pool changes and read by every worker.
//! Read [`Picker::pick`] first.

mod estimate;
mod hash;
mod least;
mod maglev;
mod ring;
mod rota;
#[cfg(test)]
mod tests;
mod two;

pub use estimate::Estimate;
pub use hash::{Key, key_of};
pub use least::{EXACT, Least};
pub use maglev::Maglev;
pub use ring::{Bound, Ring};
pub use rota::{MOST_TURNS, Rota};
pub use two::{Score, Two};

use std::sync::atomic::AtomicU64;

/// A backend as picking knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its place in the pool.
    pub place: u32,
    /// Its id. Hashing hashes this alone, so that every program with the same ids agrees.
    pub id: String,
    /// 1 to 256.
    pub weight: u16,
}

/// How a pool picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Each in turn, whatever its weight.
    #[default]
    RoundRobin,
    /// Each in turn by weight, smoothly.
    WeightedRoundRobin,
    /// The same client address, the same backend.
    IpHash,
    /// The one with the least in flight for its weight.
    LeastConnections,
    /// The same key, the same backend; no key moves that need not.
    ConsistentHash,
    /// The same key, the same backend; shares are nearly exact, and a few keys move needlessly.
    Maglev,
    /// The one with less in flight of two taken at random.
    RandomTwo,
    /// The one that is expected to answer first of two taken at random.
    FastestResponse,
}

impl Algorithm {
    /// True for those that go by a key.
    pub fn hashes(self) -> bool {
        matches!(self, Algorithm::IpHash | Algorithm::ConsistentHash | Algorithm::Maglev)
    }
}

/// What a pick asks about places, as they are now. Implemented over the live state of backends.
pub trait Field {
    /// True when the place may be picked now: up, not tried before, not full.
    fn is_open(&self, place: u32) -> bool;
    /// Takes a place there; false when it is not open, or was filled meanwhile.
    fn take(&mut self, place: u32) -> bool;
    /// Takes a place there if so many are in flight as were `seen`. The default trusts [`Field::take`].
    fn take_from(&mut self, place: u32, seen: u32) -> Taken {
        let _ = seen;
        if self.take(place) { Taken::Yes } else { Taken::No }
    }
    /// What is in flight there.
    fn active(&self, place: u32) -> u32;
    /// The expected time to its first byte, in nanoseconds; see [`Estimate`].
    fn expected(&self, place: u32) -> f64 {
        let _ = place;
        0.0
    }
    /// The part of its weight that it bears now, more than 0 and at most 1: less than 1 while it starts slowly.
    fn ramp(&self, place: u32) -> f32 {
        let _ = place;
        1.0
    }
}

/// What became of [`Field::take_from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The place is taken.
    Yes,
    /// Somebody came or left in between; look again.
    Moved,
    /// It may not be picked.
    No,
}

/// What a pick is given besides the field.
pub struct Ask<'a> {
    /// Hash of what the client is told by; see [`key_of`]. Only the hashing algorithms read it.
    pub key: Key,
    /// Whose turn it is, shared by all threads.
    pub turn: &'a AtomicU64,
    /// Chance, of this thread.
    pub random: &'a mut fastrand::Rng,
    /// For `hash_balance`.
    pub bound: Option<Bound>,
}

/// How one tier of a pool (its primaries, or its backups) picks, built from its places.
#[derive(Debug)]
pub enum Picker {
    /// Turns.
    Rota(Rota),
    /// A ring of hashes.
    Ring(Ring),
    /// A Maglev table.
    Maglev(Maglev),
    /// Least in flight.
    Least(Least),
    /// Two choices.
    Two(Two),
}

impl Default for Picker {
    fn default() -> Self {
        Picker::Rota(Rota::default())
    }
}

impl Picker {
    /// A picker over `places`; those of weight 0 are left out.
    pub fn build(algorithm: Algorithm, places: &[Place]) -> Picker {
        let places: Vec<&Place> = places.iter().filter(|place| place.weight > 0).collect();
        let weights = || places.iter().map(|place| (place.place, place.weight)).collect::<Vec<_>>();
        match algorithm {
            Algorithm::RoundRobin => Picker::Rota(Rota::in_turn(places.iter().map(|place| place.place).collect())),
            Algorithm::WeightedRoundRobin => Picker::Rota(Rota::weighted(&weights())),
            Algorithm::ConsistentHash => Picker::Ring(Ring::build(&places)),
            Algorithm::IpHash | Algorithm::Maglev => Picker::Maglev(Maglev::build(&places)),
            Algorithm::LeastConnections => Picker::Least(Least::new(weights())),
            Algorithm::RandomTwo => Picker::Two(Two::new(weights(), Score::InFlight)),
            Algorithm::FastestResponse => Picker::Two(Two::new(weights(), Score::Expected)),
        }
    }

    /// True when it has no place.
    pub fn is_empty(&self) -> bool {
        match self {
            Picker::Rota(rota) => rota.is_empty(),
            Picker::Ring(ring) => ring.is_empty(),
            Picker::Maglev(table) => table.is_empty(),
            Picker::Least(least) => least.is_empty(),
            Picker::Two(two) => two.is_empty(),
        }
    }

    /// Each of its places once, in no order that means anything.
    pub fn places(&self) -> impl Iterator<Item = u32> + '_ {
        let (plain, weighted): (&[u32], &[(u32, u16)]) = match self {
            Picker::Rota(rota) => (rota.places(), &[]),
            Picker::Ring(ring) => (&[], ring.places()),
            Picker::Maglev(table) => (table.places(), &[]),
            Picker::Least(least) => (&[], least.places()),
            Picker::Two(two) => (&[], two.places()),
        };
        plain.iter().copied().chain(weighted.iter().map(|(place, _)| *place))
    }

    /// The place picked, and taken in `field`; `None` only when the field takes none of them.
    #[inline]
    pub fn pick<F: Field>(&self, field: &mut F, ask: &mut Ask<'_>) -> Option<u32> {
        match self {
            Picker::Rota(rota) => rota.pick_in(field, ask),
            Picker::Ring(ring) => ring.pick(field, ask),
            Picker::Maglev(table) => table.pick(field, ask),
            Picker::Least(least) => least.pick(field, ask),
            Picker::Two(two) => two.pick(field, ask),
        }
    }
}

/// True for the share `ramp` of the keys: always the same ones, and more of them as it grows.
fn is_ramped(key: Key, place: u32, ramp: f32) -> bool {
    ramp >= 1.0 || hash::spread(key, place) < ramp
}
