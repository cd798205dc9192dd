//! Limits by rate: how many may begin in a time, in all or for each key.
//!
//! Knows: numbers and times. Must not touch: the clock, sockets. Time is told in nanoseconds, from any beginning, for a
//! millisecond is a thousand tokens at the highest rate. Where one thread tells an earlier time than another did, what the
//! other has done holds: nothing is ever given twice.
//!
//! Read [`RateLimit::take`] first. `pace` is what the two buckets have in common, `window` the sliding window, each for all
//! clients together (one atomic word that is moved by compare-and-swap, or a ring of them) and as the state of one key;
//! `table` holds the keys. Everything here is exact: no average, no slots of time.

mod pace;
mod table;
#[cfg(test)]
mod tests;
mod window;

use pace::{Pace, Queue, Shared};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use window::{Log, Ring};

/// The largest `max` of a sliding window that is held for each key: it remembers that many moments of each.
pub const MOST_LOGGED: u32 = 10_000;

/// What a limit allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateRule {
    /// As many at once as there are tokens; each takes one, and they come back at a rate.
    TokenBucket {
        /// The most tokens, with which it begins; 1 to 1,000,000.
        capacity: u32,
        /// Tokens a second; 0.001 to 1,000,000.
        refill: f64,
    },
    /// At most so many in any time of this length.
    SlidingWindow {
        /// How many; 1 to 1,000,000, or for each key to [`MOST_LOGGED`].
        max: u32,
        /// How long; 1 ms to ten years. What happened exactly so long ago is forgotten.
        window: Duration,
    },
    /// One after the other at a rate. Those who can wait do so in a queue ([`RateLimit::queue`]); the others are let in at
    /// once while the bucket has room ([`RateLimit::take`]).
    LeakyBucket {
        /// The most that wait, or the most that are let in at once; 1 to 1,000,000.
        capacity: u32,
        /// How many leave in a second; 0.001 to 1,000,000.
        leak: f64,
    },
}

/// Whose share of a limit is meant: an address as it is, or a digest of something longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RateKey([u64; 2]);

/// It is too much just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// Nanoseconds until one more would be let in, if nobody else came before.
    pub wait: u64,
}

impl TooMany {
    /// The same in whole seconds, rounded up; at least 1.
    pub fn seconds(self) -> u64 {
        self.wait.div_ceil(1_000_000_000).max(1)
    }
}

/// A limit in force: shared by all workers.
#[derive(Debug)]
pub struct RateLimit {
    kind: Kind,
    /// Two secrets, for digests of 128 bits: whoever chooses what is digested must not find two that are alike.
    secrets: [RandomState; 2],
}

#[derive(Debug)]
enum Kind {
    Bucket(Pace, Shared),
    BucketEach(Pace, Table<u64>),
    Window(Ring),
    WindowEach(u32, u64, Table<Log>),
    Leaky(Pace, Shared),
    LeakyEach(Pace, Table<Queue>),
}

impl RateLimit {
    /// A limit that nobody has used yet: `each` key has its own, or all share one.
    pub fn new(rule: RateRule, each: bool) -> Arc<RateLimit> {
        let kind = match rule {
            RateRule::TokenBucket { capacity, refill } => {
                let pace = Pace::new(capacity, refill);
                if each { Kind::BucketEach(pace, Table::new()) } else { Kind::Bucket(pace, Shared::default()) }
            }
            RateRule::LeakyBucket { capacity, leak } => {
                let pace = Pace::new(capacity, leak);
                if each { Kind::LeakyEach(pace, Table::new()) } else { Kind::Leaky(pace, Shared::default()) }
            }
            RateRule::SlidingWindow { max, window } => {
                let span = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX >> 2).min(u64::MAX >> 2);
                if each { Kind::WindowEach(max, span, Table::new()) } else { Kind::Window(Ring::new(max, span)) }
            }
        };
        Arc::new(RateLimit { kind, secrets: [RandomState::new(), RandomState::new()] })
    }

    /// The key of an address: all of it, also of an IPv6 one. An IPv4-mapped address is the IPv4 one.
    pub fn key_of_address(&self, ip: IpAddr) -> RateKey {
        let bits = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let bits = u128::from(bits);
        RateKey([(bits >> 64) as u64, bits as u64])
    }

    /// The key of anything else: a digest that nobody outside can foresee.
    pub fn key_of_bytes(&self, bytes: &[u8]) -> RateKey {
        RateKey([self.secrets[0].hash_one(bytes), self.secrets[1].hash_one(bytes)])
    }

    /// Lets one in at `now`, in nanoseconds. `key` says whose share it is; where all share one, it says nothing.
    ///
    /// # Errors
    /// It is too much; nothing was taken.
    #[inline]
    pub fn take(&self, key: RateKey, now: u64) -> Result<(), TooMany> {
        match &self.kind {
            Kind::Bucket(pace, shared) | Kind::Leaky(pace, shared) => shared.take(pace, now),
            Kind::BucketEach(pace, table) => table.with(key, |at| pace.is_over(*at, now), |at| pace.take(at, now)),
            Kind::LeakyEach(pace, table) => {
                table.with(key, |queue| pace.is_over(queue.next, now), |queue| pace.take(&mut queue.next, now))
            }
            Kind::Window(ring) => ring.take(now),
            Kind::WindowEach(max, span, table) => {
                table.with(key, |log| log.is_over(*span, now), |log| log.take(*max, *span, now))
            }
        }
    }

    /// The same for one who can wait: a place in the queue of a leaky bucket, or `None` when it is let in at once.
    ///
    /// # Errors
    /// It is too much, or the queue is full; nothing was taken.
    pub fn queue(self: &Arc<Self>, key: RateKey, now: u64) -> Result<Option<Slot>, TooMany> {
        let (pace, at) = match &self.kind {
            Kind::Leaky(pace, shared) => (pace, shared.queue(pace, now)?),
            Kind::LeakyEach(pace, table) => {
                let over = |queue: &Queue| pace.is_over(queue.next, now);
                (pace, table.with(key, over, |queue| queue.join(pace, now))?)
            }
            _ => return self.take(key, now).map(|()| None),
        };
        Ok((pace.until(at, now) > 0).then(|| Slot { of: self.clone(), key, at: Some(at) }))
    }

    /// How many keys have a share that is not whole, or had it lately.
    pub fn keys(&self) -> usize {
        match &self.kind {
            Kind::BucketEach(_, table) => table.len(),
            Kind::LeakyEach(_, table) => table.len(),
            Kind::WindowEach(_, _, table) => table.len(),
            Kind::Bucket(..) | Kind::Leaky(..) | Kind::Window(_) => 0,
        }
    }

    /// Bytes that the keys take, by the size of what holds them.
    pub fn bytes(&self) -> usize {
        match &self.kind {
            Kind::BucketEach(_, table) => table.bytes(),
            Kind::LeakyEach(_, table) => table.bytes(),
            Kind::WindowEach(_, _, table) => table.bytes(),
            Kind::Bucket(..) | Kind::Leaky(..) | Kind::Window(_) => 0,
        }
    }
}

/// A place in the queue of a leaky bucket: a moment that is reserved. Dropped before that, it goes to the next who comes.
#[derive(Debug)]
#[must_use = "dropped, the place is given to another"]
pub struct Slot {
    of: Arc<RateLimit>,
    key: RateKey,
    /// `None` once it was used.
    at: Option<u64>,
}

impl Slot {
    /// Nanoseconds from `now` until it is its turn; 0 when it is.
    pub fn wait(&self, now: u64) -> u64 {
        match (&self.of.kind, self.at) {
            (Kind::Leaky(pace, _) | Kind::LeakyEach(pace, _), Some(at)) => pace.until(at, now),
            _ => 0,
        }
    }

    /// It is its turn, and it goes.
    pub fn leave(mut self) {
        self.at = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(at) = self.at else { return };
        match &self.of.kind {
            Kind::Leaky(_, shared) => shared.give_back(at),
            Kind::LeakyEach(_, table) => table.known(self.key, |queue| queue.give_back(at)),
            _ => {}
        }
    }
}
