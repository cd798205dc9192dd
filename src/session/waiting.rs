//! The clients of one worker that wait for a place at a backend, in the order they came.

use crate::base::ids::{PoolId, SessionId};
use crate::base::time::Tick;
use crate::guard::Ticket;
use crate::shared::queue::Queue;
use crate::shared::snapshot::Pool;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Who of a worker waits, by pool. Entries of those that have left stay until they come to the front.
#[derive(Default)]
pub struct Waiting {
    worker: usize,
    pools: BTreeMap<PoolId, Lane>,
}

struct Lane {
    queue: Arc<Queue>,
    /// Numbers of tickets, and whose they are.
    clients: VecDeque<(u64, SessionId)>,
}

/// A place in the line.
pub struct Place {
    ticket: Ticket,
    /// When it has waited for long enough.
    pub until: Tick,
}

impl Waiting {
    /// Nobody of `worker` waits.
    pub fn new(worker: usize) -> Waiting {
        Waiting { worker, pools: BTreeMap::new() }
    }

    /// True while somebody may wait.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// A place behind all others in the line of `pool`; `None` when there is no line, or it is full.
    pub fn join(&mut self, id: PoolId, pool: &Pool, session: SessionId, now: Tick) -> Option<Place> {
        let ticket = pool.queue.join()?;
        let lane = self.pools.entry(id);
        let lane = lane.or_insert_with(|| Lane { queue: pool.queue.clone(), clients: VecDeque::new() });
        lane.clients.push_back((ticket.number(), session));
        if lane.clients.len() == 1 {
            lane.queue.set_head(self.worker, Some(ticket.number()));
        }
        Some(Place { ticket, until: now.after(pool.queue_timeout) })
    }

    /// True when it is the turn of `place`: nobody in any worker came before it.
    pub fn is_turn_of(&self, pool: PoolId, place: &Place) -> bool {
        self.pools.get(&pool).is_some_and(|lane| {
            let head = lane.clients.front().map(|(number, _)| *number);
            head == Some(place.ticket.number()) && lane.queue.is_first(self.worker)
        })
    }

    /// The pool behind `last` that somebody may wait for; `None` begins with the first.
    pub fn pool_after(&self, last: Option<PoolId>) -> Option<PoolId> {
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.pools.range((behind, Bound::Unbounded)).next().map(|(id, _)| *id)
    }

    /// The client of this worker that is first in the line of `pool`, if it is first of all.
    pub fn head(&self, pool: PoolId) -> Option<(u64, SessionId)> {
        let lane = self.pools.get(&pool)?;
        lane.clients.front().copied().filter(|_| lane.queue.is_first(self.worker))
    }

    /// The client with that ticket waits no more. Whoever is behind it is next, in whichever worker.
    pub fn leave(&mut self, pool: PoolId, number: u64) {
        let Some(lane) = self.pools.get_mut(&pool) else { return };
        if lane.clients.front().is_some_and(|(first, _)| *first == number) {
            lane.clients.pop_front();
        } else {
            lane.clients.retain(|(other, _)| *other != number);
        }
        lane.queue.set_head(self.worker, lane.clients.front().map(|(number, _)| *number));
        if lane.queue.is_waited_in() {
            lane.queue.wake_first();
        }
        if lane.clients.is_empty() {
            self.pools.remove(&pool);
        }
    }
}

impl Place {
    /// The number of its ticket.
    pub fn number(&self) -> u64 {
        self.ticket.number()
    }
}

/// How often those who wait look for themselves: a breaker that lets a trial through, or a backend that comes up, wakes
/// nobody.
pub const LOOK: Duration = Duration::from_millis(50);
