//! The threads of the library: one that knows what is due (checks, and registrations that have run out), and those it has
//! make checks, which wait for sockets. They end when the last pool that they look after is dropped.

use crate::client::check::{self, Ended};
use crate::client::members::Seat;
use crate::client::pool::Inner;
use crate::client::rules::HealthCheck;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Checks at once, for all pools of a keeper: each has a thread while it lasts.
pub(super) const AT_ONCE: usize = 16;
/// What is due within so long of a round waits for the next one, so that a thousand checks are not a thousand rounds.
const PACE: Duration = Duration::from_millis(5);
/// A thread that has had nothing to check for so long ends.
const IDLE: Duration = Duration::from_secs(10);
/// Nothing is due: a look now and then does no harm.
const LONG: Duration = Duration::from_secs(3600);

/// A check to make.
pub(super) struct Job {
    pub(super) pool: Weak<Inner>,
    pub(super) seat: Seat,
    pub(super) how: Arc<HealthCheck>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when something may be due sooner than was thought.
    moved: Condvar,
    /// Told when there is something to check.
    work: Condvar,
}

#[derive(Default)]
struct State {
    pools: Vec<Weak<Inner>>,
    thread: Option<JoinHandle<()>>,
    stop: bool,
    moved: bool,
    jobs: VecDeque<Job>,
    checkers: usize,
    idle: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("pools", &self.pools.len())
            .field("checkers", &self.checkers)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// One that looks after nobody, and has no thread.
    pub(super) fn new() -> Arc<Keeper> {
        Arc::new(Keeper { shared: Arc::default() })
    }

    /// From now on `pool` is looked after. Another call for the same pool changes nothing.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(super) fn watch(&self, pool: &Arc<Inner>) -> io::Result<()> {
        let mut state = self.shared.lock();
        if state.thread.is_none() {
            let shared = self.shared.clone();
            let thread = thread::Builder::new().name("l4lb-client".into()).spawn(move || shared.run())?;
            state.thread = Some(thread);
        }
        let pool = Arc::downgrade(pool);
        if !state.pools.iter().any(|known| known.ptr_eq(&pool)) {
            state.pools.push(pool);
        }
        drop(state);
        self.look();
        Ok(())
    }

    /// Something may be due sooner than was thought.
    pub(super) fn look(&self) {
        self.shared.look();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stop = true;
        state.jobs.clear();
        let thread = state.thread.take();
        drop(state);
        self.shared.moved.notify_all();
        self.shared.work.notify_all();
        // The thread itself may have held the last pool. Those that check are not waited for: they hold nothing, and end
        // with the timeout of what they check.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Nothing that could panic is done while it is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        self.lock().moved = true;
        self.moved.notify_all();
    }

    fn run(self: Arc<Shared>) {
        loop {
            let pools: Vec<Arc<Inner>> = {
                let mut state = self.lock();
                if state.stop {
                    return;
                }
                state.moved = false;
                state.pools.retain(|pool| pool.strong_count() > 0);
                state.pools.iter().filter_map(Weak::upgrade).collect()
            };
            let mut jobs = Vec::new();
            let next = pools.iter().filter_map(|pool| pool.tend(&mut jobs)).min().unwrap_or(LONG);
            // Not under the lock: it may be the last that holds them, and with them the keeper.
            drop(pools);
            let mut state = self.lock();
            if !jobs.is_empty() {
                state.jobs.extend(jobs);
                self.man(&mut state);
            }
            let woken = self.moved.wait_timeout_while(state, PACE, |state| !state.stop);
            let (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
            let rest = next.saturating_sub(PACE);
            drop(self.moved.wait_timeout_while(state, rest, |state| !state.stop && !state.moved));
        }
    }

    /// Sees to it that there are enough threads for the jobs that wait, and no more than there may be.
    fn man(self: &Arc<Shared>, state: &mut State) {
        let wanted = state.jobs.len().saturating_sub(state.idle).min(AT_ONCE - state.checkers);
        for _ in 0..wanted {
            let shared = self.clone();
            match thread::Builder::new().name("l4lb-check".into()).spawn(move || shared.check()) {
                Ok(_) => state.checkers += 1,
                Err(error) => {
                    log::error!("no thread for a health check can be started: {error}");
                    break;
                }
            }
        }
        self.work.notify_all();
    }

    /// Makes checks until there have been none for a while.
    fn check(self: Arc<Shared>) {
        loop {
            let mut state = self.lock();
            state.idle += 1;
            let waited = self.work.wait_timeout_while(state, IDLE, |state| !state.stop && state.jobs.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
            let Some(Job { pool, seat, how }) = state.jobs.pop_front() else {
                state.checkers -= 1;
                return;
            };
            drop(state);
            let ended: Ended = check::run(&seat, &how);
            if let Some(pool) = pool.upgrade() {
                pool.checked(seat.state.slot, ended);
            }
            self.look();
        }
    }
}
