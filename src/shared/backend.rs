//! What is known of a backend from one snapshot to the next, and the lease on it.

use crate::balance::Estimate;
use crate::base::ids::BackendSlot;
use crate::base::time::Tick;
use crate::guard::{Breaker, BreakerMemory, BreakerRules, BreakerState, Cap, Outcome, Pass};
use crate::probe::Health;
use crate::shared::choose::Counted;
use crate::shared::queue::Queue;
use crate::stats::Tallies;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the first failure sets a backend aside, in milliseconds.
const ASIDE_FIRST: u32 = 1_000;
/// What doubling ends at, in milliseconds.
const ASIDE_MOST: u32 = 10_000;

/// Whether a backend stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// It takes work, as far as anything else allows.
    Stays = 0,
    /// It drains: what is open goes on.
    Leaves = 1,
    /// It has drained for long enough: what is open is cut.
    Cut = 2,
}

/// The live state of a backend. It outlives every snapshot that names it. Relaxed is enough for all of it: a stale read
/// makes a slightly worse pick, never a wrong one.
///
/// What a pick reads and writes comes first and is kept together with the count of the `Arc`: the line is fetched once,
/// perhaps from another core, which is most of what a pick costs. What two workers write at two backends must not share a
/// line either; hence the room at the end.
#[derive(Debug)]
#[repr(C)]
pub struct BackendState {
    /// Connections, or requests, at once.
    pub active: Cap,
    /// It failed, and is not picked before this tick.
    aside_until: AtomicU64,
    /// How long it takes to answer.
    pub estimate: Estimate,
    /// Which backend this is, for as long as the process knows it.
    pub slot: BackendSlot,
    /// What its checks say: 0 nothing yet, 1 up, 2 down.
    health: AtomicU8,
    /// Whether it stays: 0 yes, 1 it leaves, 2 what is open there is to be cut.
    stay: AtomicU8,
    /// Opens when it fails too often; unused where its pool has none.
    pub breaker: Breaker,
    /// For how long it was set aside the last time, in milliseconds; 0 when it has answered since.
    aside_for: AtomicU32,
    /// When it began to take work, if it is to start slowly; 0: long ago.
    since: AtomicU64,
    /// Idle connections to it, in all workers together.
    pub idle: Arc<Cap>,
    /// The line before its pool, told when a place here comes free.
    pub queue: OnceLock<Arc<Queue>>,
    /// What it has done so far, by worker.
    pub tallies: Tallies,
    _room: [u64; 1],
}

impl BackendState {
    /// A backend nothing is known of, for a process of so many workers.
    pub fn new(slot: BackendSlot, max_connections: u32, idle: u32, workers: usize) -> Arc<BackendState> {
        Arc::new(BackendState {
            slot,
            active: Cap::of(max_connections),
            idle: Cap::new(idle),
            breaker: Breaker::default(),
            estimate: Estimate::default(),
            since: AtomicU64::new(0),
            queue: OnceLock::new(),
            tallies: Tallies::new(workers),
            aside_until: AtomicU64::new(0),
            aside_for: AtomicU32::new(0),
            health: AtomicU8::new(0),
            stay: AtomicU8::new(0),
            _room: [0; 1],
        })
    }

    /// A connection to it failed, or closed without a response. Returns for how many milliseconds that sets it aside,
    /// or `None` when it is aside already: a hundred connections that fail in one moment are one failure.
    pub fn failed(&self, now: Tick) -> Option<u32> {
        let until = self.aside_until.load(Relaxed);
        if now.0 < until {
            return None;
        }
        let wait = match self.aside_for.load(Relaxed) {
            0 => ASIDE_FIRST,
            last => (last * 2).min(ASIDE_MOST),
        };
        self.aside_until.compare_exchange(until, now.0 + u64::from(wait), Relaxed, Relaxed).ok()?;
        self.aside_for.store(wait, Relaxed);
        Some(wait)
    }

    /// What its checks say. One that is not checked stays at [`Health::Starting`], which takes clients.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::Starting,
            1 => Health::Up,
            _ => Health::Down,
        }
    }

    /// Takes note of what its checks say. Only the thread that runs them calls this.
    pub fn set_health(&self, health: Health) {
        let health = match health {
            Health::Starting => 0,
            Health::Up => 1,
            Health::Down => 2,
        };
        self.health.store(health, Relaxed);
    }

    /// Whether it stays in the configuration. Only control calls this.
    pub fn set_stay(&self, stay: Stay) {
        self.stay.store(stay as u8, Relaxed);
    }

    /// True while it is on its way out, or told to take no new sessions: no connection to it is kept for later.
    #[inline]
    pub fn is_leaving(&self) -> bool {
        self.stay.load(Relaxed) != Stay::Stays as u8
    }

    /// True when it has had its drain_timeout: whatever is still open there is to be cut, and nothing begins there any more.
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.stay.load(Relaxed) == Stay::Cut as u8
    }

    /// It answered. Returns true when that ends a time of failures.
    #[inline]
    pub fn answered(&self) -> bool {
        // Nearly always 0 already: then nothing is written, and the line stays shared between the cores.
        if self.aside_for.load(Relaxed) == 0 {
            return false;
        }
        self.aside_until.store(0, Relaxed);
        self.aside_for.swap(0, Relaxed) != 0
    }

    /// True while it is set aside.
    #[inline]
    pub fn is_aside(&self, now: Tick) -> bool {
        now.0 < self.aside_until.load(Relaxed)
    }
}

/// What is known of a backend, in a form that another process understands, whose clock is another one. Times are in
/// milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// What its checks say.
    pub health: Health,
    /// For how long it was set aside the last time, 0 if it has answered since, and how much of that is left.
    pub aside: (u32, u64),
    /// Its breaker, unless nothing has failed.
    pub breaker: Option<BreakerMemory>,
    /// How long it takes to answer, in nanoseconds, and how old that is.
    pub estimate: Option<(f64, u64)>,
    /// Since when it takes work, if it has begun to.
    pub since: Option<u64>,
}

impl BackendState {
    /// What another process needs to go on from here.
    pub fn memory(&self, now: Tick) -> Memory {
        let since = self.since.load(Relaxed);
        Memory {
            health: self.health(),
            aside: (self.aside_for.load(Relaxed), self.aside_until.load(Relaxed).saturating_sub(now.0)),
            breaker: self.breaker.memory(now),
            estimate: self.estimate.memory(now.0),
            since: (since > 0).then(|| now.0.saturating_sub(since)),
        }
    }

    /// Goes on from what another process knew. For one that nobody uses yet. `checked`: its health goes on, too, since
    /// checks will tell when it changes.
    pub fn recall(&self, memory: &Memory, checked: bool, now: Tick) {
        if checked {
            self.set_health(memory.health);
        }
        let (aside_for, aside_left) = memory.aside;
        self.aside_for.store(aside_for, Relaxed);
        self.aside_until.store(if aside_left > 0 { now.0 + aside_left } else { 0 }, Relaxed);
        if let Some(breaker) = memory.breaker {
            self.breaker.recall(breaker, now);
        }
        if let Some(estimate) = memory.estimate {
            self.estimate.recall(estimate, now.0);
        }
        // Our clock may have begun later than it.
        if let Some(gone) = memory.since.filter(|gone| *gone < now.0) {
            self.since.store(now.0 - gone, Relaxed);
        }
    }
}

/// The least part of its weight that a backend bears when it starts slowly.
const RAMP_LEAST: f32 = 0.1;

impl BackendState {
    /// From now on it starts slowly, where its pool says so.
    pub fn starts(&self, now: Tick) {
        self.since.store(now.0.max(1), Relaxed);
    }

    /// The part of its weight that it bears `now`: from a tenth to all of it, over `whole`.
    pub fn ramp(&self, now: Tick, whole: Duration) -> f32 {
        match self.since.load(Relaxed) {
            0 => 1.0,
            since => {
                let gone = now.0.saturating_sub(since) as f32 / 1000.0;
                (gone / whole.as_secs_f32()).clamp(RAMP_LEAST, 1.0)
            }
        }
    }
}

/// A place at a backend, and leave to pass its breaker; both are given back on drop.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<BackendState>,
    pass: Option<(Pass, BreakerRules)>,
    /// Held for its drop alone.
    _counted: Option<Counted>,
}

impl Lease {
    /// Takes a place at `backend`; `None` when it is at its max_connections, or its breaker lets nobody through.
    pub fn take(backend: &Arc<BackendState>, breaker: Option<BreakerRules>, now: Tick) -> Option<Lease> {
        backend.active.reserve().then(|| Lease::of_reserved(backend, breaker, now)).flatten()
    }

    /// As [`Lease::take`], for a place that was reserved already; it is given back where there is no lease.
    pub fn of_reserved(backend: &Arc<BackendState>, breaker: Option<BreakerRules>, now: Tick) -> Option<Lease> {
        let pass = match breaker {
            None => None,
            Some(rules) => match backend.breaker.enter(now) {
                Some(pass) => Some((pass, rules)),
                None => {
                    backend.active.release();
                    return None;
                }
            },
        };
        Some(Lease { backend: backend.clone(), pass, _counted: None })
    }

    /// A place for what another process had taken on already, whatever is left; it says nothing to the breaker.
    pub fn carried(backend: &Arc<BackendState>) -> Lease {
        backend.active.reserve_anyway();
        Lease { backend: backend.clone(), pass: None, _counted: None }
    }

    /// The same, counted in a crowd for as long as it lasts.
    pub(super) fn counted(self, counted: Option<Counted>) -> Lease {
        // Not by `..self`: a lease has a drop.
        let mut lease = self;
        lease._counted = counted;
        lease
    }

    /// Whose place it is, to remember when that is given back.
    pub fn state(&self) -> Arc<BackendState> {
        self.backend.clone()
    }

    /// Whose place it is.
    pub fn backend(&self) -> &BackendState {
        &self.backend
    }

    /// True for a trial whose outcome its breaker waits for.
    pub fn is_trial(&self) -> bool {
        self.pass.as_ref().is_some_and(|(pass, _)| pass.is_trial())
    }

    /// True while its breaker has not been told how it went, where there is one.
    pub fn is_untold(&self) -> bool {
        self.pass.is_some()
    }

    /// Tells its breaker how it went; only the first word counts. The new state of the breaker when that has changed.
    pub fn report(&mut self, outcome: Outcome, now: Tick) -> Option<BreakerState> {
        let (pass, rules) = self.pass.take()?;
        self.backend.breaker.report(pass, outcome, rules, now)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((pass, rules)) = self.pass.take() {
            self.backend.breaker.report(pass, Outcome::Nothing, rules, Tick(0));
        }
        self.backend.active.release();
        if let Some(queue) = self.backend.queue.get() {
            queue.freed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_set_aside_for_longer_each_time_until_an_answer() {
        let backend = BackendState::new(BackendSlot(0), 0, 0, 1);
        let steps: &[(&str, u64, Option<u32>)] = &[
            ("the first", 5_000, Some(1_000)),
            ("while aside: the same failure", 5_500, None),
            ("again", 6_000, Some(2_000)),
            ("doubled", 8_000, Some(4_000)),
            ("doubled", 12_000, Some(8_000)),
            ("the most", 20_000, Some(10_000)),
            ("the most", 30_000, Some(10_000)),
        ];
        for (why, now, expected) in steps {
            assert_eq!(backend.failed(Tick(*now)), *expected, "{why} at {now}");
            assert!(backend.is_aside(Tick(*now)));
        }
        assert!(!backend.is_aside(Tick(40_000)), "time is over");
        assert!(backend.answered());
        assert!(!backend.answered(), "told once");
        assert_eq!(backend.failed(Tick(41_000)), Some(1_000), "from the start");
        assert!(backend.answered());
        assert!(!backend.is_aside(Tick(41_001)), "an answer clears it at once");
    }

    #[test]
    fn a_dropped_lease_goes_back() {
        let backend = BackendState::new(BackendSlot(0), 1, 0, 1);
        let lease = Lease::take(&backend, None, Tick(0)).unwrap();
        assert!(Lease::take(&backend, None, Tick(0)).is_none());
        drop(lease);
        assert!(Lease::take(&backend, None, Tick(0)).is_some());
    }
}
