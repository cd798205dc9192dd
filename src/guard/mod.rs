//! Limits, and the permits they give.
//!
//! Knows: counts and bounds. Must not touch: sockets, the clock (a limit that needs the time is told it).

mod breaker;
mod budget;
mod line;
mod per_client;
mod rate;

pub use breaker::{Breaker, BreakerMemory, BreakerRules, BreakerState, Outcome, Pass};
pub use budget::Budget;
pub use line::{Line, Ticket};
pub use per_client::{ClientPermit, PerClient};
pub use rate::{MOST_LOGGED, RateKey, RateLimit, RateRule, Slot, TooMany};

use crate::base::time::Tick;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// At most so many at once.
#[derive(Debug)]
pub struct Cap {
    limit: AtomicU32,
    used: AtomicU32,
}

impl Cap {
    /// A cap of `limit`; 0 means none.
    pub fn new(limit: u32) -> Arc<Cap> {
        Arc::new(Cap::of(limit))
    }

    /// The same, for one who holds it inside of something else.
    pub fn of(limit: u32) -> Cap {
        Cap { limit: AtomicU32::new(limit), used: AtomicU32::new(0) }
    }

    /// From now on `limit`; 0 means none. Who has a place beyond it keeps it.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Relaxed);
    }

    /// Takes a place, by compare-and-swap from the value seen: never one too many. `None` when all are taken.
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        self.reserve().then(|| Permit(self.clone()))
    }

    /// Takes a place even where none is left: for what another process had taken on already.
    pub fn take_anyway(self: &Arc<Self>) -> Permit {
        self.reserve_anyway();
        Permit(self.clone())
    }

    /// As [`Cap::take_anyway`] for one who gives the place back by [`Cap::release`].
    pub fn reserve_anyway(&self) {
        self.used.fetch_add(1, Relaxed);
    }

    /// As [`Cap::take`] for one who gives the place back by [`Cap::release`].
    pub fn reserve(&self) -> bool {
        let limit = match self.limit.load(Relaxed) {
            0 => u32::MAX,
            limit => limit,
        };
        self.used.fetch_update(Relaxed, Relaxed, |used| (used < limit).then(|| used + 1)).is_ok()
    }

    /// As [`Cap::reserve`], if so many are taken as were `seen`.
    pub fn reserve_from(&self, seen: u32) -> bool {
        let limit = match self.limit.load(Relaxed) {
            0 => u32::MAX,
            limit => limit,
        };
        seen < limit && self.used.compare_exchange(seen, seen + 1, Relaxed, Relaxed).is_ok()
    }

    /// True when there is no place left just now.
    #[inline]
    pub fn is_full(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        limit > 0 && self.used.load(Relaxed) >= limit
    }

    /// Gives back one place that [`Cap::reserve`] took.
    pub fn release(&self) {
        self.used.fetch_sub(1, Relaxed);
    }

    /// How many places are taken.
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }
}

/// A place under a [`Cap`]; given back on drop.
#[derive(Debug)]
pub struct Permit(Arc<Cap>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Lets something be said only once in a while, by whichever thread comes first.
#[derive(Debug, Default)]
pub struct Seldom {
    /// The tick before which nothing more is said.
    quiet_until: AtomicU64,
}

impl Seldom {
    /// Nothing was said yet.
    pub const fn new() -> Seldom {
        Seldom { quiet_until: AtomicU64::new(0) }
    }

    /// True for one caller in any `pause` milliseconds.
    pub fn may(&self, now: Tick, pause: u64) -> bool {
        let until = self.quiet_until.load(Relaxed);
        now.0 >= until && self.quiet_until.compare_exchange(until, now.0 + pause, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_holds_and_a_dropped_permit_goes_back() {
        let cap = Cap::new(2);
        let first = cap.take();
        let second = cap.take();
        assert!(first.is_some() && second.is_some());
        assert!(cap.take().is_none(), "both are taken");
        drop(first);
        assert!(cap.take().is_some(), "one came back, and this one goes back at once");
        assert_eq!(cap.used(), 1);
        let beyond = [cap.take_anyway(), cap.take_anyway()];
        assert!(cap.used() == 3 && cap.take().is_none(), "taken anyway, and full for all others");
        drop(beyond);
        assert!((0..1000).all(|_| Cap::new(0).take().is_some()), "0 is no limit");
    }

    #[test]
    fn seldom_is_once_a_pause() {
        let seldom = Seldom::default();
        let may = [0, 1, 99, 100, 150, 250].map(|now| seldom.may(Tick(now), 100));
        assert_eq!(may, [true, false, false, true, false, true]);
    }

    #[test]
    fn threads_never_take_one_too_many() {
        let cap = Cap::new(3);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(_permit) = cap.take() {
                            most.fetch_max(cap.used(), Relaxed);
                        }
                    }
                });
            }
        });
        assert!(most.load(Relaxed) <= 3);
        assert_eq!(cap.used(), 0);
    }
}
