//! Publishing: one pointer, one truth, and who has seen it.

use crate::base::ids::WorkerId;
use crate::base::time::Tick;
use crate::shared::snapshot::Snapshot;
use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What all threads of a process share.
#[derive(Debug)]
pub struct Hub {
    snapshot: ArcSwap<Snapshot>,
    generation: AtomicU64,
    departing: AtomicBool,
    workers: Box<[CachePadded<Board>]>,
}

/// What a worker tells of itself.
#[derive(Debug, Default)]
struct Board {
    seen: AtomicU64,
    /// `LEAVING` once it takes no arrivals from others.
    sessions: AtomicU32,
    /// The tick at which it began its turn; `IDLE` while it waits for events.
    busy_since: AtomicU64,
}

const IDLE: u64 = u64::MAX;
const LEAVING: u32 = u32::MAX;

impl Hub {
    /// A hub for so many workers that begins with `first`.
    pub fn new(first: Arc<Snapshot>, workers: usize) -> Arc<Hub> {
        let board = || CachePadded::new(Board { busy_since: AtomicU64::new(IDLE), ..Board::default() });
        Arc::new(Hub {
            generation: AtomicU64::new(first.generation),
            snapshot: ArcSwap::new(first),
            departing: AtomicBool::new(false),
            workers: (0..workers).map(|_| board()).collect(),
        })
    }

    /// Puts `next` in force. For control alone. Returns what was in force: to be kept until [`Hub::all_seen`], and then
    /// freed by control, never by a worker.
    pub fn publish(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        let generation = next.generation;
        let last = self.snapshot.swap(next);
        self.generation.store(generation, Ordering::Release);
        last
    }

    /// What is in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// From now on [`Hub::departs`]: the process is to end.
    pub fn depart(&self) {
        self.departing.store(true, Ordering::Relaxed);
    }

    /// True when the process is to end, so that nobody should be sent to it any more, though it still serves.
    pub fn departs(&self) -> bool {
        self.departing.load(Ordering::Relaxed)
    }

    /// True when every worker works by `generation` or a later one.
    pub fn all_seen(&self, generation: u64) -> bool {
        self.workers.iter().all(|board| board.seen.load(Ordering::Acquire) >= generation)
    }

    /// Sessions of each worker, in order.
    pub fn sessions(&self) -> impl Iterator<Item = u32> {
        self.workers.iter().map(|board| board.sessions.load(Ordering::Relaxed))
    }

    /// True when every worker drains: then none mails an arrival any more.
    pub fn all_leaving(&self) -> bool {
        self.workers.iter().all(|board| board.sessions.load(Ordering::Acquire) == LEAVING)
    }

    /// Workers that have been in one turn since before `limit`, with the tick it began.
    pub fn stalled(&self, limit: Tick) -> impl Iterator<Item = (WorkerId, Tick)> {
        self.workers.iter().enumerate().filter_map(move |(at, board)| {
            let since = board.busy_since.load(Ordering::Relaxed);
            (since < limit.0).then_some((WorkerId(at as u16), Tick(since)))
        })
    }
}

/// One worker's side of the hub.
#[derive(Debug)]
pub struct Member {
    hub: Arc<Hub>,
    worker: WorkerId,
    snapshot: Arc<Snapshot>,
    leaving: bool,
}

impl Member {
    /// Joins `hub` as `worker`.
    pub fn new(hub: Arc<Hub>, worker: WorkerId) -> Member {
        let snapshot = hub.current();
        let member = Member { hub, worker, snapshot, leaving: false };
        member.board().seen.store(member.snapshot.generation, Ordering::Release);
        member
    }

    fn board(&self) -> &Board {
        &self.hub.workers[usize::from(self.worker.0)]
    }

    /// Once a loop turn: takes what is in force, and says so. True when it is new.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.hub.generation.load(Ordering::Acquire) == self.snapshot.generation {
            return false;
        }
        // Control keeps the old one until `seen` is told, so nothing is freed here.
        self.snapshot = self.hub.current();
        self.board().seen.store(self.snapshot.generation, Ordering::Release);
        true
    }

    /// What this worker works by.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Which worker this is.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// A turn begins.
    #[inline]
    pub fn beat(&self, now: Tick) {
        self.board().busy_since.store(now.0, Ordering::Relaxed);
    }

    /// The turn is over, and the worker waits.
    #[inline]
    pub fn rest(&self) {
        self.board().busy_since.store(IDLE, Ordering::Relaxed);
    }

    /// Tells how many sessions this worker has.
    #[inline]
    pub fn tell_sessions(&mut self, count: usize) {
        if !self.leaving {
            self.board().sessions.store(count as u32, Ordering::Relaxed);
        }
    }

    /// Tells that this worker drains: from now on it mails no arrival, and asks for none.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.board().sessions.store(LEAVING, Ordering::Release);
    }

    /// The worker a new client should go to instead of this one: the least loaded, when this one has over 1.25 times as
    /// many sessions and 8 more.
    pub fn better_worker(&self, mine: usize) -> Option<WorkerId> {
        if self.leaving {
            return None;
        }
        let (at, least) = self.hub.sessions().enumerate().min_by_key(|(_, sessions)| *sessions)?;
        (mine as u64 * 4 > u64::from(least) * 5 + 4 * 8).then_some(WorkerId(at as u16))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has left sees everything, so that nobody waits for it.
        self.board().seen.store(u64::MAX, Ordering::Release);
        self.leave();
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(generation: u64) -> Arc<Snapshot> {
        let (admin, listeners, pools) = Default::default();
        Arc::new(Snapshot { generation, edition: 1, admin, listeners, pools, cuts: 0 })
    }

    #[test]
    fn what_is_published_is_seen_by_each_once_it_looks() {
        let hub = Hub::new(snapshot(1), 2);
        let mut first = Member::new(hub.clone(), WorkerId(0));
        let mut second = Member::new(hub.clone(), WorkerId(1));
        assert!(hub.all_seen(1));
        let old = hub.publish(snapshot(2));
        assert_eq!(old.generation, 1);
        assert!(!hub.all_seen(2));
        assert!(first.refresh());
        assert!(!first.refresh(), "only once");
        assert!(!hub.all_seen(2), "the second has not looked");
        assert!(second.refresh());
        assert!(hub.all_seen(2));
        assert_eq!(Arc::strong_count(&old), 1, "control frees it, no worker does");
        drop(second);
        hub.publish(snapshot(3));
        first.refresh();
        assert!(hub.all_seen(3), "one that has left is not waited for");
    }

    #[test]
    fn arrivals_go_to_a_clearly_less_loaded_worker() {
        let hub = Hub::new(snapshot(1), 2);
        let (mut busy, mut other) = (Member::new(hub.clone(), WorkerId(0)), Member::new(hub, WorkerId(1)));
        for (why, mine, least, expected) in [
            ("both empty", 0, 0, None),
            ("eight more are allowed", 8, 0, None),
            ("nine are not", 9, 0, Some(WorkerId(1))),
            ("a quarter more and eight", 133, 100, None),
            ("beyond", 134, 100, Some(WorkerId(1))),
        ] {
            busy.tell_sessions(mine);
            other.tell_sessions(least);
            assert_eq!(busy.better_worker(mine), expected, "{why}");
        }
    }

    #[test]
    fn a_worker_that_stays_in_a_turn_is_found_and_one_that_waits_is_not() {
        let hub = Hub::new(snapshot(1), 1);
        let member = Member::new(hub.clone(), WorkerId(0));
        member.beat(Tick(100));
        assert_eq!(hub.stalled(Tick(100)).count(), 0);
        assert_eq!(hub.stalled(Tick(101)).next(), Some((WorkerId(0), Tick(100))));
        member.rest();
        assert_eq!(hub.stalled(Tick(1_000_000)).count(), 0);
    }
}
