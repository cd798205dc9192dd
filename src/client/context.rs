//! Whom a backend is picked for.

use crate::balance::{Key, key_of};
use std::net::IpAddr;
use std::sync::Arc;

/// Whom a backend is picked for, and which ones it is not to be.
///
/// ```
/// use l4lb::client::Context;
///
/// let anybody = Context::new();
/// let of_a_client = Context::new().client_ip([192, 0, 2, 1].into());
/// let of_a_path = Context::new().key("/images/logo.png");
/// let once_more = anybody.clone().exclude("backend1");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Context {
    pub(super) key: Option<Key>,
    pub(super) client: Option<IpAddr>,
    pub(super) excluded: Vec<Arc<str>>,
}

impl Context {
    /// For anybody: the hashing algorithms go by chance.
    pub fn new() -> Context {
        Context::default()
    }

    /// For the client of this address: what `max_per_client` counts by, and the hashing algorithms where no
    /// [`key`](Context::key) is given. An IPv4-mapped address is the IPv4 one.
    pub fn client_ip(mut self, ip: IpAddr) -> Context {
        self.client = Some(ip);
        self
    }

    /// What the hashing algorithms go by: a path, a user, a session; any bytes.
    pub fn key(mut self, bytes: impl AsRef<[u8]>) -> Context {
        self.key = Some(key_of(bytes.as_ref()));
        self
    }

    /// Not the backend of this id: it was tried already, say.
    pub fn exclude(mut self, id: impl Into<Arc<str>>) -> Context {
        self.excluded.push(id.into());
        self
    }

    /// By the same bytes as the program hashes, so that both agree.
    pub(super) fn hashed(&self) -> Option<Key> {
        let of_client = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(ip) => key_of(&ip.octets()),
            IpAddr::V6(ip) => key_of(&ip.octets()),
        };
        self.key.or_else(|| self.client.map(of_client))
    }
}
