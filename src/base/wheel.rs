//! A hierarchical timer wheel: one entry a session, moved lazily.
//!
//! Six bits a level, one millisecond a tick, five levels: 12 days. What lies beyond is held at the far end and comes
//! early; so does an entry whose deadline has moved on meanwhile. The owner of an entry therefore always compares with
//! the deadline it has now, and puts the entry in again when that is later. (Varghese and Lauck, "Hashed and hierarchical
//! timing wheels", SOSP 1987, scheme 7.)

use crate::base::time::Tick;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 5;
/// How far ahead an entry can lie, in ticks.
const REACH: u64 = 1 << (BITS * LEVELS as u32);
/// A slot that was ever this long gives its memory back when it is emptied.
const KEEP: usize = 64;

/// Holds keys until their tick has come.
pub struct Wheel<K> {
    now: u64,
    levels: [Level<K>; LEVELS],
    len: usize,
    moving: Vec<(Tick, K)>,
}

struct Level<K> {
    /// Bit i: slot i holds something.
    held: u64,
    slots: [Vec<(Tick, K)>; SLOTS],
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel that stands at `now`.
    pub fn new(now: Tick) -> Self {
        let level = || Level { held: 0, slots: std::array::from_fn(|_| Vec::new()) };
        Wheel { now: now.0, levels: std::array::from_fn(|_| level()), len: 0, moving: Vec::new() }
    }

    /// How many entries are held, stale ones too.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `key` in for `due`; one in the past comes at the next tick.
    pub fn insert(&mut self, due: Tick, key: K) {
        self.len += 1;
        self.place(due, key);
    }

    fn place(&mut self, due: Tick, key: K) {
        let when = due.0.clamp(self.now + 1, self.now + REACH - 1);
        // The highest group of six bits in which `when` and `now` differ.
        let level = ((63 - (when ^ self.now).leading_zeros()) / BITS).min(LEVELS as u32 - 1);
        let slot = (when >> (BITS * level)) as usize % SLOTS;
        let level = &mut self.levels[level as usize];
        level.slots[slot].push((due, key));
        level.held |= 1 << slot;
    }

    /// The next tick at which something may have come; `None` when the wheel is empty. Never later than the truth.
    pub fn next(&self) -> Option<Tick> {
        self.nearest().map(|(_, _, when)| Tick(when))
    }

    fn nearest(&self) -> Option<(usize, usize, u64)> {
        // What is on a lower level is always nearer.
        let (number, level) = self.levels.iter().enumerate().find(|(_, level)| level.held != 0)?;
        let shift = BITS * number as u32;
        let here = (self.now >> shift) as usize % SLOTS;
        // The present slot comes last: only on the top level can it hold something, a whole turn ahead.
        let ahead = level.held.rotate_right(here as u32 + 1).trailing_zeros() as usize + 1;
        let slot = (here + ahead) % SLOTS;
        let when = ((self.now >> shift) + ahead as u64) << shift;
        Some((number, slot, when))
    }

    /// Moves on to `now` and gives every entry that has come to `fired`, with the tick it was put in for.
    pub fn advance(&mut self, now: Tick, fired: &mut Vec<(Tick, K)>) {
        while let Some((number, slot, when)) = self.nearest() {
            if when > now.0 {
                break;
            }
            self.now = when;
            let level = &mut self.levels[number];
            level.held &= !(1 << slot);
            std::mem::swap(&mut self.moving, &mut level.slots[slot]);
            let mut moving = std::mem::take(&mut self.moving);
            for (due, key) in moving.drain(..) {
                // An entry from beyond the reach is given out early rather than carried round again.
                if due.0 <= when || number == LEVELS - 1 && due.0 >= when + REACH {
                    self.len -= 1;
                    fired.push((due, key));
                } else {
                    self.place(due, key);
                }
            }
            if moving.capacity() > KEEP {
                moving = Vec::new();
            }
            self.moving = moving;
        }
        self.now = self.now.max(now.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_comes_at_its_tick() {
        for due in [1, 2, 63, 64, 65, 4095, 4096, 4097, 262_144, 16_777_216, 16_777_217, 1_000_000_000] {
            for start in [0, 1, 63, 64, 4095, 1_000_000] {
                let mut wheel = Wheel::new(Tick(start));
                wheel.insert(Tick(start + due), 'x');
                let mut fired = Vec::new();
                wheel.advance(Tick(start + due - 1), &mut fired);
                assert!(fired.is_empty(), "{due} from {start}: too early");
                wheel.advance(Tick(start + due), &mut fired);
                assert_eq!(fired, [(Tick(start + due), 'x')], "{due} from {start}");
                assert!(wheel.is_empty());
            }
        }
    }

    #[test]
    fn what_is_past_comes_at_the_next_tick_and_what_is_beyond_reach_is_not_lost() {
        let mut wheel = Wheel::new(Tick(100));
        wheel.insert(Tick(7), 'p');
        let mut fired = Vec::new();
        wheel.advance(Tick(100), &mut fired);
        assert!(fired.is_empty());
        wheel.advance(Tick(101), &mut fired);
        assert_eq!(fired.len(), 1);
        wheel.insert(Tick::NEVER, 'n');
        fired.clear();
        wheel.advance(Tick(101 + REACH), &mut fired);
        assert_eq!(fired, [(Tick::NEVER, 'n')], "early, so that its owner looks again");
    }

    proptest! {
        #[test]
        fn all_come_none_early_none_late(
            start in 0u64..10_000_000,
            entries in prop::collection::vec(prop_oneof![0u64..200, 0u64..100_000, 0u64..1_000_000_000], 1..200),
            steps in prop::collection::vec(prop_oneof![0u64..100, 0u64..50_000, 0u64..500_000_000], 1..100),
        ) {
            let mut wheel = Wheel::new(Tick(start));
            let mut waiting: Vec<Tick> = Vec::new();
            let mut now = start;
            let (mut steps, mut entries) = (steps.into_iter(), entries.into_iter());
            loop {
                let wait = entries.next();
                if let Some(wait) = wait {
                    let due = Tick(now + wait);
                    wheel.insert(due, due);
                    waiting.push(due);
                }
                let step = steps.next();
                now += step.unwrap_or(0);
                let mut fired = Vec::new();
                let next = wheel.next();
                wheel.advance(Tick(now), &mut fired);
                prop_assert!(fired.is_empty() || next.is_some_and(|next| next.0 <= now), "next() was too late");
                for (due, key) in &fired {
                    prop_assert_eq!(due, key);
                    prop_assert!(due.0 <= now, "{:?} came at {}", due, now);
                    let at = waiting.iter().position(|w| w == due);
                    prop_assert!(at.is_some(), "came twice");
                    waiting.swap_remove(at.unwrap());
                }
                // An entry for the very tick it was put in at comes with the next one.
                prop_assert!(waiting.iter().all(|due| due.0 > now || Some(due.0) == wait.map(|w| now + w) || step == Some(0) || step.is_none()), "late at {}", now);
                if wait.is_none() && step.is_none() {
                    break;
                }
            }
            let mut fired = Vec::new();
            wheel.advance(Tick(now + REACH), &mut fired);
            prop_assert_eq!(fired.len(), waiting.len());
            prop_assert!(wheel.is_empty());
        }
    }
}
