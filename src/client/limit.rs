//! How many calls may begin in a time.

use crate::base::time::nanos;
use crate::client::context::Context;
use crate::client::{Error, PickError};
use crate::guard::{self, MOST_LOGGED, RateKey, RateRule};
use std::sync::Arc;
use std::time::Duration;

/// The most that a bucket or a window holds.
const MOST: u32 = 1_000_000;

/// How many picks of a pool may begin in a time, for all together or for each client. It is exact.
///
/// ```
/// use l4lb::client::{Backend, Context, PickError, Pool, RateLimit};
/// use std::net::SocketAddr;
///
/// // Ten at once, and two a second in the long run, for each client.
/// let limit = RateLimit::token_bucket(10, 2.0).per_client();
/// let backend = Backend::new("a", SocketAddr::from(([127, 0, 0, 1], 8001)));
/// let pool = Pool::builder("api").backend(backend).rate_limit(limit).build()?;
///
/// let context = Context::new().client_ip([192, 0, 2, 1].into());
/// for _ in 0..10 {
///     pool.pick(&context)?.success();
/// }
/// let Err(PickError::Limited { retry_after }) = pool.pick(&context) else { panic!() };
/// assert!(retry_after.as_millis() <= 500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    rule: RateRule,
    per_client: bool,
}

impl RateLimit {
    /// A bucket of so many tokens, 1 to 1,000,000. Each pick takes one, and they come back at a rate: so many a second, 0.001 to
    /// 1,000,000.
    pub fn token_bucket(capacity: u32, refill_rate: f64) -> RateLimit {
        RateLimit { rule: RateRule::TokenBucket { capacity, refill: refill_rate }, per_client: false }
    }

    /// At most so many picks, 1 to 1,000,000, in any time of this length, 1 ms to ten years. For each client it remembers that
    /// many moments: at most 10,000.
    pub fn sliding_window(max_requests: u32, window: Duration) -> RateLimit {
        RateLimit { rule: RateRule::SlidingWindow { max: max_requests, window }, per_client: false }
    }

    /// A bucket that runs out at so many picks a second, 0.001 to 1,000,000, and takes no more than so many at once, 1 to
    /// 1,000,000. Nobody is made to wait: that is for who calls, by what `retry_after` says.
    pub fn leaky_bucket(capacity: u32, leak_rate: f64) -> RateLimit {
        RateLimit { rule: RateRule::LeakyBucket { capacity, leak: leak_rate }, per_client: false }
    }

    /// Each [`client_ip`](Context::client_ip) has its own; those that give none have one together.
    pub fn per_client(mut self) -> RateLimit {
        self.per_client = true;
        self
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let invalid = |what, instead| Err(Error::Invalid { what, instead });
        let fits = |count: u32| (1..=MOST).contains(&count);
        let ten_years = Duration::from_secs(10 * 366 * 24 * 60 * 60);
        match self.rule {
            RateRule::TokenBucket { capacity, .. } | RateRule::LeakyBucket { capacity, .. } if !fits(capacity) => {
                invalid("the capacity of the rate limit", "1 to 1,000,000")
            }
            RateRule::TokenBucket { refill: rate, .. } | RateRule::LeakyBucket { leak: rate, .. }
                if !(0.001..=1e6).contains(&rate) =>
            {
                invalid("the rate of the rate limit", "0.001 to 1,000,000 a second")
            }
            RateRule::SlidingWindow { max, .. } if !fits(max) || self.per_client && max > MOST_LOGGED => {
                invalid("max_requests of the rate limit", "1 to 1,000,000, or to 10,000 for each client")
            }
            RateRule::SlidingWindow { window, .. } if window < Duration::from_millis(1) || window > ten_years => {
                invalid("the window of the rate limit", "1 ms to ten years")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn in_force(self) -> InForce {
        InForce { limit: guard::RateLimit::new(self.rule, self.per_client), per_client: self.per_client }
    }
}

/// A limit and what was taken of it.
#[derive(Debug)]
pub(super) struct InForce {
    limit: Arc<guard::RateLimit>,
    per_client: bool,
}

impl InForce {
    /// Lets one in, or says when to come again.
    pub(super) fn take(&self, context: &Context) -> Result<(), PickError> {
        let key = match context.client {
            Some(ip) if self.per_client => self.limit.key_of_address(ip),
            _ => RateKey::default(),
        };
        // A second look at the clock: another thread that looked a moment later may have been first.
        let taken = self.limit.take(key, nanos()).or_else(|_| self.limit.take(key, nanos()));
        taken.map_err(|too_many| PickError::Limited { retry_after: Duration::from_nanos(too_many.wait) })
    }
}
