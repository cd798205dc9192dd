//! Counters: one padded cell a worker, written by it alone, read by anyone.
//!
//! [`Stats`] counts what concerns the process, for the log; [`Tallies`] what concerns one listener, pool or backend.
//! Knows: numbers. Must not touch: sockets, the clock, who prints them.

mod gates;
mod tally;

pub use gates::Gates;
pub use tally::{Sum, Tallies, Tally};

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
    /// Requests and connections beyond a rate_limit: answered 429, or closed.
    limited,
    /// Connections beyond max_per_client: answered 429, or closed.
    crowded,
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
    /// UDP: sessions begun.
    udp_sessions,
    /// UDP: datagrams from clients. Each is counted once more: as forwarded, or as dropped for one reason.
    udp_in,
    /// UDP: datagrams passed on to backends.
    udp_forwarded,
    /// UDP: dropped since no backend was to be had.
    udp_no_backend,
    /// UDP: dropped since they would have begun a session beyond a limit.
    udp_over_limit,
    /// UDP: dropped since they would have begun a session beyond a rate_limit.
    udp_limited,
    /// UDP: dropped since they would have begun a session while draining.
    udp_draining,
    /// UDP: empty ones, dropped since they had no session.
    udp_empty,
    /// UDP: dropped since they came truncated.
    udp_truncated,
    /// UDP: dropped since they are longer than the way to the backend takes.
    udp_too_big,
    /// UDP: dropped since the socket to the backend had no room.
    udp_would_block,
    /// UDP: dropped since the backend refused them (ICMP) and no other took them.
    udp_refused,
    /// UDP: dropped for a shortage or an error of ours.
    udp_failed,
    /// UDP: datagrams from backends. Each is counted once more: as sent to its client, or as dropped for one reason.
    udp_replies,
    /// UDP: datagrams sent to clients.
    udp_out,
    /// UDP: datagrams that came to a session's socket from somebody it had not sent to, dropped.
    udp_stranger,
    /// UDP: replies dropped since they came truncated.
    udp_reply_truncated,
    /// UDP: replies dropped since they are longer than the way to the client takes.
    udp_reply_too_big,
    /// UDP: replies dropped since the listening socket had no room.
    udp_reply_would_block,
    /// UDP: replies dropped for another error.
    udp_reply_failed,
    /// UDP: times that a session went to another backend than its own, which was down.
    udp_moved,
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
        if self.limited + self.crowded > 0 {
            write!(f, "; {} beyond a rate_limit, {} beyond max_per_client", self.limited, self.crowded)?;
        }
        if self.udp_in + self.udp_replies > 0 {
            let lost_in = self.udp_in - self.udp_forwarded.min(self.udp_in);
            let lost_out = self.udp_replies - self.udp_out.min(self.udp_replies);
            write!(
                f,
                "; udp: {} sessions, {} datagrams in ({lost_in} dropped), {} replies ({lost_out} dropped)",
                self.udp_sessions, self.udp_in, self.udp_replies
            )?;
        }
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
    fn udp_is_told_of_where_there_was_any() {
        let totals =
            Totals { udp_sessions: 2, udp_in: 9, udp_forwarded: 7, udp_replies: 5, udp_out: 4, ..Totals::default() };
        let told = "udp: 2 sessions, 9 datagrams in (2 dropped), 5 replies (1 dropped)";
        assert!(totals.to_string().ends_with(told), "{totals}");
        assert!(!Totals::default().to_string().contains("udp"));
    }

    #[test]
    fn totals_are_the_sum_of_the_cells() {
        let stats = Stats::new(2);
        stats.cell(0).accepted.add(2);
        stats.cell(1).accepted.add(3);
        stats.cell(1).bytes_in.add(7);
        assert_eq!(stats.totals(), Totals { accepted: 5, bytes_in: 7, ..Totals::default() });
    }
}
