//! The snapshot: everything a worker needs to decide, immutable, built by control.

use crate::balance::{Algorithm, Picker, Place};
use crate::base::ids::{BackendSlot, ListenerId, PoolId};
use crate::base::net::Networks;
use crate::guard::{BreakerRules, Budget, Cap, PerClient, Seldom};
use crate::route::Router;
use crate::shared::admin::Rules;
use crate::shared::backend::BackendState;
use crate::shared::choose::{Crowds, Turns};
use crate::shared::limit::Limit;
use crate::shared::queue::{Queue, Wakers};
use crate::stats::Tallies;
use crate::wire::proxy;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::config::Serves;

/// One generation of what is in force.
#[derive(Debug)]
pub struct Snapshot {
    /// Counted from 1.
    pub generation: u64,
    /// Counts the changes of the configuration; not from 1, see `Plan`. Health and names make new snapshots, and leave this as
    /// it is. What ETag tells.
    pub edition: u64,
    /// Who may call the admin API.
    pub admin: Arc<Rules>,
    /// By [`ListenerId`]; those that have left the configuration stay in their place ([`Listener::gone`]).
    pub listeners: Vec<Listener>,
    /// By [`PoolId`]; those that have left the configuration stay in their place ([`Pool::gone`]).
    pub pools: Vec<Pool>,
    /// Counts how often something has happened that ends open connections: a backend was found down in a pool that closes
    /// them, or has had its drain_timeout. A worker looks at all of its sessions when it has moved.
    pub cuts: u64,
}

impl Snapshot {
    /// The listener of that number, if it is still there.
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(usize::from(id.0))
    }

    /// The pool of that number, if it is still there.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(id.0 as usize)
    }

    /// The pools of the configuration, without those that only what is left of old sessions goes by.
    pub fn live_pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(|pool| !pool.gone)
    }
}

/// What a worker knows of a listener.
#[derive(Debug)]
pub struct Listener {
    /// Its name. Unique among those that are not `gone`.
    pub name: Arc<str>,
    /// It has left the configuration: its sessions go on as they can, and nobody is asked to stay.
    pub gone: bool,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether the admin API is served there, and whether anything else is.
    pub serves: Serves,
    /// Where everything goes that no route takes.
    pub pool: Option<PoolId>,
    /// What only HTTP needs.
    pub http: Http,
    /// A connection begins with a PROXY protocol header.
    pub accept_proxy: bool,
    /// TCP: no byte either way for this long ends a connection. HTTP: the same between requests. UDP: no datagram
    /// either way for this long ends a session.
    pub idle_timeout: Duration,
    /// Its max_connections.
    pub connections: Arc<Cap>,
    /// Its max_per_client; `None` means no limit.
    pub per_client: Option<Arc<PerClient>>,
    /// How many may begin in a time; `None` means no limit.
    pub rate_limit: Option<Limit>,
    /// When the log may say again that it accepts nobody.
    pub warnings: Arc<Seldom>,
    /// What has come in by it so far.
    pub tallies: Arc<Tallies>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Requests, one by one.
    Http,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a worker knows of an HTTP listener.
#[derive(Debug)]
pub struct Http {
    /// From accept, or the first byte of a request, to the end of its head.
    pub header_timeout: Duration,
    /// How long a request's body may not move.
    pub body_timeout: Duration,
    /// From a request's head to its response's end.
    pub request_timeout: Option<Duration>,
    /// How long an upgraded connection, or a response under way, may be without a byte.
    pub tunnel_timeout: Duration,
    /// The largest head, in bytes.
    pub max_header_size: usize,
    /// The largest body, in bytes; 0 means no limit.
    pub max_body_size: u64,
    /// Which route takes a request.
    pub router: Router,
    /// Where each route leads.
    pub routes: Vec<PoolId>,
    /// Peers that are believed.
    pub trusted: Networks,
}

/// When sessions of UDP end, and what they do when their backend is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// A session ends when every datagram of its client so far has had that many replies; 0 means by idle time alone.
    pub responses: u32,
    /// After that many datagrams of its client the next one opens another session; 0 means no limit.
    pub requests: u32,
    /// A session stays with a backend that is down, in place of taking another one at its client's next datagram.
    pub keep_on_down: bool,
}

/// What a worker knows of a pool.
#[derive(Debug)]
pub struct Pool {
    /// Its name. Unique among those that are not `gone`.
    pub name: Arc<str>,
    /// It has left the configuration; what its last sessions need is still here.
    pub gone: bool,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// From a request sent to the head of its response.
    pub response_timeout: Duration,
    /// Other backends tried when a connection fails.
    pub retries: u32,
    /// Retries are at most this share of the requests.
    pub retry_budget: f64,
    /// Counts them.
    pub budget: Arc<Budget>,
    /// What was sent here so far.
    pub tallies: Arc<Tallies>,
    /// Whether idle connections to backends are kept.
    pub keepalive: bool,
    /// For how long.
    pub keepalive_timeout: Duration,
    /// How a backend is told who its client is.
    pub send_proxy: Option<proxy::Version>,
    /// What only UDP needs.
    pub udp: Udp,
    /// In the order of the configuration, and behind them those that leave; what a rota counts by.
    pub backends: Vec<Backend>,
    /// Where each is in `backends`.
    pub places: Places,
    /// Whose turn it is, for each step of [`Pool::pick`]; kept from one snapshot to the next.
    pub turns: Arc<Turns>,
    /// What is in flight, for `hash_balance`; kept likewise.
    pub crowds: Arc<Crowds>,
    /// Those that take new work.
    pub primaries: Arc<Picker>,
    /// Those that take it when no primary is up.
    pub backups: Arc<Picker>,
    /// What its hashing goes by.
    pub hash_key: HashKey,
    /// No backend holds more than this times the mean of what is in flight; 0 is no bound.
    pub hash_balance: f32,
    /// When the breakers of its backends move; `None`: they have none.
    pub breaker: Option<BreakerRules>,
    /// How many may begin in a time; `None` means no limit.
    pub rate_limit: Option<Limit>,
    /// How long a backend that comes up ramps its share.
    pub slow_start: Duration,
    /// So few of its backends are healthy that health is not heeded.
    pub panics: bool,
    /// The line of clients that wait while its backends are full.
    pub queue: Arc<Queue>,
    /// How long one may wait in it.
    pub queue_timeout: Duration,
    /// Connections to a backend found down are closed.
    pub close_on_down: bool,
}

impl Pool {
    /// A pool of `backends`, primaries all of them, that picks by `algorithm`; the rest as a configuration that says
    /// nothing else would have it, but with no health, no breaker and no slow start. For whoever wants to see how a pool
    /// picks without a whole configuration.
    pub fn over(algorithm: Algorithm, backends: Vec<Backend>) -> Pool {
        let place = |(at, backend): (usize, &Backend)| Place {
            place: at as u32,
            id: backend.id.to_string(),
            weight: backend.weight,
        };
        let places: Vec<Place> = backends.iter().enumerate().map(place).collect();
        Pool {
            name: "p".into(),
            gone: false,
            places: Places::of(&backends),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            retries: 1,
            retry_budget: 0.2,
            budget: Arc::default(),
            tallies: Tallies::shared(1),
            keepalive: true,
            keepalive_timeout: Duration::from_secs(4),
            send_proxy: None,
            udp: Udp::default(),
            backends,
            turns: Arc::default(),
            crowds: Arc::default(),
            primaries: Arc::new(Picker::build(algorithm, &places)),
            backups: Arc::default(),
            hash_key: HashKey::ClientIp,
            hash_balance: 0.0,
            breaker: None,
            rate_limit: None,
            slow_start: Duration::ZERO,
            panics: false,
            queue: Queue::new(1, 0, Wakers::default()),
            queue_timeout: Duration::from_secs(5),
            close_on_down: false,
        }
    }

    /// The backend of that slot, if it is here.
    pub fn backend_of(&self, slot: BackendSlot) -> Option<&Backend> {
        self.backends.get(self.places.of_slot(slot)?)
    }

    /// The id of the backend of that slot, for the log.
    pub fn name_of(&self, slot: BackendSlot) -> &str {
        self.backend_of(slot).map_or("?", |backend| &backend.id)
    }
}

/// Where the backends of a pool are, by slot: a worker that has a lease finds its backend without looking through all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Arc<[(BackendSlot, u32)]>);

impl Places {
    /// The places of `backends`.
    pub fn of(backends: &[Backend]) -> Places {
        let mut places: Vec<_> = backends.iter().zip(0..).map(|(backend, at)| (backend.state.slot, at)).collect();
        places.sort_unstable();
        Places(places.into())
    }

    fn of_slot(&self, slot: BackendSlot) -> Option<usize> {
        let at = self.0.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
        Some(self.0[at].1 as usize)
    }
}

/// What the hashing algorithms of a pool go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The address of the client.
    #[default]
    ClientIp,
    /// The path of the request.
    Path,
    /// The path and the query.
    Uri,
    /// A header, by its name in lower case.
    Header(Box<str>),
    /// A cookie, by its name.
    Cookie(Box<str>),
}

/// What a worker knows of a backend.
#[derive(Debug)]
pub struct Backend {
    /// Its id, unique in the pool.
    pub id: Arc<str>,
    /// Where it is, as configured.
    pub address: Arc<str>,
    /// 0 to 256; 0 takes no new work.
    pub weight: u16,
    /// It was told to take no new work.
    pub disabled: bool,
    /// It takes no new sessions: it was told so, or it leaves.
    pub draining: bool,
    /// Its pool checks backends.
    pub checked: bool,
    /// Where it is, in the resolver's order. Empty: its name does not resolve, or only to our own
    /// listeners.
    pub addresses: Arc<[SocketAddr]>,
    /// What is known of it.
    pub state: Arc<BackendState>,
}
