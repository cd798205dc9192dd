//! Clients that wait for a place at a backend: a bounded line over all workers, first come, first served.
//!
//! Each worker keeps its own clients in order and tells here who is first among them; whoever gives a place back asks here
//! which worker has the one who came first of all. Nothing is locked: what is read may be a moment old, so a worker that
//! is woken for nothing passes the word on.

use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// No client.
const NOBODY: u64 = u64::MAX;

/// The line of one pool.
#[derive(Debug)]
pub struct Line {
    /// How many may wait; 0: nobody.
    limit: AtomicU32,
    waiting: AtomicU32,
    next: AtomicU64,
    /// By worker: the number of the first of its clients.
    heads: Box<[CachePadded<AtomicU64>]>,
}

/// A place in a [`Line`]; given back on drop.
#[derive(Debug)]
pub struct Ticket {
    line: Arc<Line>,
    number: u64,
}

impl Line {
    /// A line over so many workers, in which nobody waits.
    pub fn new(workers: usize, limit: u32) -> Arc<Line> {
        Arc::new(Line {
            limit: AtomicU32::new(limit),
            waiting: AtomicU32::new(0),
            next: AtomicU64::new(0),
            heads: (0..workers).map(|_| CachePadded::new(AtomicU64::new(NOBODY))).collect(),
        })
    }

    /// A place behind all others; `None` when the line is full.
    pub fn join(self: &Arc<Self>) -> Option<Ticket> {
        let limit = self.limit.load(SeqCst);
        self.waiting.fetch_update(SeqCst, SeqCst, |waiting| (waiting < limit).then(|| waiting + 1)).ok()?;
        Some(Ticket { line: self.clone(), number: self.next.fetch_add(1, SeqCst) })
    }

    /// From now on so many may wait. Who waits already does so still.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, SeqCst);
    }

    /// How many may wait.
    #[inline]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// True while nobody waits: one load, for those who give a place back and those who come.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.load(SeqCst) == 0
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Tells who is first among the clients of `worker`.
    pub fn set_head(&self, worker: usize, head: Option<u64>) {
        self.heads[worker].store(head.unwrap_or(NOBODY), SeqCst);
    }

    /// The worker with the client who came first of all.
    pub fn first(&self) -> Option<usize> {
        let heads = self.heads.iter().map(|head| head.load(SeqCst)).enumerate();
        heads.filter(|(_, head)| *head != NOBODY).min_by_key(|(_, head)| *head).map(|(worker, _)| worker)
    }
}

impl Ticket {
    /// Its number: who has a smaller one came before.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded_and_numbers_go_up() {
        let line = Line::new(1, 2);
        assert!(line.is_empty());
        let (first, second) = (line.join().unwrap(), line.join().unwrap());
        assert!(first.number() < second.number());
        assert!(line.join().is_none(), "it is full");
        drop(first);
        assert_eq!(line.waiting(), 1);
        let third = line.join().unwrap();
        assert!(second.number() < third.number(), "behind those who came before");
        assert!(Line::new(1, 0).join().is_none(), "no line at all");
    }

    #[test]
    fn the_first_of_all_is_found_over_the_workers() {
        let line = Line::new(3, 10);
        assert_eq!(line.first(), None);
        line.set_head(2, Some(5));
        line.set_head(0, Some(7));
        assert_eq!(line.first(), Some(2));
        line.set_head(2, None);
        assert_eq!(line.first(), Some(0));
    }
}
