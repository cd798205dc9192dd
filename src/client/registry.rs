//! Pools by name.

use crate::client::backend::Backend;
use crate::client::builder::PoolBuilder;
use crate::client::context::Context;
use crate::client::keeper::Keeper;
use crate::client::lease::Lease;
use crate::client::pool::{Pool, Registration};
use crate::client::{Error, PickError};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Pools by name, which share their threads. Cheap to clone; clones are the same registry.
///
/// ```
/// use l4lb::client::{Backend, Context, Pool, Registry};
/// use std::{net::SocketAddr, time::Duration};
///
/// let registry = Registry::new();
/// registry.add(Pool::builder("users"))?;
/// registry.add(Pool::builder("orders"))?;
///
/// // Backends come and go by name, as by a service registry.
/// let address = SocketAddr::from(([127, 0, 0, 1], 8001));
/// registry.register("users", Backend::new("users-1", address).ttl(Duration::from_secs(10)))?;
/// let lease = registry.pick("users", &Context::new())?;
/// assert_eq!(lease.address(), address);
/// lease.success();
/// registry.deregister("users", "users-1")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    keeper: Arc<Keeper>,
    pools: RwLock<BTreeMap<Arc<str>, Pool>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { inner: Arc::new(Inner { keeper: Keeper::new(), pools: RwLock::default() }) }
    }
}

impl Registry {
    /// One without pools.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds a pool.
    ///
    /// # Errors
    /// There is one of this name, or it cannot be built.
    pub fn add(&self, builder: PoolBuilder) -> Result<Pool, Error> {
        let mut pools = self.inner.pools.write().unwrap_or_else(PoisonError::into_inner);
        let name = builder.name().clone();
        if pools.contains_key(&name) {
            return Err(Error::DuplicatePool(name.to_string()));
        }
        let pool = builder.build_with(self.inner.keeper.clone())?;
        pools.insert(name, pool.clone());
        Ok(pool)
    }

    /// The pool of this name. Who picks often keeps it.
    pub fn get(&self, pool: &str) -> Option<Pool> {
        self.inner.pools.read().unwrap_or_else(PoisonError::into_inner).get(pool).cloned()
    }

    /// Takes a pool out; whoever has it may use it on.
    pub fn remove(&self, pool: &str) -> Option<Pool> {
        self.inner.pools.write().unwrap_or_else(PoisonError::into_inner).remove(pool)
    }

    /// All pools, by name.
    pub fn pools(&self) -> Vec<Pool> {
        self.inner.pools.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// As [`Pool::register`].
    ///
    /// # Errors
    /// As there, or there is no such pool.
    pub fn register(&self, pool: &str, backend: Backend) -> Result<Registration, Error> {
        self.get(pool).ok_or_else(|| Error::NoPool(pool.to_owned()))?.register(backend)
    }

    /// As [`Pool::deregister`].
    ///
    /// # Errors
    /// There is no such pool, or no such backend in it.
    pub fn deregister(&self, pool: &str, id: &str) -> Result<(), Error> {
        let found = self.get(pool).ok_or_else(|| Error::NoPool(pool.to_owned()))?;
        if found.deregister(id) { Ok(()) } else { Err(Error::NoBackend(id.to_owned())) }
    }

    /// As [`Pool::pick`].
    ///
    /// # Errors
    /// As there, or there is no such pool.
    pub fn pick(&self, pool: &str, context: &Context) -> Result<Lease, PickError> {
        self.get(pool).ok_or(PickError::NoPool)?.pick(context)
    }
}
