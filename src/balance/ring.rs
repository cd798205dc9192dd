//! A ring of hashes: no key moves that need not (Karger et al., STOC 1997), and none beyond a bound when one is asked for
//! (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018).

use super::hash::point_of;
use super::{Ask, Field, Place, is_ramped};

/// Points a unit of weight. With 512, ten equal backends differ by about 5 %.
const POINTS: u64 = 512;
/// Points in all. A pool whose weights add up to more than this over [`POINTS`] gets half as many a unit, or a quarter:
/// only a change across such a step moves keys needlessly.
const MOST: u64 = 4 << 20;
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
    places: Box<[(u32, u16)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u64,
    /// In `places`.
    at: u32,
}

/// Nobody is to hold more than a part of what is in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// How many times the mean, from 1 up.
    pub factor: f32,
    /// What is in flight at all backends together.
    pub active: u64,
    /// The weight of those that are up.
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
            points.extend((0..many).map(|n| Point { hash: point_of(&place.id, n as u32), at: at as u32 }));
        }
        // Of two points in one spot the order must not depend on who stands where in the configuration.
        points.sort_unstable_by(|a, b| {
            a.hash.cmp(&b.hash).then_with(|| places[a.at as usize].id.cmp(&places[b.at as usize].id))
        });
        let bits = (points.len().max(2)).ilog2();
        let shift = 64 - bits;
        let mut index = Vec::with_capacity((1 << bits) + 1);
        let mut at = 0;
        for part in 0..1u64 << bits {
            while points.get(at).is_some_and(|point| point.hash >> shift < part) {
                at += 1;
            }
            index.push(at as u32);
        }
        let places = places.iter().map(|place| (place.place, place.weight)).collect();
        Ring { points: points.into(), index: index.into(), shift, places }
    }

    /// Each place once, with its weight.
    pub fn places(&self) -> &[(u32, u16)] {
        &self.places
    }

    /// True when it has no place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The first point at or behind `hash`.
    fn first(&self, hash: u64) -> usize {
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
        let from = self.first(ask.key.0);
        let mut last = None;
        for point in self.points[from..].iter().chain(&self.points[..from]).take(WALK) {
            if last.replace(point.at) == Some(point.at) {
                continue;
            }
            let (place, weight) = self.places[point.at as usize];
            if self.would_take(field, ask, place, weight) && field.take(place) {
                return Some(place);
            }
        }
        // Most are down or full: all of them, from one that the key tells; first within the bound, then anyhow.
        let from = (ask.key.0 % self.places.len() as u64) as usize;
        let order = || self.places[from..].iter().chain(&self.places[..from]).copied();
        order()
            .find(|&(place, weight)| self.would_take(field, ask, place, weight) && field.take(place))
            .or_else(|| order().find(|&(place, _)| field.take(place)))
            .map(|(place, _)| place)
    }

    fn would_take<F: Field>(&self, field: &F, ask: &Ask<'_>, place: u32, weight: u16) -> bool {
        field.is_open(place)
            && is_ramped(ask.key, place, field.ramp(place))
            && ask.bound.is_none_or(|bound| bound.admits(weight, field.active(place)))
    }
}
