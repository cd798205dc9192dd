//! Counters: one padded cell a worker, written by it alone, read by anyone.
//!
//! Knows: numbers. Must not touch: sockets, the clock, who prints them.

use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread moves and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner of the cell may call this: it is a load and a store, no locked instruction.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What it stands at, maybe a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What one worker counts.
        #[derive(Debug, Default)]
        pub struct Cell {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The sum over all workers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// The sum over all workers, as it stands now.
            pub fn totals(&self) -> Totals {
                let mut totals = Totals::default();
                for cell in &self.cells {
                    $(totals.$name += cell.$name.get();)*
                }
                totals
            }
        }
    };
}

cells! {
    /// Client connections taken on.
    accepted,
    /// Requests answered by backends.
    requests,
    /// Connections and requests that found no backend: refused by all, none available, or none in time.
    unserved,
    /// Connections to backends that failed or took too long.
    failed,
    /// Other backends tried after a failure.
    retried,
    /// TCP connections and upgraded ones that both sides ended in good order.
    ended,
    /// Cut: a reset by one side, passed on to the other.
    cut,
    /// Closed because no byte moved for the idle timeout.
    idle,
    /// Closed because the worker was over its memory cap.
    shed,
    /// Handed to a less loaded worker.
    moved,
    /// Sessions that ended in a panic of ours.
    panics,
    /// Bytes from clients.
    bytes_in,
    /// Bytes to clients.
    bytes_out,
}

/// All cells of a process.
#[derive(Debug)]
pub struct Stats {
    cells: Box<[CachePadded<Cell>]>,
}

impl Stats {
    /// A cell for each of `workers`.
    pub fn new(workers: usize) -> Stats {
        Stats { cells: (0..workers).map(|_| CachePadded::default()).collect() }
    }

    /// The cell of one worker.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn cell(&self, worker: usize) -> &Cell {
        &self.cells[worker]
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections and {} requests ({} ended, {} cut, {} idle, {} unserved, {} shed), {} bytes in, {} bytes out, \
             {} failed connections to backends, {} retries",
            self.accepted,
            self.requests,
            self.ended,
            self.cut,
            self.idle,
            self.unserved,
            self.shed,
            self.bytes_in,
            self.bytes_out,
            self.failed,
            self.retried
        )?;
        if self.panics > 0 {
            write!(f, ", {} PANICS", self.panics)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_the_cells() {
        let stats = Stats::new(2);
        stats.cell(0).accepted.add(2);
        stats.cell(1).accepted.add(3);
        stats.cell(1).bytes_in.add(7);
        assert_eq!(stats.totals(), Totals { accepted: 5, bytes_in: 7, ..Totals::default() });
    }
}
