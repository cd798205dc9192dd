//! The line of clients before a pool whose backends are full, and who is woken when a place comes free.

use crate::guard::{Line, Ticket};
use mio::Waker;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::sync::{Arc, OnceLock};

/// Wakes a worker by its number. Empty until the workers are there.
pub type Wakers = Arc<OnceLock<Vec<Arc<Waker>>>>;

/// The line of one pool; it outlives snapshots.
#[derive(Debug)]
pub struct Queue {
    line: Arc<Line>,
    wakers: Wakers,
}

impl Queue {
    /// A line over so many workers in which at most `limit` wait.
    pub fn new(workers: usize, limit: u32, wakers: Wakers) -> Arc<Queue> {
        Arc::new(Queue { line: Line::new(workers, limit), wakers })
    }

    /// From now on at most `limit` wait.
    pub fn set_limit(&self, limit: u32) {
        self.line.set_limit(limit);
    }

    /// A place behind all others; `None` when the line is full.
    pub fn join(&self) -> Option<Ticket> {
        let ticket = self.line.join()?;
        // Whoever gives a place back after this sees that somebody waits; what was given back before is seen by the look
        // at the backends that follows.
        fence(SeqCst);
        Some(ticket)
    }

    /// True when somebody waits, so that a newcomer goes behind.
    #[inline]
    pub fn is_waited_in(&self) -> bool {
        !self.line.is_empty()
    }

    /// Tells who is first among the clients of `worker`.
    pub fn set_head(&self, worker: usize, head: Option<u64>) {
        self.line.set_head(worker, head);
    }

    /// True when the client that came first of all is one of `worker`.
    pub fn is_first(&self, worker: usize) -> bool {
        self.line.first() == Some(worker)
    }

    /// A place at a backend has come free: wakes the worker of the client that came first.
    #[inline]
    pub fn freed(&self) {
        if self.line.limit() == 0 {
            return;
        }
        fence(SeqCst);
        if self.is_waited_in() {
            self.wake_first();
        }
    }

    /// Wakes the worker of the client that came first.
    pub fn wake_first(&self) {
        let waker = self.line.first().and_then(|worker| self.wakers.get()?.get(worker));
        if let Some(Err(error)) = waker.map(|waker| waker.wake()) {
            log::error!("a worker cannot be woken: {error}");
        }
    }
}
