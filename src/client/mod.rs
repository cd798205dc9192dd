//! Load balancing inside a program: the picking, checks and breakers of l4lb, without the proxy.
//!
//! A program that calls several servers of one kind, over whatever it speaks, asks a [`Pool`] which one to call next, and
//! tells it how that went. All programs with the same pool, and l4lb itself, send the same key to the same server.
//!
//! ```
//! use l4lb::client::{Algorithm, Backend, Context, PickError, Pool};
//! use std::net::{SocketAddr, TcpStream};
//!
//! /// A connection to the first of the backends that can be reached; each is tried once.
//! fn connect(pool: &Pool) -> Result<TcpStream, PickError> {
//!     let mut context = Context::new();
//!     loop {
//!         let lease = pool.pick(&context)?;
//!         match TcpStream::connect(lease.address()) {
//!             Ok(stream) => {
//!                 lease.success();
//!                 return Ok(stream);
//!             }
//!             Err(_) => {
//!                 context = context.exclude(lease.backend().id());
//!                 lease.unreachable();
//!             }
//!         }
//!     }
//! }
//!
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let (dead, alive) = (SocketAddr::from(([127, 0, 0, 1], 1)), listener.local_addr()?);
//! let pool = Pool::builder("api")
//!     .algorithm(Algorithm::LeastConnections)
//!     .backend(Backend::new("dead", dead))
//!     .backend(Backend::new("alive", alive))
//!     .build()?;
//! assert_eq!(connect(&pool)?.peer_addr()?, alive);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - Backends are given when a pool is built, [registered](Pool::register) and deregistered while it works, with a
//!   [ttl](Backend::ttl) where that is wanted, or [followed](Feed) from a running l4lb.
//! - They are [checked](HealthCheck) in the background, and have [circuit breakers](CircuitBreaker), where the pool says so.
//! - Calls are limited by [rate](RateLimit), and by how many a client has [at once](PoolBuilder::max_per_client).
//! - A [`Lease`] counts as in flight until it is dropped, and says how it went.
//! - A [`Registry`] holds pools by name, and has them share threads: one, and up to 16 more while checks are under way. A pool
//!   without checks, ttl and feed has none.
//!
//! A pick takes no lock and waits for nothing, so all of this may be used from asynchronous code as well.

// Knows: picking, limits, checks, and the live state of backends. Must not touch: workers, control, the configuration file,
// mio. `Pool::pick` is the place to begin; `keeper` has the threads.

mod backend;
mod builder;
mod check;
mod context;
mod error;
mod feed;
mod get;
mod keeper;
mod lease;
mod limit;
mod members;
mod pool;
mod registry;
mod rules;

pub use backend::{Backend, BackendStatus, BreakerState, Health};
pub use builder::PoolBuilder;
pub use context::Context;
pub use error::{Error, PickError};
pub use feed::{Feed, FeedStatus, Following};
pub use lease::{Lease, Outcome};
pub use limit::RateLimit;
pub use pool::{Pool, Registration};
pub use registry::Registry;
pub use rules::{Algorithm, CircuitBreaker, HealthCheck, UnknownAlgorithm};
