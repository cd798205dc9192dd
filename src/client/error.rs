//! What can go wrong.

use std::io;
use std::time::Duration;

/// Why a pool cannot be made, or a backend not be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two backends of one pool have this id.
    #[error("two backends have the id {0:?}; give each its own")]
    DuplicateId(String),
    /// A backend without an id.
    #[error("a backend has an empty id; give it a name that no other has")]
    EmptyId,
    /// A weight beyond 256.
    #[error("the weight of backend {id:?} is {weight}; write 0 to 256")]
    Weight {
        /// Whose it is.
        id: String,
        /// What it is.
        weight: u16,
    },
    /// A number or a text of a builder that cannot be.
    #[error("{what} is wrong; write {instead}")]
    Invalid {
        /// What it belongs to.
        what: &'static str,
        /// What can be.
        instead: &'static str,
    },
    /// A registry has a pool of this name already.
    #[error("there is a pool {0:?} already; remove it first, or take another name")]
    DuplicatePool(String),
    /// A registry has no pool of this name.
    #[error("there is no pool {0:?}; add it first")]
    NoPool(String),
    /// A pool has no backend of this id.
    #[error("there is no backend {0:?}; register it first")]
    NoBackend(String),
    /// The thread that checks and expires backends cannot be started.
    #[error("no thread can be started: {0}")]
    Thread(#[from] io::Error),
}

/// Why [`Pool::pick`](crate::client::Pool::pick) has nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// None takes new work: there is none, or all are down, disabled, or behind an open breaker.
    #[error("no backend is available")]
    NoneAvailable,
    /// Each one that is available is excluded by the context.
    #[error("every available backend is excluded")]
    AllExcluded,
    /// Those that are available have all the leases they may have. One may come free at any time.
    #[error("every available backend is at its max_connections")]
    AllFull,
    /// The client has all the leases that it may have at once.
    #[error("the client is at the pool's max_per_client")]
    ClientFull,
    /// More would begin than the rate limit allows.
    #[error("the pool's rate limit is used up; try again in {retry_after:?}")]
    Limited {
        /// When one more may begin, if nobody else comes before.
        retry_after: Duration,
    },
    /// A registry has no pool of that name.
    #[error("there is no such pool")]
    NoPool,
}
