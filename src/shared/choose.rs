//! From a pool to one of its backends, by how they are now.

use crate::balance::{Ask, Bound, Field, Key, Picker, Ring, Taken};
use crate::base::ids::BackendSlot;
use crate::base::time::Tick;
use crate::probe::Health;
use crate::shared::backend::{BackendState, Lease};
use crate::shared::snapshot::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter for each step of [`Pool::pick`], so that the refusals of one do not shift the turns of another.
pub type Turns = [AtomicU64; 4];

/// What is in flight at the primaries of a pool and at its backups, kept only where it has a bound (hash_balance): to add
/// up all backends at every pick would cost microseconds with hundreds of them.
pub type Crowds = [Crowd; 2];

/// See [`Crowds`].
#[derive(Debug, Default)]
pub struct Crowd {
    /// In flight, and being picked just now.
    active: AtomicU64,
    /// High half: when it was added up, in [`WEIGHED`]; low half: the weight of those that are up.
    weight: AtomicU64,
}

/// For so many milliseconds the weight of those that are up is believed.
const WEIGHED: u64 = 16;

/// One of a crowd, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    crowds: Arc<Crowds>,
    tier: usize,
}

impl Counted {
    /// Joins a crowd, and tells how many were there.
    fn join(crowds: &Arc<Crowds>, tier: usize) -> (Counted, u64) {
        // Before the pick, not after: two who pick at once must each allow for the other, or both find all places beyond
        // the bound.
        let before = crowds[tier].active.fetch_add(1, Relaxed);
        (Counted { crowds: crowds.clone(), tier }, before)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.crowds[self.tier].active.fetch_sub(1, Relaxed);
    }
}

/// Whom a backend is picked for.
#[derive(Debug)]
pub struct For<'a> {
    /// What hashing goes by; any will do where [`Pool::hashes`] is false.
    pub key: Key,
    /// Backends that were tried for this client already.
    pub tried: &'a [BackendSlot],
    /// Chance, of the worker that asks.
    pub random: &'a mut fastrand::Rng,
}

/// A backend that was picked.
#[derive(Debug)]
pub struct Picked {
    /// Its place in the pool, in this snapshot.
    pub place: usize,
    /// The place taken at it.
    pub lease: Lease,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// The pool has none that takes new work.
    NoneThere,
    /// Each was tried for this client already.
    AllTried,
    /// Those that are up are at their max_connections.
    AllFull,
}

impl Pool {
    /// True when picking goes by a key.
    pub fn hashes(&self) -> bool {
        matches!(*self.primaries, Picker::Ring(_) | Picker::Maglev(_))
    }

    /// A backend that is up, was not tried, is not full and is not set aside. One that is set aside is taken all the same
    /// where there is no other: the last one is never set aside.
    pub fn pick(&self, now: Tick, whom: For<'_>) -> Result<Picked, NoBackend> {
        // Each step is tried only when nobody of those before is up; one that is up and full still bars the way, since
        // backups are for failure, not for load.
        let tiers = [&self.primaries, &self.backups];
        let steps = [(0, false), (1, false), (0, true), (1, true)];
        let For { key, tried, random } = whom;
        let mut reason = NoBackend::NoneThere;
        for ((tier, even_aside), turn) in steps.into_iter().zip(&*self.turns) {
            let picker = tiers[tier];
            if picker.is_empty() {
                continue;
            }
            let mut field = Now { pool: self, now, tried, even_aside, lease: None };
            let (bound, counted) = self.bound(tier, picker, now).unzip();
            let mut ask = Ask { key, turn, random: &mut *random, bound };
            let place = picker.pick(&mut field, &mut ask);
            if let (Some(place), Some(lease)) = (place, field.lease.take()) {
                return Ok(Picked { place: place as usize, lease: lease.counted(counted) });
            }
            match field.why_not(picker) {
                NoBackend::AllFull => return Err(NoBackend::AllFull),
                NoBackend::AllTried => reason = NoBackend::AllTried,
                NoBackend::NoneThere => {}
            }
        }
        Err(reason)
    }

    /// What nobody is to go beyond, and a place in the crowd that it goes by; nothing where there is no bound.
    fn bound(&self, tier: usize, picker: &Picker, now: Tick) -> Option<(Bound, Counted)> {
        let Picker::Ring(ring) = picker else { return None };
        if self.hash_balance <= 0.0 {
            return None;
        }
        let (counted, active) = Counted::join(&self.crowds, tier);
        let weight = self.weight_up(tier, ring, now);
        Some((Bound { factor: self.hash_balance, active, weight }, counted))
    }

    /// The weight of those of a tier that are up. It looks at all of them now and then, for health changes seldom.
    fn weight_up(&self, tier: usize, ring: &Ring, now: Tick) -> u64 {
        let cell = &self.crowds[tier].weight;
        let (known, time) = (cell.load(Relaxed), (now.0 / WEIGHED + 1) & 0xffff_ffff);
        if known >> 32 == time {
            return known & 0xffff_ffff;
        }
        let is_up = |place: u32| self.panics || self.backends[place as usize].state.health() != Health::Down;
        let up = ring.places().iter().filter(|(place, _)| is_up(*place));
        let weight: u64 = up.map(|(_, weight)| u64::from(*weight)).sum();
        cell.store(time << 32 | weight, Relaxed);
        weight
    }
}

/// The backends of a pool, as they are now.
struct Now<'a> {
    pool: &'a Pool,
    now: Tick,
    tried: &'a [BackendSlot],
    /// Those that are set aside count, too.
    even_aside: bool,
    lease: Option<Lease>,
}

impl Now<'_> {
    fn state(&self, place: u32) -> &Arc<BackendState> {
        &self.pool.backends[place as usize].state
    }

    /// Up, and let through by its breaker.
    fn is_there(&self, state: &BackendState) -> bool {
        (self.pool.panics || state.health() != Health::Down)
            && (self.even_aside || !state.is_aside(self.now))
            && (self.pool.breaker.is_none() || state.breaker.admits(self.now))
    }

    /// Why nobody of `picker` was taken.
    fn why_not(&self, picker: &Picker) -> NoBackend {
        let mut reason = NoBackend::NoneThere;
        for place in picker.places() {
            let state = self.state(place);
            if self.tried.contains(&state.slot) {
                reason = NoBackend::AllTried;
            } else if self.is_there(state) {
                return NoBackend::AllFull;
            }
        }
        reason
    }
}

impl Field for Now<'_> {
    #[inline]
    fn is_open(&self, place: u32) -> bool {
        let state = self.state(place);
        !state.active.is_full() && self.is_there(state) && !self.tried.contains(&state.slot)
    }

    fn take(&mut self, place: u32) -> bool {
        let state = self.state(place);
        if !self.is_there(state) || self.tried.contains(&state.slot) {
            return false;
        }
        self.lease = Lease::take(state, self.pool.breaker, self.now);
        self.lease.is_some()
    }

    fn take_from(&mut self, place: u32, seen: u32) -> Taken {
        let state = self.state(place);
        if !self.is_there(state) || self.tried.contains(&state.slot) {
            return Taken::No;
        }
        if !state.active.reserve_from(seen) {
            return Taken::Moved;
        }
        self.lease = Lease::of_reserved(state, self.pool.breaker, self.now);
        if self.lease.is_some() { Taken::Yes } else { Taken::Moved }
    }

    fn active(&self, place: u32) -> u32 {
        self.state(place).active.used()
    }

    fn expected(&self, place: u32) -> f64 {
        let state = self.state(place);
        state.estimate.expected(state.active.used(), self.now.0)
    }

    fn ramp(&self, place: u32) -> f32 {
        if self.pool.slow_start.is_zero() {
            return 1.0;
        }
        self.state(place).ramp(self.now, self.pool.slow_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Algorithm, Place, Rota};
    use crate::shared::snapshot::Backend;

    fn backends(weights: &[u16], max_connections: u32) -> Vec<Backend> {
        let backend = |(n, weight): (usize, &u16)| Backend {
            id: format!("b{n}").into(),
            address: "".into(),
            weight: *weight,
            disabled: false,
            draining: false,
            checked: false,
            addresses: Arc::new([]),
            state: BackendState::new(BackendSlot(n as u32), max_connections, 0, 1),
        };
        weights.iter().enumerate().map(backend).collect()
    }

    /// Two primaries and a backup.
    fn pool(max_connections: u32) -> Pool {
        let mut pool = Pool::over(Algorithm::RoundRobin, backends(&[1, 1, 1], max_connections));
        pool.primaries = Arc::new(Picker::Rota(Rota::in_turn(vec![0, 1])));
        pool.backups = Arc::new(Picker::Rota(Rota::in_turn(vec![2])));
        pool
    }

    fn pick(pool: &Pool, now: u64, tried: &[BackendSlot]) -> Result<Picked, NoBackend> {
        let mut random = fastrand::Rng::with_seed(1);
        pool.pick(Tick(now), For { key: Key(0), tried, random: &mut random })
    }

    fn picks(pool: &Pool, tried: &[u32], n: usize) -> Vec<Result<usize, NoBackend>> {
        let tried: Vec<_> = tried.iter().copied().map(BackendSlot).collect();
        (0..n).map(|_| pick(pool, 100, &tried).map(|picked| picked.place)).collect()
    }

    #[test]
    fn picking_is_total_and_says_why_not() {
        type Row = (&'static str, &'static [u32], &'static [u32], Vec<Result<usize, NoBackend>>);
        let rows: Vec<Row> = vec![
            ("primaries in turn", &[], &[], vec![Ok(0), Ok(1), Ok(0)]),
            ("one set aside", &[0], &[], vec![Ok(1), Ok(1)]),
            ("both set aside: the backup", &[0, 1], &[], vec![Ok(2), Ok(2)]),
            ("all set aside: the last ones never are", &[0, 1, 2], &[], vec![Ok(0), Ok(1)]),
            ("one tried", &[], &[1], vec![Ok(0), Ok(0)]),
            ("both tried: the backup", &[], &[0, 1], vec![Ok(2)]),
            ("one tried, the other aside: the backup first", &[1], &[0], vec![Ok(2)]),
            ("tried, and the others aside: one of these", &[1, 2], &[0], vec![Ok(1)]),
            ("all tried", &[], &[0, 1, 2], vec![Err(NoBackend::AllTried)]),
        ];
        for (why, aside, tried, expected) in rows {
            let pool = pool(0);
            for place in aside {
                pool.backends[*place as usize].state.failed(Tick(50));
            }
            assert_eq!(picks(&pool, tried, expected.len()), expected, "{why}");
        }
    }

    #[test]
    fn full_primaries_bar_the_way_to_backups() {
        let pool = pool(1);
        let _first = pick(&pool, 0, &[]).unwrap();
        let second = pick(&pool, 0, &[]).unwrap();
        assert_eq!(pick(&pool, 0, &[]).unwrap_err(), NoBackend::AllFull);
        let place = second.place;
        drop(second);
        assert_eq!(pick(&pool, 0, &[]).unwrap().place, place, "a lease came back");
    }

    #[test]
    fn an_empty_pool_has_none() {
        let mut pool = pool(0);
        (pool.primaries, pool.backups) = (Arc::default(), Arc::default());
        assert_eq!(pick(&pool, 0, &[]).unwrap_err(), NoBackend::NoneThere);
    }

    /// What backends hold beyond 1.25 times their share, by weight, of what these hold together.
    fn beyond(pool: &Pool, places: &[usize]) -> Vec<String> {
        let used = |at: usize| f64::from(pool.backends[at].state.active.used());
        let weight = |at: usize| f64::from(pool.backends[at].weight);
        let all: f64 = places.iter().map(|at| used(*at)).sum();
        let weights: f64 = places.iter().map(|at| weight(*at)).sum();
        let over = |at: &&usize| used(**at) > (1.25 * all * weight(**at) / weights).ceil();
        places.iter().filter(over).map(|at| format!("{at} holds {} of {all}", used(*at))).collect()
    }

    #[test]
    fn no_backend_goes_beyond_its_bound_however_many_pick_at_once() {
        for _ in 0..20 {
            let mut pool = Pool::over(Algorithm::ConsistentHash, backends(&[1, 1, 2, 4, 1], 0));
            pool.hash_balance = 1.25;
            let gate = std::sync::Barrier::new(4);
            let picked: Vec<Vec<Picked>> = std::thread::scope(|scope| {
                let one = |seed: u64| {
                    let (pool, gate) = (&pool, &gate);
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        gate.wait();
                        // Two keys, which without a bound would make two backends hold everything.
                        let mut one = |n: u64| {
                            let key = crate::balance::key_of(&(n % 2).to_le_bytes());
                            pool.pick(Tick(1), For { key, tried: &[], random: &mut random }).unwrap()
                        };
                        (0..500).map(&mut one).collect()
                    })
                };
                let threads: Vec<_> = (0..4).map(one).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(beyond(&pool, &[0, 1, 2, 3, 4]), [""; 0]);
            assert_eq!(pool.crowds[0].active.load(Relaxed), 2_000);
            drop(picked);
            assert_eq!(pool.crowds[0].active.load(Relaxed), 0, "whoever leaves is counted no more");
        }
    }

    #[test]
    fn the_bound_goes_by_those_that_are_up_and_of_their_tier() {
        type Row = (&'static str, usize, &'static [usize], &'static [usize]);
        let rows: [Row; 4] = [
            ("all primaries are up; the backups do not share the mean", 0, &[], &[0, 1, 2, 3, 4]),
            ("most are down: two bear all", 0, &[1, 2, 4], &[0, 3]),
            ("none is up: the bound is one among the backups", 0, &[0, 1, 2, 3, 4], &[5, 6]),
            ("and what the primaries still hold is not theirs", 400, &[0, 1, 2, 3, 4], &[5, 6]),
        ];
        for (why, held, down, places) in rows {
            let all = backends(&[1; 7], 0);
            let tier = |from: usize, to: usize| {
                let place = |at: usize| Place { place: at as u32, id: all[at].id.to_string(), weight: 1 };
                let places: Vec<Place> = (from..to).map(place).collect();
                Arc::new(Picker::build(Algorithm::ConsistentHash, &places))
            };
            let (primaries, backups) = (tier(0, 5), tier(5, 7));
            let mut pool = Pool::over(Algorithm::ConsistentHash, all);
            (pool.primaries, pool.backups, pool.hash_balance) = (primaries, backups, 1.25);
            let _held: Vec<Picked> = (0..held).map(|_| pick(&pool, 1, &[]).unwrap()).collect();
            down.iter().for_each(|at| pool.backends[*at].state.set_health(Health::Down));
            // One key alone.
            let _picked: Vec<Picked> = (0..400).map(|_| pick(&pool, 100, &[]).unwrap()).collect();
            assert_eq!(beyond(&pool, places), [""; 0], "{why}");
            let held: u32 = places.iter().map(|at| pool.backends[*at].state.active.used()).sum();
            assert_eq!(held, 400, "{why}");
        }
    }
}
