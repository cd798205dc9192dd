//! What is counted of one listener, pool or backend, for `/lb/stats`.

use super::Counter;
use crate::base::ids::WorkerId;
use crossbeam_utils::CachePadded;
use std::sync::Arc;

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What one worker counts of a listener, pool or backend. Whatever has begun ends exactly once: succeeded, failed,
        /// refused or aborted.
        #[derive(Debug, Default)]
        pub struct Tally {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// A [`Tally`] over all workers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Sum {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Tallies {
            /// The sum over all workers, as it stands now. What has ended is read before what has begun, so that no more
            /// seems to have ended.
            pub fn sum(&self) -> Sum {
                let mut sum = Sum::default();
                for cell in &self.0 {
                    $(sum.$name = sum.$name.wrapping_add(cell.$name.get());)*
                }
                sum
            }
        }

        impl std::ops::AddAssign for Sum {
            fn add_assign(&mut self, other: Sum) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }
    };
}

tally! {
    /// Served, and what the backend answered was no failure of its own.
    succeeded,
    /// The connection to the backend failed or broke, it was too slow, or it answered a 5xx other than 501 and 505.
    failed,
    /// By us: no backend to be had, no route, too large, malformed.
    refused,
    /// Ended for no fault of the backend: the client left, or we ran short of something.
    aborted,
    /// HTTP requests; of a backend, those that were tried with it.
    requests,
    /// TCP connections; of a backend, those that were tried with it.
    connections,
    /// UDP sessions.
    sessions,
    /// Datagrams from clients.
    datagrams_in,
    /// Datagrams to clients.
    datagrams_out,
    /// Bytes from clients, heads and bodies alike.
    bytes_in,
    /// Bytes to clients, as the backends sent them.
    bytes_out,
    /// Tries after the first one; of a backend, those made because it failed.
    retries,
    /// Nanoseconds of all the times measured: to the head of a response (http), to connect (tcp), to the first reply (udp).
    latency_nanos,
    /// How many were measured.
    latencies,
}

/// A backend costs this much for each worker, so thousands of them do not cost much.
const _: () = assert!(size_of::<Tally>() <= 128, "a tally fits two cache lines");

impl Tally {
    /// Takes note of a time, in nanoseconds.
    #[inline]
    pub fn latency(&self, nanos: u64) {
        self.latency_nanos.add(nanos);
        self.latencies.add(1);
    }
}

impl Sum {
    /// What has begun and not ended.
    pub fn active(&self) -> u64 {
        let begun = self.requests + self.connections + self.sessions;
        begun.saturating_sub(self.succeeded + self.failed + self.refused + self.aborted)
    }

    /// The share, 0 to 1, that succeeded of what succeeded or failed; 1 when nothing did either.
    pub fn success_rate(&self) -> f64 {
        match self.succeeded + self.failed {
            0 => 1.0,
            judged => self.succeeded as f64 / judged as f64,
        }
    }

    /// In milliseconds; 0 when nothing was measured.
    pub fn mean_latency(&self) -> f64 {
        match self.latencies {
            0 => 0.0,
            count => self.latency_nanos as f64 / count as f64 / 1e6,
        }
    }
}

/// The cells of one listener, pool or backend, one a worker: each written by that worker alone.
#[derive(Debug)]
pub struct Tallies(Box<[CachePadded<Tally>]>);

impl Tallies {
    /// A cell for each of `workers`.
    pub fn new(workers: usize) -> Tallies {
        Tallies((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// The same, to be shared between snapshots.
    pub fn shared(workers: usize) -> Arc<Tallies> {
        Arc::new(Tallies::new(workers))
    }

    /// The cell of one worker.
    ///
    /// # Panics
    /// When there is no such worker.
    #[inline]
    pub fn of(&self, worker: WorkerId) -> &Tally {
        &self.0[usize::from(worker.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_all_workers() {
        let tallies = Tallies::new(2);
        tallies.of(WorkerId(0)).requests.add(2);
        tallies.of(WorkerId(1)).requests.add(3);
        tallies.of(WorkerId(1)).succeeded.add(1);
        tallies.of(WorkerId(0)).latency(1_000_000);
        tallies.of(WorkerId(1)).latency(4_000_000);
        let mut sum = tallies.sum();
        assert_eq!((sum.requests, sum.active(), sum.latencies), (5, 4, 2));
        assert!((sum.mean_latency() - 2.5).abs() < 1e-9);
        sum += tallies.sum();
        assert_eq!((sum.requests, sum.active()), (10, 8));
    }

    #[test]
    fn rates_are_of_what_was_judged() {
        let rows = [
            ("nothing yet", Sum::default(), 1.0),
            ("all is well", Sum { succeeded: 3, ..Sum::default() }, 1.0),
            ("a quarter failed", Sum { succeeded: 3, failed: 1, ..Sum::default() }, 0.75),
            (
                "refusals and clients that left count for nothing",
                Sum { succeeded: 1, failed: 1, refused: 8, aborted: 8, ..Sum::default() },
                0.5,
            ),
            ("nothing but failures", Sum { failed: 2, ..Sum::default() }, 0.0),
        ];
        for (why, sum, expected) in rows {
            assert_eq!(sum.success_rate(), expected, "{why}");
        }
        assert_eq!(Sum { succeeded: 2, requests: 1, ..Sum::default() }.active(), 0, "never less than none");
    }
}
