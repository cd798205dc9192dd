//! The retry budget of a pool: retries are a share of its requests, so that a pool in trouble is not buried under them.

use crate::base::time::Tick;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seconds looked back.
const SECONDS: u64 = 10;
/// Retries a second that are always allowed.
const FLOOR: u64 = 10;

/// Counts requests and retries of the last ten seconds, in slots of one.
#[derive(Debug, Default)]
pub struct Budget {
    requests: Ring,
    retries: Ring,
}

impl Budget {
    /// Takes note of a request.
    #[inline]
    pub fn request(&self, now: Tick) {
        self.requests.add(now);
    }

    /// True when a retry is within `share` (0 to 1) of the requests, or within the floor; it is then counted.
    pub fn retry(&self, now: Tick, share: f64) -> bool {
        let within_share = || self.retries.sum(now) < (self.requests.sum(now) as f64 * share) as u64;
        let go = self.retries.this_second(now) < FLOOR || within_share();
        if go {
            self.retries.add(now);
        }
        go
    }
}

/// Ten slots, each a second (high 32 bits) and a count (low 32 bits).
#[derive(Debug, Default)]
struct Ring([AtomicU64; SECONDS as usize]);

impl Ring {
    fn add(&self, now: Tick) {
        let second = now.0 / 1000;
        let slot = &self.0[(second % SECONDS) as usize];
        let seen = slot.load(Relaxed);
        if seen >> 32 == second & 0xffff_ffff {
            slot.fetch_add(1, Relaxed);
        } else {
            // Two threads that begin a second at once may lose one count.
            slot.store((second & 0xffff_ffff) << 32 | 1, Relaxed);
        }
    }

    fn sum(&self, now: Tick) -> u64 {
        let second = now.0 / 1000;
        let live = |slot: u64| (second & 0xffff_ffff).wrapping_sub(slot >> 32) < SECONDS;
        self.0.iter().map(|slot| slot.load(Relaxed)).filter(|slot| live(*slot)).map(|slot| slot & 0xffff_ffff).sum()
    }

    fn this_second(&self, now: Tick) -> u64 {
        let second = now.0 / 1000;
        let slot = self.0[(second % SECONDS) as usize].load(Relaxed);
        if slot >> 32 == second & 0xffff_ffff { slot & 0xffff_ffff } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests_with_a_floor() {
        let budget = Budget::default();
        let allowed = |now: u64| (0..1000).filter(|_| budget.retry(Tick(now), 0.2)).count();
        assert_eq!(allowed(5_000), 10, "nobody asked for anything: the floor");
        assert_eq!(allowed(5_999), 0, "the same second");
        assert_eq!(allowed(6_000), 10, "the next one");
        for _ in 0..1_000 {
            budget.request(Tick(20_000));
        }
        assert_eq!(allowed(21_000), 200, "a fifth of a thousand");
        assert_eq!(allowed(22_000), 10, "the share is used up for ten seconds");
        assert_eq!(allowed(40_000), 10, "all of it is long ago");
    }

    #[test]
    fn a_share_of_nothing_leaves_the_floor() {
        let budget = Budget::default();
        for _ in 0..1_000 {
            budget.request(Tick(0));
        }
        assert_eq!((0..100).filter(|_| budget.retry(Tick(0), 0.0)).count(), 10);
    }
}
