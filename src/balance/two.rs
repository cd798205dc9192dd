//! The better of two taken at random (Mitzenmacher, "The power of two choices in randomized load balancing", 2001): by
//! what is in flight, or by the time that an answer is expected to take.

use super::{Ask, Field};

/// Pairs drawn before all places are looked at one by one.
const PAIRS: usize = 4;

/// What makes one of two better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Less in flight for its weight.
    InFlight,
    /// The same, times the expected time to its first byte.
    Expected,
}

/// See the module.
#[derive(Debug)]
pub struct Two {
    places: Box<[(u32, u16)]>,
    score: Score,
}

impl Two {
    /// Over places and weights.
    pub fn new(places: Vec<(u32, u16)>, score: Score) -> Two {
        Two { places: places.into(), score }
    }

    /// Each place once, with its weight.
    pub fn places(&self) -> &[(u32, u16)] {
        &self.places
    }

    /// True when it has no place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The better of two that are open, drawn until two different ones are found or the draws are used up; then the first
    /// open one behind a random one.
    pub fn pick<F: Field>(&self, field: &mut F, ask: &mut Ask<'_>) -> Option<u32> {
        let n = self.places.len();
        if n == 0 {
            return None;
        }
        for _ in 0..PAIRS {
            let one = ask.random.usize(..n);
            let other = if n > 1 { (one + ask.random.usize(1..n)) % n } else { one };
            let (one, other) = (self.places[one], self.places[other]);
            let picked = match (field.is_open(one.0), field.is_open(other.0)) {
                (true, true) if self.cost(field, other) < self.cost(field, one) => other.0,
                (true, _) => one.0,
                (false, true) => other.0,
                (false, false) => continue,
            };
            if field.take(picked) {
                return Some(picked);
            }
        }
        let from = ask.random.usize(..n);
        let (before, behind) = self.places.split_at(from);
        behind.iter().chain(before).map(|(place, _)| *place).find(|&place| field.take(place))
    }

    fn cost<F: Field>(&self, field: &F, (place, weight): (u32, u16)) -> f64 {
        let load = f64::from(field.active(place) + 1) / (f64::from(weight) * f64::from(field.ramp(place)));
        match self.score {
            Score::InFlight => load,
            Score::Expected => load * field.expected(place),
        }
    }
}
