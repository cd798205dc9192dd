//! A limit by rate where it is in force: whose share is meant, and what it has come to.

use crate::base::ids::WorkerId;
use crate::guard::{RateKey, RateLimit, Slot, TooMany};
use crate::stats::Gates;
use std::net::IpAddr;
use std::sync::Arc;

/// The limit of a listener or pool. It outlives snapshots as long as it is not changed.
#[derive(Clone, Debug)]
pub struct Limit {
    /// What is allowed.
    pub rate: Arc<RateLimit>,
    /// To whom.
    pub by: LimitBy,
    /// What was counted.
    pub gates: Arc<Gates>,
}

/// Who shares what a limit allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitBy {
    /// All clients.
    All,
    /// Those with one address.
    Client,
    /// Requests with one value of this header, by its name in lower case; those without it by the address.
    Header(Box<str>),
}

impl Limit {
    /// Whose share is meant: `field` looks for a header, `client` tells the address.
    pub fn key<'a>(&self, field: impl FnOnce(&str) -> Option<&'a [u8]>, client: impl FnOnce() -> IpAddr) -> RateKey {
        let value = match &self.by {
            LimitBy::All => return RateKey::default(),
            LimitBy::Client => None,
            LimitBy::Header(name) => field(name),
        };
        value.map_or_else(|| self.rate.key_of_address(client()), |value| self.rate.key_of_bytes(value))
    }

    /// Lets one in who does not wait, or not. `clock` tells the time in nanoseconds.
    ///
    /// # Errors
    /// It is too much.
    #[inline]
    pub fn take(&self, key: RateKey, worker: WorkerId, clock: impl Fn() -> u64) -> Result<(), TooMany> {
        self.ask(worker, || self.rate.take(key, clock()))
    }

    /// The same for one who can wait: its place in a queue, where it has to.
    ///
    /// # Errors
    /// It is too much.
    pub fn queue(&self, key: RateKey, worker: WorkerId, clock: impl Fn() -> u64) -> Result<Option<Slot>, TooMany> {
        self.ask(worker, || self.rate.queue(key, clock()))
    }

    fn ask<T>(&self, worker: WorkerId, ask: impl Fn() -> Result<T, TooMany>) -> Result<T, TooMany> {
        // Another worker that read the clock a moment later may have asked before us, and for a limit that counts from then
        // we come too early by that moment. So nobody is refused by a time that was read before what it is refused for.
        let told = ask().or_else(|_| ask());
        match &told {
            Ok(_) => self.gates.allowed(worker, 1),
            Err(_) => self.gates.limited(worker, 1),
        }
        told
    }
}
