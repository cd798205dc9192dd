//! A pool as its user says it is to be.

use crate::balance;
use crate::client::Error;
use crate::client::backend::Backend;
use crate::client::keeper::Keeper;
use crate::client::limit::{InForce, RateLimit};
use crate::client::pool::Pool;
use crate::client::rules::{Algorithm, CircuitBreaker, HealthCheck};
use crate::guard::BreakerRules;
use std::sync::Arc;
use std::time::Duration;

/// What holds for a pool as long as it is there.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) algorithm: balance::Algorithm,
    pub(super) hash_balance: f32,
    pub(super) breaker: Option<BreakerRules>,
    pub(super) check: Option<Arc<HealthCheck>>,
    pub(super) slow_start: Duration,
    pub(super) panic_threshold: f64,
    pub(super) max_per_client: u32,
    pub(super) limit: Option<InForce>,
}

/// Makes a [`Pool`].
///
/// ```
/// use l4lb::client::{Algorithm, Backend, CircuitBreaker, HealthCheck, Pool};
/// use std::{net::SocketAddr, time::Duration};
///
/// let at = |host| SocketAddr::from(([192, 0, 2, host], 8080));
/// let pool = Pool::builder("api")
///     .algorithm(Algorithm::LeastConnections)
///     .backends((1..=3).map(|n| Backend::new(format!("api-{n}"), at(n))))
///     .health_check(HealthCheck::http("/health"))
///     .circuit_breaker(CircuitBreaker::new().failure_threshold(3))
///     .slow_start(Duration::from_secs(30))
///     .build()?;
/// assert_eq!(pool.backends().len(), 3);
/// # Ok::<(), l4lb::client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is built until `build` is called"]
pub struct PoolBuilder {
    name: Arc<str>,
    algorithm: Algorithm,
    backends: Vec<Backend>,
    hash_balance: f32,
    breaker: Option<CircuitBreaker>,
    check: Option<HealthCheck>,
    slow_start: Duration,
    panic_threshold: f64,
    max_per_client: u32,
    limit: Option<RateLimit>,
}

impl PoolBuilder {
    pub(super) fn new(name: Arc<str>) -> PoolBuilder {
        PoolBuilder {
            name,
            algorithm: Algorithm::default(),
            backends: Vec::new(),
            hash_balance: 0.0,
            breaker: None,
            check: None,
            slow_start: Duration::ZERO,
            panic_threshold: 0.0,
            max_per_client: 0,
            limit: None,
        }
    }

    /// How it picks; [`Algorithm::RoundRobin`] by default.
    pub fn algorithm(mut self, algorithm: Algorithm) -> PoolBuilder {
        self.algorithm = algorithm;
        self
    }

    /// Adds a backend. A pool may begin without any: they are registered later.
    pub fn backend(mut self, backend: Backend) -> PoolBuilder {
        self.backends.push(backend);
        self
    }

    /// Adds several.
    pub fn backends(mut self, backends: impl IntoIterator<Item = Backend>) -> PoolBuilder {
        self.backends.extend(backends);
        self
    }

    /// For [`Algorithm::ConsistentHash`]: no backend holds more than this times the mean of what is in flight; more than 1,
    /// and at most 100. 0, the default, is no bound.
    pub fn hash_balance(mut self, factor: f32) -> PoolBuilder {
        self.hash_balance = factor;
        self
    }

    /// Gives each backend a circuit breaker; by default there are none.
    pub fn circuit_breaker(mut self, breaker: CircuitBreaker) -> PoolBuilder {
        self.breaker = Some(breaker);
        self
    }

    /// Checks backends in the background; by default they are not checked.
    pub fn health_check(mut self, check: HealthCheck) -> PoolBuilder {
        self.check = Some(check);
        self
    }

    /// How long a backend that comes back, or is registered, takes to come to its full share; 0 by default.
    pub fn slow_start(mut self, slow_start: Duration) -> PoolBuilder {
        self.slow_start = slow_start;
        self
    }

    /// With a smaller share than this healthy, 0 to 1, health is not heeded: better a call that fails than a crowd on the
    /// last one. 0 by default.
    pub fn panic_threshold(mut self, share: f64) -> PoolBuilder {
        self.panic_threshold = share;
        self
    }

    /// Leases at once for one [`client_ip`](crate::client::Context::client_ip); 0, the default, is no limit. It is the one
    /// thing, beside a rate limit for each client, for which a pick takes a lock, a short one.
    pub fn max_per_client(mut self, most: u32) -> PoolBuilder {
        self.max_per_client = most;
        self
    }

    /// Limits how many picks may begin in a time; by default nothing does. A pick whose context excludes somebody is taken for
    /// a retry, and is not limited again.
    pub fn rate_limit(mut self, limit: RateLimit) -> PoolBuilder {
        self.limit = Some(limit);
        self
    }

    /// Makes the pool, with threads of its own where it needs them: for health checks and for backends with a ttl. Use
    /// [`Registry::add`](crate::client::Registry::add) to have several pools share them.
    ///
    /// # Errors
    /// Something that was said cannot be, or no thread is to be had.
    pub fn build(self) -> Result<Pool, Error> {
        self.build_with(Keeper::new())
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn build_with(self, keeper: Arc<Keeper>) -> Result<Pool, Error> {
        let invalid = |what, instead| Err(Error::Invalid { what, instead });
        let balance = self.hash_balance;
        if balance != 0.0 && !(balance > 1.0 && balance <= 100.0) {
            return invalid("hash_balance", "0, or more than 1 and at most 100");
        }
        if !(0.0..=1.0).contains(&self.panic_threshold) {
            return invalid("panic_threshold", "0 to 1");
        }
        self.limit.as_ref().map_or(Ok(()), RateLimit::validate)?;
        self.breaker.as_ref().map_or(Ok(()), CircuitBreaker::validate)?;
        self.check.as_ref().map_or(Ok(()), HealthCheck::validate)?;
        let backends = self.backends.into_iter().map(Backend::validated).collect::<Result<Vec<_>, _>>()?;
        let rules = Rules {
            algorithm: self.algorithm.inner(),
            hash_balance: balance,
            breaker: self.breaker.map(|CircuitBreaker { failures, successes, timeout }| BreakerRules {
                failures,
                successes,
                timeout,
            }),
            check: self.check.map(Arc::new),
            slow_start: self.slow_start,
            panic_threshold: self.panic_threshold,
            max_per_client: self.max_per_client,
            limit: self.limit.map(RateLimit::in_force),
        };
        Pool::start(self.name, rules, backends, keeper)
    }
}
