//! The sliding window: when each of the last so many was let in. Nobody is let in while the oldest of them is in the window.

use super::TooMany;
use super::table::State;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

/// A log with room for fewer moments than this is not worth making smaller.
const SMALL: usize = 64;

/// For all clients together: a ring of moments without a lock.
///
/// Each slot holds a moment, and in its lowest bit whether it was written in an even or an odd round. Whoever is let in
/// writes the slot that the count leads to; whoever finds that written already moves the count on for the writer. So a
/// thread that is held up between the two holds up nobody.
#[derive(Debug)]
pub(super) struct Ring {
    span: u64,
    count: AtomicU64,
    slots: Box<[AtomicU64]>,
}

impl Ring {
    /// At most `max` in any `span`, in nanoseconds.
    pub(super) fn new(max: u32, span: u64) -> Ring {
        Ring { span, count: AtomicU64::new(0), slots: (0..max.max(1)).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(super) fn take(&self, now: u64) -> Result<(), TooMany> {
        // A span later than it is: so 0, which all slots begin with, lies outside of the window.
        let now = now.saturating_add(self.span).min(u64::MAX >> 1);
        let size = self.slots.len() as u64;
        loop {
            let count = self.count.load(Acquire);
            let slot = &self.slots[(count % size) as usize];
            let mark = 1 - ((count / size) & 1);
            let seen = slot.load(Acquire);
            if seen & 1 == mark {
                // Written, and not counted yet.
                let _ = self.count.compare_exchange(count, count + 1, Release, Acquire);
                continue;
            }
            let oldest = seen >> 1;
            if oldest + self.span > now {
                // What was seen is the oldest only if nobody was let in meanwhile.
                if self.count.load(Acquire) != count {
                    continue;
                }
                return Err(TooMany { wait: oldest + self.span - now });
            }
            // A slot that is as it was seen has not been written since, for what is written there lies a span behind what
            // was there before. So the count is what it was, too.
            if slot.compare_exchange(seen, now << 1 | mark, Release, Acquire).is_ok() {
                let _ = self.count.compare_exchange(count, count + 1, Release, Acquire);
                return Ok(());
            }
        }
    }
}

/// The same for one key: under its lock, and with room for no more moments than there were.
#[derive(Debug, Default)]
pub(super) struct Log(VecDeque<u64>);

impl Log {
    pub(super) fn take(&mut self, max: u32, span: u64, now: u64) -> Result<(), TooMany> {
        let now = self.0.back().map_or(now, |last| now.max(*last));
        while self.0.front().is_some_and(|oldest| oldest.saturating_add(span) <= now) {
            self.0.pop_front();
        }
        if self.0.capacity() > SMALL && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2);
        }
        match self.0.front() {
            Some(oldest) if self.0.len() >= max as usize => Err(TooMany { wait: oldest + span - now }),
            _ => {
                self.0.push_back(now);
                Ok(())
            }
        }
    }

    /// True when it is as one that nobody has used.
    pub(super) fn is_over(&self, span: u64, now: u64) -> bool {
        self.0.back().is_none_or(|last| last.saturating_add(span) <= now)
    }
}

impl State for Log {
    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }
}
