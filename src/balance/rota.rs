//! Turns: round robin and weighted round robin, exact over all threads.

use super::{Ask, Field};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The most turns a rota holds; weights that add up to more are scaled down.
pub const MOST_TURNS: usize = 64 * 1024;

/// In which order the backends of a pool take their turns.
#[derive(Debug, Default, PartialEq)]
pub struct Rota {
    /// Place after place, repeated for ever. With equal weights each place stands here once.
    turns: Box<[u32]>,
    /// Each place once.
    places: Box<[u32]>,
}

impl Rota {
    /// Each of `places` in turn.
    pub fn in_turn(places: Vec<u32>) -> Rota {
        Rota { turns: places.clone().into(), places: places.into() }
    }

    /// Each of `places` in turn by its weight, smoothly: in each turn every place gains its weight, the richest takes the
    /// turn and pays the sum of all. Weights 5, 1, 1 give a a b a c a a. Places of weight 0 are left out.
    /// Source: the "smooth weighted round-robin" of nginx 1.3.1.
    pub fn weighted(places: &[(u32, u16)]) -> Rota {
        let mut places: Vec<(u32, u64)> =
            places.iter().filter(|(_, w)| *w > 0).map(|&(p, w)| (p, u64::from(w))).collect();
        let divisor = places.iter().fold(0, |a, &(_, w)| gcd(a, w)).max(1);
        places.iter_mut().for_each(|(_, weight)| *weight /= divisor);
        let sum: u64 = places.iter().map(|(_, w)| w).sum();
        if sum > MOST_TURNS as u64 {
            places.iter_mut().for_each(|(_, weight)| *weight = (*weight * MOST_TURNS as u64 / sum).max(1));
        }
        let sum: i64 = places.iter().map(|(_, w)| *w as i64).sum();
        let each: Box<[u32]> = places.iter().map(|(place, _)| *place).collect();
        if places.iter().all(|(_, weight)| *weight == 1) {
            return Rota { turns: each.clone(), places: each };
        }
        let weights: Vec<i64> = places.iter().map(|(_, w)| *w as i64).collect();
        let mut wealth = vec![0i64; weights.len()];
        let mut turns = Vec::with_capacity(sum as usize);
        for _ in 0..sum {
            for (has, gains) in wealth.iter_mut().zip(&weights) {
                *has += gains;
            }
            // The first of the richest, as nginx takes it. Two passes over plain integers, so that both are vectorised.
            let most = wealth.iter().copied().max().unwrap_or(0);
            let richest = wealth.iter().position(|&has| has == most).unwrap_or(0);
            wealth[richest] -= sum;
            turns.push(each[richest]);
        }
        Rota { turns: turns.into(), places: each }
    }

    /// True when nobody takes turns.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Each place once.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// The next place whose turn it is and that `take` accepts. A place that is refused loses its turn, so that its
    /// share goes to all others alike; after a round of refusals every place is asked once more, in order.
    ///
    /// Exact over all threads: `turn` is shared, and each call that is not refused takes one turn of it.
    pub fn pick(&self, turn: &AtomicU64, mut take: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.turns.is_empty() {
            return None;
        }
        let mut at = 0;
        // Beyond a round of tries the places themselves are walked: a weight of 256 may be down.
        for _ in 0..self.places.len().min(64) {
            at = (turn.fetch_add(1, Relaxed) % self.turns.len() as u64) as usize;
            let place = self.turns[at];
            if take(place) {
                return Some(place);
            }
        }
        let from = at % self.places.len();
        let (before, behind) = self.places.split_at(from);
        behind.iter().chain(before).copied().find(|&place| take(place))
    }
}

impl Rota {
    /// As [`Rota::pick`]. One that starts slowly gives up the rest of its turns, by chance, while there are others.
    pub fn pick_in<F: Field>(&self, field: &mut F, ask: &mut Ask<'_>) -> Option<u32> {
        let Ask { turn, random, .. } = ask;
        let mut refused = false;
        let picked = self.pick(turn, |place| {
            let ramp = field.ramp(place);
            if ramp < 1.0 && random.f32() >= ramp {
                refused = true;
                return false;
            }
            field.take(place)
        });
        if picked.is_none() && refused { self.pick(turn, |place| field.take(place)) } else { picked }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(rota: &Rota, n: usize) -> Vec<u32> {
        let turn = AtomicU64::new(0);
        (0..n).filter_map(|_| rota.pick(&turn, |_| true)).collect()
    }

    #[test]
    fn sequences_are_exact() {
        let cases: &[(&str, Rota, &[u32])] = &[
            ("in turn", Rota::in_turn(vec![4, 7, 9]), &[4, 7, 9, 4, 7, 9, 4]),
            ("5, 1, 1: the example of nginx", Rota::weighted(&[(0, 5), (1, 1), (2, 1)]), &[0, 0, 1, 0, 2, 0, 0]),
            ("the same, ten times over", Rota::weighted(&[(0, 50), (1, 10), (2, 10)]), &[0, 0, 1, 0, 2, 0, 0]),
            ("equal weights are in turn", Rota::weighted(&[(3, 7), (1, 7)]), &[3, 1, 3, 1]),
            ("weight 0 is left out", Rota::weighted(&[(0, 0), (1, 2), (2, 1)]), &[1, 2, 1, 1, 2, 1]),
            ("nobody", Rota::weighted(&[(0, 0)]), &[]),
        ];
        for (why, rota, expected) in cases {
            assert_eq!(turns(rota, expected.len().max(1)), *expected, "{why}");
        }
    }

    #[test]
    fn a_refused_place_leaves_its_share_to_all_others_alike() {
        let rota = Rota::in_turn(vec![0, 1, 2, 3]);
        let turn = AtomicU64::new(0);
        let mut shares = [0; 4];
        for _ in 0..300 {
            shares[rota.pick(&turn, |place| place != 1).unwrap() as usize] += 1;
        }
        assert_eq!(shares, [100, 0, 100, 100]);
    }

    #[test]
    fn picking_is_total() {
        let heavy = Rota::weighted(&[(0, 256), (1, 1)]);
        assert_eq!(heavy.pick(&AtomicU64::new(0), |place| place == 1), Some(1), "however rare its turn");
        assert_eq!(heavy.pick(&AtomicU64::new(0), |_| false), None);
        assert_eq!(Rota::default().pick(&AtomicU64::new(0), |_| true), None);
    }

    #[test]
    fn threads_together_keep_the_sequence() {
        let rota = Rota::weighted(&[(0, 3), (1, 2), (2, 1)]);
        let turn = AtomicU64::new(0);
        let shares: Vec<[u32; 3]> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut shares = [0; 3];
                        for _ in 0..6_000 {
                            shares[rota.pick(&turn, |_| true).unwrap() as usize] += 1;
                        }
                        shares
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sum = |place: usize| shares.iter().map(|share| share[place]).sum::<u32>();
        assert_eq!([sum(0), sum(1), sum(2)], [12_000, 8_000, 4_000]);
    }

    proptest! {
        #[test]
        fn a_period_holds_each_place_by_its_weight_and_no_burst(weights in prop::collection::vec(0u16..=256, 1..20)) {
            let places: Vec<(u32, u16)> = weights.iter().enumerate().map(|(at, w)| (at as u32, *w)).collect();
            let rota = Rota::weighted(&places);
            let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            prop_assume!(sum > 0);
            let period = rota.turns.len() as u64;
            for (place, weight) in &places {
                let share = rota.turns.iter().filter(|turn| *turn == place).count() as u64;
                prop_assert_eq!(share * sum, u64::from(*weight) * period, "place {}", place);
                // In any k turns from the start, no more than its share and one.
                let mut seen = 0u64;
                for (k, turn) in rota.turns.iter().enumerate() {
                    seen += u64::from(turn == place);
                    let fair = u64::from(*weight) * (k as u64 + 1) / sum;
                    prop_assert!(seen <= fair + 2, "{} of {} turns went to {}", seen, k + 1, place);
                }
            }
        }
    }

    #[test]
    fn too_many_turns_are_scaled() {
        let places: Vec<(u32, u16)> = (0..600).map(|place| (place, 100 + (place % 157) as u16)).collect();
        let rota = Rota::weighted(&places);
        assert!(rota.turns.len() <= MOST_TURNS, "{}", rota.turns.len());
        assert_eq!(rota.places().len(), places.len(), "nobody is scaled away");
    }
}
