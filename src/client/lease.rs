//! A backend that was picked, until its user says how it went.

use crate::base::time::Clock;
use crate::client::backend::Backend;
use crate::client::members::Members;
use crate::guard::{self, ClientPermit};
use crate::shared::backend;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a failure counts for among the times a backend takes to answer, in nanoseconds: what the program takes it for.
const PENALTY: f64 = 100e6;

/// How it went with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It did its work.
    Success,
    /// It did not: it answered with an error of its own (500, say), or too late. Counts against it for its circuit breaker,
    /// and as a slow answer.
    Failure,
    /// It could not be connected to, or went away without an answer. A failure, and others are preferred for a second, for
    /// longer each time, up to ten, until it answers or a check finds it well.
    Unreachable,
    /// Nothing was learnt about it: its user left, or was short of something itself.
    Aborted,
}

/// A place at a backend. It counts as in flight there until this is dropped.
///
/// Say how it went by [`success`](Lease::success), [`failure`](Lease::failure), [`unreachable`](Lease::unreachable) or
/// [`finish`](Lease::finish): breakers and `fastest_response` learn by nothing else. A lease that is merely dropped is
/// [`Outcome::Aborted`].
///
/// ```
/// use l4lb::client::{Backend, Context, Pool};
/// use std::net::{SocketAddr, TcpStream};
///
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = listener.local_addr()?;
/// let pool = Pool::builder("api").backend(Backend::new("a", address)).build()?;
/// let lease = pool.pick(&Context::new())?;
/// match TcpStream::connect(lease.address()) {
///     Ok(_connection) => lease.success(),
///     Err(_) => lease.unreachable(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a lease that is dropped at once says nothing about its backend"]
pub struct Lease {
    lease: backend::Lease,
    members: Arc<Members>,
    place: usize,
    clock: Clock,
    began: Instant,
    /// How long it took to answer is known.
    answered: bool,
    /// Held for its drop alone.
    _permit: Option<ClientPermit>,
}

impl Lease {
    pub(super) fn new(
        lease: backend::Lease,
        members: Arc<Members>,
        place: usize,
        clock: Clock,
        permit: Option<ClientPermit>,
    ) -> Lease {
        Lease { lease, members, place, clock, began: Instant::now(), answered: false, _permit: permit }
    }

    /// Which backend it is.
    pub fn backend(&self) -> &Backend {
        &self.members.seats[self.place].backend
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.backend().address()
    }

    /// How long ago it was picked.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// It has begun to answer: what it took until now is its latency, and not what it takes until the lease is finished. For
    /// connections and streams that last. Only the first call counts.
    pub fn answered(&mut self) {
        self.answered_after(self.began.elapsed());
    }

    /// The same for one who has measured what it took: the time in a queue of its own, say, is no fault of the backend.
    pub fn answered_after(&mut self, latency: Duration) {
        let state = self.lease.backend();
        if !self.answered {
            state.estimate.sample(latency.as_nanos() as f64, self.clock.now().0);
            self.answered = true;
        }
        state.answered();
    }

    /// It did its work.
    pub fn success(self) {
        self.finish(Outcome::Success);
    }

    /// It answered with an error of its own, or too late.
    pub fn failure(self) {
        self.finish(Outcome::Failure);
    }

    /// It could not be connected to, or went away without an answer.
    pub fn unreachable(self) {
        self.finish(Outcome::Unreachable);
    }

    /// Says how it went, and gives the place back.
    pub fn finish(mut self, outcome: Outcome) {
        let now = self.clock.now();
        let told = match outcome {
            Outcome::Success => {
                self.answered();
                guard::Outcome::Success
            }
            Outcome::Failure | Outcome::Unreachable => guard::Outcome::Failure,
            Outcome::Aborted => guard::Outcome::Nothing,
        };
        let (pool, id) = (&self.members.pool, &self.members.seats[self.place].backend.id);
        let state = self.lease.backend();
        if told == guard::Outcome::Failure {
            state.estimate.failure(PENALTY, now.0);
        }
        if outcome == Outcome::Unreachable
            && let Some(wait) = state.failed(now)
        {
            log::warn!("pool {pool}: backend {id} cannot be reached; others are preferred for {} s", wait / 1000);
        }
        if let Some(state) = self.lease.report(told, now) {
            log::warn!("pool {pool}: the circuit breaker of backend {id} is {state:?}");
        }
    }
}
