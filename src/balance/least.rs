//! The backend with the least in flight for its weight.

use super::{Ask, Field, Taken};

/// Up to so many places all are looked at; beyond, a sample.
pub const EXACT: usize = 64;
/// Places looked at of more than [`EXACT`].
const SAMPLE: usize = 16;
/// Looks at all places before the next best is good enough.
const LOOKS: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Least {
    places: Box<[(u32, u16)]>,
}

impl Least {
    /// Over places and weights.
    pub fn new(places: Vec<(u32, u16)>) -> Least {
        Least { places: places.into() }
    }

    /// Each place once, with its weight.
    pub fn places(&self) -> &[(u32, u16)] {
        &self.places
    }

    /// True when it has no place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The open place with the least in flight for its weight, the next one in turn where several have the same. Exact over
    /// all threads: the place is taken only if what is in flight is still what was seen, else all are looked at again.
    pub fn pick<F: Field>(&self, field: &mut F, ask: &mut Ask<'_>) -> Option<u32> {
        let n = self.places.len();
        if n == 0 {
            return None;
        }
        let turn = ask.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if n > EXACT {
            for _ in 0..LOOKS {
                let random = &mut *ask.random;
                let sample = (0..SAMPLE).map(|_| self.places[random.usize(..n)]);
                let Some((place, seen)) = best(field, sample) else { break };
                if field.take_from(place, seen) == Taken::Yes {
                    return Some(place);
                }
            }
        } else {
            for _ in 0..LOOKS {
                let Some((place, seen)) = best(field, self.from((turn % n as u64) as usize)) else { break };
                if field.take_from(place, seen) == Taken::Yes {
                    return Some(place);
                }
            }
        }
        // A sample that found nobody, or places that are taken faster than they can be looked at.
        self.from((turn % n as u64) as usize).map(|(place, _)| place).find(|&place| field.take(place))
    }

    fn from(&self, at: usize) -> impl Iterator<Item = (u32, u16)> {
        self.places[at..].iter().chain(&self.places[..at]).copied()
    }
}

/// The first of those with the least in flight, and what was seen there.
fn best<F: Field>(field: &F, places: impl Iterator<Item = (u32, u16)>) -> Option<(u32, u32)> {
    let mut best: Option<(f32, u32, u32)> = None;
    for (place, weight) in places {
        if !field.is_open(place) {
            continue;
        }
        let active = field.active(place);
        let load = (active + 1) as f32 / (f32::from(weight) * field.ramp(place));
        if best.is_none_or(|(least, _, _)| load < least) {
            best = Some((load, place, active));
        }
    }
    best.map(|(_, place, active)| (place, active))
}
