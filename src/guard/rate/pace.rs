//! What the two buckets have in common: one after the other at a pace, and how far ahead of it anybody may get.
//!
//! The state of a bucket is a single number: when the next one would be due if all came at the pace. For tokens that is when
//! the bucket will be full again, less one; for a queue, when the next in line may leave. (ITU-T I.371, the generic cell
//! rate algorithm, which is a token bucket counted in time.) What is idle for long needs no look: its number lies behind.

use super::TooMany;
use super::table::State;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Nanoseconds are counted in so many parts at the most. A pace of 3 a second is no whole number of nanoseconds, but it is
/// one of thirds; so are all that anybody writes. The others are slowed down by less than a part: at a million a
/// second by 0.003 %, at a thousand by nothing that any clock would show.
const PARTS: u64 = 32;
/// No bucket takes longer than this to drain, in parts: sums of it and the time stay in their range.
const LONGEST: u64 = 1 << 61;

/// One after the other, and a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// A nanosecond, in parts.
    parts: u64,
    /// From one to the next, in parts.
    step: u64,
    /// How many steps may be ahead.
    capacity: u64,
}

impl Pace {
    /// `rate` a second, with a bucket for `capacity`.
    pub(super) fn new(capacity: u32, rate: f64) -> Pace {
        let capacity = u64::from(capacity).max(1);
        let exact = |parts: u64| 1e9 * parts as f64 / rate;
        let fits = |parts: u64| exact(parts) * capacity as f64 <= LONGEST as f64;
        let whole = |parts: u64| {
            let (step, exact) = (exact(parts).round(), exact(parts));
            (step >= 1.0 && (step - exact).abs() <= (exact * 1e-15).max(1e-6)).then_some(step as u64)
        };
        let found = (1..=PARTS).take_while(|parts| fits(*parts)).find_map(|parts| Some((parts, whole(parts)?)));
        let (parts, step) = found.unwrap_or_else(|| {
            let parts = (1..=PARTS).rev().find(|parts| fits(*parts)).unwrap_or(1);
            (parts, (exact(parts).ceil() as u64).clamp(1, LONGEST / capacity))
        });
        Pace { parts, step, capacity }
    }

    fn at(&self, now: u64) -> u64 {
        now.saturating_mul(self.parts)
    }

    /// Nanoseconds until the moment `at`.
    pub(super) fn until(&self, at: u64, now: u64) -> u64 {
        at.saturating_sub(self.at(now)).div_ceil(self.parts)
    }

    /// True when a bucket that stands at `next` is as one that nobody has used.
    pub(super) fn is_over(&self, next: u64, now: u64) -> bool {
        next <= self.at(now)
    }

    /// What follows on `next` when one comes who is let in while less than the capacity is ahead.
    fn after(&self, next: u64, now: u64) -> Result<u64, TooMany> {
        self.beyond(next, now, self.capacity - 1)
    }

    fn beyond(&self, next: u64, now: u64, ahead: u64) -> Result<u64, TooMany> {
        let now = self.at(now);
        let latest = now.saturating_add(ahead * self.step);
        if next > latest {
            return Err(TooMany { wait: (next - latest).div_ceil(self.parts) });
        }
        Ok(next.max(now).saturating_add(self.step))
    }

    /// Lets one in, if there is room.
    pub(super) fn take(&self, next: &mut u64, now: u64) -> Result<(), TooMany> {
        *next = self.after(*next, now)?;
        Ok(())
    }

    /// What follows on `next` when one comes who waits; the moment it is to leave is a step before that.
    fn behind(&self, next: u64, now: u64) -> Result<u64, TooMany> {
        self.beyond(next, now, self.capacity)
    }
}

/// Moments that were reserved and are free again, the earliest first. At most as many as wait.
#[derive(Debug, Default)]
struct Free(BinaryHeap<Reverse<u64>>);

impl Free {
    /// The earliest that has not passed.
    fn earliest(&mut self, now: u64) -> Option<u64> {
        while let Some(Reverse(at)) = self.0.pop() {
            if at >= now {
                return Some(at);
            }
        }
        None
    }
}

/// The state of a bucket that all share: a word, moved by compare-and-swap.
#[derive(Debug, Default)]
pub(super) struct Shared {
    next: AtomicU64,
    /// Somebody who waited has left: the one case in which there is a lock to take.
    any_free: AtomicBool,
    free: Mutex<Free>,
}

impl Shared {
    pub(super) fn take(&self, pace: &Pace, now: u64) -> Result<(), TooMany> {
        self.step(|next| pace.after(next, now)).map(|_| ())
    }

    /// A place in the queue: the moment that it is for.
    pub(super) fn queue(&self, pace: &Pace, now: u64) -> Result<u64, TooMany> {
        if self.any_free.load(Relaxed)
            && let Some(at) = self.earliest(pace.at(now))
        {
            return Ok(at);
        }
        self.step(|next| pace.behind(next, now)).map(|next| next - pace.step)
    }

    fn earliest(&self, now: u64) -> Option<u64> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.earliest(now);
        self.any_free.store(!free.0.is_empty(), Relaxed);
        at
    }

    pub(super) fn give_back(&self, at: u64) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.0.push(Reverse(at));
        self.any_free.store(true, Relaxed);
    }

    /// Moves the word; what it stands at then.
    fn step(&self, step: impl Fn(u64) -> Result<u64, TooMany>) -> Result<u64, TooMany> {
        let mut seen = self.next.load(Relaxed);
        loop {
            let next = step(seen)?;
            match self.next.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(next),
                Err(there) => seen = there,
            }
        }
    }
}

/// The state of a queue that one key has.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) next: u64,
    /// Allocated when somebody who waited has left.
    free: Option<Box<Free>>,
}

impl Queue {
    /// A place in it: the moment that it is for.
    pub(super) fn join(&mut self, pace: &Pace, now: u64) -> Result<u64, TooMany> {
        if let Some(free) = &mut self.free {
            match free.earliest(pace.at(now)) {
                Some(at) => return Ok(at),
                None => self.free = None,
            }
        }
        self.next = pace.behind(self.next, now)?;
        Ok(self.next - pace.step)
    }

    pub(super) fn give_back(&mut self, at: u64) {
        self.free.get_or_insert_default().0.push(Reverse(at));
    }
}

impl State for Queue {
    fn bytes(&self) -> usize {
        self.free.as_ref().map_or(0, |free| size_of::<Free>() + free.0.capacity() * size_of::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_exact_where_it_can_be_and_never_too_fast() {
        // Rate, capacity; a nanosecond in parts, a step in parts.
        let rows = [
            ("ten a second", 10.0, 100, 1, 100_000_000),
            ("a tenth", 0.1, 1, 1, 10_000_000_000),
            ("three: thirds of a nanosecond", 3.0, 1, 3, 1_000_000_000),
            ("seven hundred thousand", 700_000.0, 1, 7, 10_000),
            ("the highest", 1e6, 1_000_000, 1, 1_000),
            ("the lowest, and the largest bucket", 0.001, 1_000_000, 1, 1_000_000_000_000),
            ("a prime: a part too slow at the most", 999_983.0, 1, 32, 32_001),
        ];
        for (why, rate, capacity, parts, step) in rows {
            let pace = Pace::new(capacity, rate);
            assert_eq!((pace.parts, pace.step), (parts, step), "{why}");
            let real = 1e9 * pace.parts as f64 / pace.step as f64;
            assert!(real <= rate * (1.0 + 1e-12) && real > rate * 0.9999, "{why}: {real}");
        }
    }
}
