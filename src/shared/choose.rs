//! From a pool to one of its backends, by how they are now.

use crate::balance::{Ask, Bound, Field, Key, Picker, Taken};
use crate::base::ids::BackendSlot;
use crate::base::time::Tick;
use crate::probe::Health;
use crate::shared::backend::{BackendState, Lease};
use crate::shared::snapshot::Pool;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A counter for each step of [`Pool::pick`], so that the refusals of one do not shift the turns of another.
pub type Turns = [AtomicU64; 4];

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
        let steps = [(&self.primaries, false), (&self.backups, false), (&self.primaries, true), (&self.backups, true)];
        let bound = (self.hash_balance > 0.0).then(|| self.bound());
        let For { key, tried, random } = whom;
        let mut reason = NoBackend::NoneThere;
        for ((picker, even_aside), turn) in steps.into_iter().zip(&*self.turns) {
            if picker.is_empty() {
                continue;
            }
            let mut field = Now { pool: self, now, tried, even_aside, lease: None };
            let mut ask = Ask { key, turn, random: &mut *random, bound };
            let place = picker.pick(&mut field, &mut ask);
            if let (Some(place), Some(lease)) = (place, field.lease.take()) {
                return Ok(Picked { place: place as usize, lease });
            }
            match field.why_not(picker) {
                NoBackend::AllFull => return Err(NoBackend::AllFull),
                NoBackend::AllTried => reason = NoBackend::AllTried,
                NoBackend::NoneThere => {}
            }
        }
        Err(reason)
    }

    /// The mean that nobody is to hold more than a part of. Looks at all backends: only pools with a bound pay for it.
    fn bound(&self) -> Bound {
        let (mut active, mut weight) = (0, 0);
        for backend in &self.backends {
            active += u64::from(backend.state.active.used());
            let up = backend.weight > 0 && (self.panics || backend.state.health() != Health::Down);
            weight += if up { u64::from(backend.weight) } else { 0 };
        }
        Bound { factor: self.hash_balance, active, weight }
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
        self.state(place).estimate.expected(self.now.0)
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
    use crate::balance::Rota;
    use crate::shared::snapshot::Backend;

    fn pool(max_connections: u32) -> Pool {
        let backend = |n: u32| Backend {
            id: format!("b{n}").into(),
            weight: 1,
            addresses: Arc::new([]),
            state: BackendState::new(BackendSlot(n), max_connections, 0),
        };
        let rota = |places: Vec<u32>| Picker::Rota(Rota::in_turn(places));
        Pool::new("p", (0..3).map(backend).collect(), rota(vec![0, 1]), rota(vec![2]))
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
}
