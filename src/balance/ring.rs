//! A ring of hashes: no key moves that need not (Karger et al., STOC 1997), and none beyond a bound when one is asked for
//! (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018).

use super::hash::point_of;
use super::{Ask, Field, Key, Place, Taken, is_ramped};

/// Points a unit of weight. With 2,048, equal backends differ from their mean by about 2 %, and the share of one of three
/// that leaves is within a hundredth of a third.
const POINTS: u64 = 2_048;
/// Points in all. A pool whose weights add up to more than this over [`POINTS`] gets half as many a unit, or a quarter:
/// only a change across such a step moves keys needlessly.
const MOST: u64 = 4 << 20;
/// Bits of a key that a ring goes by: a million equal parts, and all keys of a part follow the same point. It is the same
/// for every ring, large or small, or keys would move when a pool grows.
const PARTS: u32 = 20;
/// A ring of more points than this has a table of the parts, since it is larger than the caches near a core; the table is
/// not. It gives the same answers.
const TABLE: usize = 256 * 1024;
/// Points, on the average, from one entry of the index to the next. More make the index small, fewer the walk short.
const APART: usize = 2;
/// Looks at a place whose count moves before the next one is as good.
const LOOKS: usize = 8;
/// Points walked past before all places are looked at one by one.
const WALK: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub struct Ring {
    /// By hash.
    points: Box<[Point]>,
    /// Where the points of each equal part of the ring begin, by the high bits of a hash.
    index: Box<[u32]>,
    shift: u32,
    /// Whose each part is, in `places`. Empty: look at the points.
    parts: Box<[u16]>,
    places: Box<[(u32, u16)]>,
}

/// Eight bytes, since what a pick costs is the memory it has to fetch: with thousands of backends the ring is larger than
/// the caches near a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    /// The high half of its hash. Two in one spot are rare, and in the order of their ids.
    hash: u32,
    /// In `places`.
    at: u32,
}

/// Nobody is to hold more than a part of what is in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// How many times the mean, from 1 up.
    pub factor: f32,
    /// What is in flight at all places of the picker together, with those that are being picked just now.
    pub active: u64,
    /// The weight of those of its places that are up.
    pub weight: u64,
}

impl Bound {
    /// True when a backend of this weight may take one more.
    fn admits(&self, weight: u16, active: u32) -> bool {
        let share = f64::from(self.factor) * (self.active + 1) as f64 * f64::from(weight) / self.weight.max(1) as f64;
        f64::from(active) < share.ceil()
    }
}

impl Ring {
    /// A ring over `places`, whose ids are different.
    pub fn build(places: &[&Place]) -> Ring {
        let weight: u64 = places.iter().map(|place| u64::from(place.weight)).sum();
        let halvings = (0..9).find(|n| weight * (POINTS >> n) <= MOST).unwrap_or(9);
        let each = (POINTS >> halvings).max(1);
        let mut points = Vec::with_capacity((weight * each) as usize);
        for (at, place) in places.iter().enumerate() {
            let many = u64::from(place.weight) * each;
            points.extend((0..many).map(|n| Point { hash: high(point_of(&place.id, n as u32)), at: at as u32 }));
        }
        // Of two points in one spot the order must not depend on who stands where in the configuration.
        points.sort_unstable_by(|a, b| {
            a.hash.cmp(&b.hash).then_with(|| places[a.at as usize].id.cmp(&places[b.at as usize].id))
        });
        let bits = (points.len() / APART).max(2).ilog2();
        let shift = 32 - bits;
        let mut index = Vec::with_capacity((1 << bits) + 1);
        let mut at = 0;
        for part in 0..1u32 << bits {
            while points.get(at).is_some_and(|point| point.hash >> shift < part) {
                at += 1;
            }
            index.push(at as u32);
        }
        let places = places.iter().map(|place| (place.place, place.weight)).collect();
        let mut ring = Ring { points: points.into(), index: index.into(), shift, parts: Box::default(), places };
        if ring.points.len() > TABLE && ring.places.len() <= 1 << 16 {
            ring.parts = ring.table();
        }
        ring
    }

    /// The place of each part's first key.
    fn table(&self) -> Box<[u16]> {
        let mut at = 0;
        let part = |part: u32| {
            while self.points.get(at).is_some_and(|point| point.hash < part << (32 - PARTS)) {
                at += 1;
            }
            self.points[if at == self.points.len() { 0 } else { at }].at as u16
        };
        (0..1 << PARTS).map(part).collect()
    }

    /// Each place once, with its weight.
    pub fn places(&self) -> &[(u32, u16)] {
        &self.places
    }

    /// True when it has no place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The first point at or behind the part of the key.
    fn first(&self, key: Key) -> usize {
        let hash = part_of(key) << (32 - PARTS);
        let mut at = self.index[(hash >> self.shift) as usize] as usize;
        while self.points.get(at).is_some_and(|point| point.hash < hash) {
            at += 1;
        }
        if at == self.points.len() { 0 } else { at }
    }

    /// The place that follows the key on the ring, among those that the field takes.
    pub fn pick<F: Field>(&self, field: &mut F, ask: &mut Ask<'_>) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let mut last = None;
        if let Some(&at) = self.parts.get(part_of(ask.key) as usize) {
            let (place, weight) = self.places[usize::from(at)];
            if self.take(field, ask, place, weight) {
                return Some(place);
            }
            last = Some(u32::from(at));
        }
        let from = self.first(ask.key);
        for point in self.points[from..].iter().chain(&self.points[..from]).take(WALK) {
            if last.replace(point.at) == Some(point.at) {
                continue;
            }
            let (place, weight) = self.places[point.at as usize];
            if self.take(field, ask, place, weight) {
                return Some(place);
            }
        }
        // Most are down or full: all of them, from one that the key tells; first within the bound, then anyhow.
        let from = (ask.key.0 % self.places.len() as u64) as usize;
        let order = || self.places[from..].iter().chain(&self.places[..from]).copied();
        order()
            .find(|&(place, weight)| self.take(field, ask, place, weight))
            .or_else(|| order().find(|&(place, _)| field.take(place)))
            .map(|(place, _)| place)
    }

    /// Takes the place if it bears the key now and is within the bound.
    fn take<F: Field>(&self, field: &mut F, ask: &Ask<'_>, place: u32, weight: u16) -> bool {
        if !field.is_open(place) || !is_ramped(ask.key, place, field.ramp(place)) {
            return false;
        }
        let Some(bound) = ask.bound else { return field.take(place) };
        // Only from the count that was judged: of two threads that see the last place within the bound, one takes it.
        for _ in 0..LOOKS {
            let seen = field.active(place);
            if !bound.admits(weight, seen) {
                return false;
            }
            match field.take_from(place, seen) {
                Taken::Yes => return true,
                Taken::No => return false,
                Taken::Moved => {}
            }
        }
        false
    }
}

/// What a ring goes by of a hash.
fn high(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Where on a ring a key is.
fn part_of(key: Key) -> u32 {
    high(key.0) >> (32 - PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_answers_as_the_points_do() {
        // Weights make many points of few backends, so that the test is quick.
        let place = |place: u32| Place { place, id: format!("backend{place}"), weight: 30 + place as u16 };
        let places: Vec<Place> = (0..6).map(place).collect();
        let ring = Ring::build(&places.iter().collect::<Vec<_>>());
        assert_eq!(ring.parts.len(), 1 << PARTS, "it has a table");
        for part in (0..1u64 << PARTS).step_by(7) {
            // The last key of a part, which goes where the first one does.
            let key = Key((part + 1).wrapping_shl(64 - PARTS).wrapping_sub(1));
            assert_eq!(u32::from(ring.parts[part as usize]), ring.points[ring.first(key)].at, "part {part}");
        }
    }
}
