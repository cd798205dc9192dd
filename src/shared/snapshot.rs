//! The snapshot: everything a worker needs to decide, immutable, built by control.

use crate::balance::Rota;
use crate::base::ids::{BackendSlot, ListenerId, PoolId};
use crate::base::net::Networks;
use crate::base::time::Tick;
use crate::guard::{Budget, Cap, PerClient, Seldom};
use crate::route::Router;
use crate::shared::backend::{BackendState, Lease};
use crate::wire::proxy;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// One generation of what is in force.
#[derive(Debug)]
pub struct Snapshot {
    /// Counted from 1.
    pub generation: u64,
    /// By [`ListenerId`].
    pub listeners: Vec<Listener>,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
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
}

/// What a worker knows of a listener.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// What is spoken there.
    pub protocol: Protocol,
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
    /// When the log may say again that it accepts nobody.
    pub warnings: Arc<Seldom>,
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
    /// Its name.
    pub name: Arc<str>,
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
    /// Whether idle connections to backends are kept.
    pub keepalive: bool,
    /// For how long.
    pub keepalive_timeout: Duration,
    /// How a backend is told who its client is.
    pub send_proxy: Option<proxy::Version>,
    /// What only UDP needs.
    pub udp: Udp,
    /// In the order of the configuration; what a rota counts by.
    pub backends: Vec<Backend>,
    /// Whose turn it is, for each step of [`Pool::pick`]; kept from one snapshot to the next.
    pub turns: Arc<Turns>,
    /// Those that take new work.
    pub primaries: Rota,
    /// Those that take it when no primary is up.
    pub backups: Rota,
}

/// What a worker knows of a backend.
#[derive(Debug)]
pub struct Backend {
    /// Its id, unique in the pool.
    pub id: Arc<str>,
    /// Where it is, in the resolver's order. Empty: its name does not resolve, or only to our own
    /// listeners.
    pub addresses: Arc<[SocketAddr]>,
    /// What is known of it.
    pub state: Arc<BackendState>,
}

/// A counter for each step of [`Pool::pick`], so that the refusals of one do not shift the turns of another.
pub type Turns = [AtomicU64; 4];

/// A backend that was picked.
#[derive(Debug)]
pub struct Picked {
    /// Its place in the pool, in this snapshot.
    pub place: usize,
    /// The place taken at it.
    pub lease: Lease,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// The pool has none that takes new work.
    NoneThere,
    /// Each was tried for this client already.
    AllTried,
    /// Those that are up are at their max_connections.
    AllFull,
}

impl Pool {
    /// The backend whose turn it is, among those that are not in `tried`, not set aside and not full. One that is set
    /// aside is taken all the same where there is no other: the last one is never set aside.
    pub fn pick(&self, now: Tick, tried: &[BackendSlot]) -> Result<Picked, NoBackend> {
        // Each step is tried only when nobody of those before is up; one that is up and full still bars the way, since
        // backups are for failure, not for load.
        let steps = [(&self.primaries, false), (&self.backups, false), (&self.primaries, true), (&self.backups, true)];
        let mut reason = NoBackend::NoneThere;
        for ((rota, even_aside), turn) in steps.into_iter().zip(&*self.turns) {
            let mut lease = None;
            let mut full = false;
            let place = rota.pick(turn, |place| {
                let state = &self.backends[place as usize].state;
                if tried.contains(&state.slot) {
                    reason = NoBackend::AllTried;
                    return false;
                }
                if state.is_aside(now) && !even_aside {
                    return false;
                }
                lease = Lease::take(state);
                full |= lease.is_none();
                lease.is_some()
            });
            if let (Some(place), Some(lease)) = (place, lease) {
                return Ok(Picked { place: place as usize, lease });
            }
            if full {
                return Err(NoBackend::AllFull);
            }
        }
        Err(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(max_connections: u32) -> Pool {
        let backend = |n: u32| Backend {
            id: format!("b{n}").into(),
            addresses: Arc::new([]),
            state: BackendState::new(BackendSlot(n), max_connections, 0),
        };
        Pool {
            name: "p".into(),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            retry_budget: 0.2,
            budget: Arc::default(),
            keepalive: true,
            keepalive_timeout: Duration::from_secs(4),
            send_proxy: None,
            udp: Udp::default(),
            retries: 1,
            backends: (0..3).map(backend).collect(),
            turns: Arc::default(),
            primaries: Rota::in_turn(vec![0, 1]),
            backups: Rota::in_turn(vec![2]),
        }
    }

    fn picks(pool: &Pool, tried: &[u32], n: usize) -> Vec<Result<usize, NoBackend>> {
        let tried: Vec<_> = tried.iter().copied().map(BackendSlot).collect();
        (0..n).map(|_| pool.pick(Tick(100), &tried).map(|picked| picked.place)).collect()
    }

    #[test]
    fn picking_is_total_and_says_why_not() {
        type Row = (&'static str, &'static [u32], &'static [u32], Vec<Result<usize, NoBackend>>);
        let rows: Vec<Row> = vec![
            ("primaries in turn", &[], &[], vec![Ok(0), Ok(1), Ok(0)]),
            ("one set aside", &[0], &[], vec![Ok(1), Ok(1)]),
            ("both set aside: the backup", &[0, 1], &[], vec![Ok(2), Ok(2)]),
            ("all set aside: the last ones never are", &[0, 1, 2], &[], vec![Ok(0), Ok(1)]),
            ("one tried", &[], &[1], vec![Ok(0), Ok(0)]),
            ("both tried: the backup", &[], &[0, 1], vec![Ok(2)]),
            ("one tried, the other aside: the backup first", &[1], &[0], vec![Ok(2)]),
            ("tried, and the others aside: one of these", &[1, 2], &[0], vec![Ok(1)]),
            ("all tried", &[], &[0, 1, 2], vec![Err(NoBackend::AllTried)]),
        ];
        for (why, aside, tried, expected) in rows {
            let pool = pool(0);
            for place in aside {
                pool.backends[*place as usize].state.failed(Tick(50));
            }
            assert_eq!(picks(&pool, tried, expected.len()), expected, "{why}");
        }
    }

    #[test]
    fn full_primaries_bar_the_way_to_backups() {
        let pool = pool(1);
        let _first = pool.pick(Tick(0), &[]).unwrap();
        let second = pool.pick(Tick(0), &[]).unwrap();
        assert_eq!(pool.pick(Tick(0), &[]).unwrap_err(), NoBackend::AllFull);
        let place = second.place;
        drop(second);
        assert_eq!(pool.pick(Tick(0), &[]).unwrap().place, place, "a lease came back");
    }

    #[test]
    fn an_empty_pool_has_none() {
        let mut pool = pool(0);
        (pool.primaries, pool.backups) = (Rota::default(), Rota::default());
        assert_eq!(pool.pick(Tick(0), &[]).unwrap_err(), NoBackend::NoneThere);
    }
}
