//! What a program says of a backend, and what it is told of one.

use crate::client::Error;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// The heaviest weight.
const MOST_WEIGHT: u16 = 256;

/// A server that a [`Pool`](crate::client::Pool) may pick.
///
/// ```
/// use l4lb::client::Backend;
/// use std::net::SocketAddr;
///
/// let address: SocketAddr = "192.0.2.7:8080".parse()?;
/// let backend = Backend::new("api-7", address).weight(2).max_connections(100);
/// assert_eq!((backend.id(), backend.address()), ("api-7", address));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub(super) id: Arc<str>,
    /// Never empty.
    pub(super) addresses: Arc<[SocketAddr]>,
    pub(super) weight: u16,
    pub(super) max_connections: u32,
    pub(super) backup: bool,
    pub(super) disabled: bool,
    pub(super) ttl: Option<Duration>,
}

impl Backend {
    /// A backend at `address`, of weight 1. Its `id` is unique in its pool, and all that the hashing algorithms go by: programs
    /// that share keys give the same ids.
    pub fn new(id: impl Into<Arc<str>>, address: impl Into<SocketAddr>) -> Backend {
        Backend::at(id.into(), Arc::new([address.into()]))
    }

    /// A backend at all addresses of a name, such as `"api.internal:8080"`. Asks the resolver of the system, which may take
    /// seconds; the addresses stay until the backend is registered anew.
    ///
    /// ```
    /// let backend = l4lb::client::Backend::resolve("local", "localhost:8080")?;
    /// assert!(backend.address().ip().is_loopback());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the resolver says, or that it knows no address.
    pub fn resolve(id: impl Into<Arc<str>>, host_and_port: impl ToSocketAddrs) -> io::Result<Backend> {
        let addresses: Arc<[SocketAddr]> = host_and_port.to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(Backend::at(id.into(), addresses))
    }

    pub(super) fn at(id: Arc<str>, addresses: Arc<[SocketAddr]>) -> Backend {
        Backend { id, addresses, weight: 1, max_connections: 0, backup: false, disabled: false, ttl: None }
    }

    /// Its share beside others, 0 to 256; with 0 it is not picked. All but [`Algorithm::RoundRobin`] heed it.
    ///
    /// [`Algorithm::RoundRobin`]: crate::client::Algorithm::RoundRobin
    pub fn weight(mut self, weight: u16) -> Backend {
        self.weight = weight;
        self
    }

    /// Leases on it at once; 0, the default, is no limit.
    pub fn max_connections(mut self, most: u32) -> Backend {
        self.max_connections = most;
        self
    }

    /// With `true` it is picked only when no other is up.
    pub fn backup(mut self, is_backup: bool) -> Backend {
        self.backup = is_backup;
        self
    }

    /// With `true` it is not picked; what is under way there goes on.
    pub fn disabled(mut self, is_disabled: bool) -> Backend {
        self.disabled = is_disabled;
        self
    }

    /// It leaves its pool unless it is registered again, or renewed, within this time.
    pub fn ttl(mut self, ttl: Duration) -> Backend {
        self.ttl = Some(ttl);
        self
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is: the first of [`addresses`](Backend::addresses).
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where it is, in the order to try; never empty.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether a pool can have it.
    pub(super) fn validated(self) -> Result<Backend, Error> {
        if self.id.is_empty() {
            return Err(Error::EmptyId);
        }
        if self.weight > MOST_WEIGHT {
            return Err(Error::Weight { id: self.id.to_string(), weight: self.weight });
        }
        Ok(self)
    }

    /// Takes new work, as far as its user says.
    pub(super) fn works(&self) -> bool {
        self.weight > 0 && !self.disabled
    }

    /// The same server, so that what is known of it holds on.
    pub(super) fn is_where(&self, other: &Backend) -> bool {
        self.id == other.id && self.addresses == other.addresses
    }

    /// Nothing but its time has changed.
    pub(super) fn is_as(&self, other: &Backend) -> bool {
        *self == Backend { ttl: self.ttl, ..other.clone() }
    }
}

/// How a backend stands. See [`Pool::backends`](crate::client::Pool::backends).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BackendStatus {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub address: SocketAddr,
    /// 0 to 256.
    pub weight: u16,
    /// It was told to take no new work.
    pub disabled: bool,
    /// It is for when no other is up.
    pub backup: bool,
    /// What its checks say.
    pub health: Health,
    /// It could not be reached just now, and others are preferred for a while.
    pub set_aside: bool,
    /// Its circuit breaker, where its pool has them.
    pub breaker: Option<BreakerState>,
    /// Leases on it.
    pub in_flight: u32,
    /// What it took to answer lately, with the weight on what was slow; `None` while nothing is known.
    pub latency: Option<Duration>,
}

/// What checks say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// Nothing yet, or it is not checked. It is picked.
    Starting,
    /// It is well.
    Up,
    /// It is not, and is not picked.
    Down,
}

/// Where a circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// All is well.
    Closed,
    /// Nobody is sent there for a while.
    Open,
    /// One at a time tries it.
    HalfOpen,
}
