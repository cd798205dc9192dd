//! What the limits of a listener or pool have let in, and what not, for `/lb/stats`.

use super::Counter;
use crate::base::ids::WorkerId;
use crossbeam_utils::CachePadded;

/// Counted by each worker for itself.
#[derive(Debug, Default)]
struct Gate {
    allowed: Counter,
    limited: Counter,
}

/// What a limit by rate has come to so far. Outlives the limit, when that is changed.
#[derive(Debug)]
pub struct Gates(Box<[CachePadded<Gate>]>);

impl Gates {
    /// Counts for so many workers.
    pub fn new(workers: usize) -> Gates {
        Gates((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// So many were let in. Only by their worker.
    #[inline]
    pub fn allowed(&self, worker: WorkerId, count: u64) {
        self.0[usize::from(worker.0)].allowed.add(count);
    }

    /// So many were not. Only by their worker.
    pub fn limited(&self, worker: WorkerId, count: u64) {
        self.0[usize::from(worker.0)].limited.add(count);
    }

    /// How many were let in, and how many not, as it stands now.
    pub fn totals(&self) -> (u64, u64) {
        let add =
            |(allowed, limited), gate: &CachePadded<Gate>| (allowed + gate.allowed.get(), limited + gate.limited.get());
        self.0.iter().fold((0, 0), add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_those_of_all_workers() {
        let gates = Gates::new(2);
        gates.allowed(WorkerId(0), 2);
        gates.allowed(WorkerId(1), 3);
        gates.limited(WorkerId(1), 7);
        assert_eq!(gates.totals(), (5, 7));
    }
}
