//! A worker's datagrams over scripted sockets, step by step: the house they live in; the tests are in its rooms.

mod counting;
mod failing;
mod lives;
mod passing;

use super::*;
use crate::balance::Algorithm;
use crate::base::ids::PoolId;
use crate::base::net::Networks;
use crate::guard::{PerClient, Seldom};
use crate::link::datagram::scripted::{Incoming, News, ScriptedDatagrams, Sent, Whims};
use crate::route::Router;
use crate::shared::backend::BackendState;
use crate::shared::snapshot::{Backend, Http, Listener, Pool, Protocol, Serves, Udp};
use crate::stats::{Stats, Sum, Tallies, Totals};
use std::net::{IpAddr, SocketAddr};

/// How long a session may be silent here, in milliseconds.
pub(super) const IDLE: u64 = 10_000;

/// A worker, and what it works by.
pub(super) struct House {
    pub(super) net: ScriptedDatagrams,
    pub(super) flows: Flows<ScriptedDatagrams>,
    pub(super) snapshot: Snapshot,
    pub(super) stats: Stats,
    pub(super) process: Arc<Cap>,
    pub(super) now: Tick,
}

pub(super) fn client(n: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, n as u8]), 1000 + n)
}

pub(super) fn backend(n: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 1, 0, n as u8]), 53)
}

fn pool(addresses: &[&[SocketAddr]], udp: Udp) -> Pool {
    let backends = addresses.iter().enumerate().map(|(n, addresses)| Backend {
        id: format!("b{n}").into(),
        address: format!("b{n}.test:53").into(),
        weight: 1,
        disabled: false,
        draining: false,
        checked: false,
        addresses: (*addresses).into(),
        state: BackendState::new(BackendSlot(n as u32), 0, 0, 1),
    });
    Pool { udp, ..Pool::over(Algorithm::RoundRobin, backends.collect()) }
}

pub(super) fn listener(connections: u32, per_client: Option<u32>) -> Listener {
    Listener {
        name: "l".into(),
        gone: false,
        protocol: Protocol::Udp,
        serves: Serves::default(),
        pool: Some(PoolId(0)),
        http: Http {
            header_timeout: Duration::ZERO,
            body_timeout: Duration::ZERO,
            request_timeout: None,
            tunnel_timeout: Duration::ZERO,
            max_header_size: 0,
            max_body_size: 0,
            router: Router::build(Vec::new()),
            routes: Vec::new(),
            trusted: Networks::default(),
        },
        accept_proxy: false,
        idle_timeout: Duration::from_millis(IDLE),
        connections: Cap::new(connections),
        per_client: per_client.map(PerClient::new),
        rate_limit: None,
        warnings: Arc::new(Seldom::new()),
        tallies: Tallies::shared(1),
    }
}

impl House {
    /// Two listening sockets, the second of them as one that is bound to a wildcard, and backends at these addresses.
    pub(super) fn new(seed: u64, whims: Whims, addresses: &[&[SocketAddr]], udp: Udp) -> House {
        let net = ScriptedDatagrams::new(seed, whims);
        let fronts = vec![Front::new(ListenerId(0), net.listening()), Front::new(ListenerId(0), net.listening())];
        let snapshot = Snapshot {
            generation: 1,
            edition: 1,
            admin: Arc::default(),
            listeners: vec![listener(0, None)],
            pools: vec![pool(addresses, udp)],
            cuts: 0,
        };
        House {
            flows: Flows::new(net.clone(), fronts, Tick(1)),
            net,
            snapshot,
            stats: Stats::new(1),
            process: Cap::new(0),
            now: Tick(1),
        }
    }

    /// With one backend after the other at one address each.
    pub(super) fn plain(backends: u16, udp: Udp) -> House {
        let addresses: Vec<[SocketAddr; 1]> = (1..=backends).map(|n| [backend(n)]).collect();
        let addresses: Vec<&[SocketAddr]> = addresses.iter().map(|one| &one[..]).collect();
        House::new(0, Whims::default(), &addresses, udp)
    }

    pub(super) fn turn(&mut self) {
        for news in self.net.ends().news() {
            match news {
                News::Listening(at) => self.flows.latch_front(at),
                News::Flow(id) => self.flows.latch(id),
            }
        }
        self.with(|flows, cx| flows.turn(cx));
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Flows<ScriptedDatagrams>, Context<'_>) -> T) -> T {
        let House { flows, snapshot, stats, process, now, .. } = self;
        act(flows, Context { now: *now, snapshot, process, count: stats.cell(0), worker: WorkerId(0) })
    }

    /// Turns until nothing is ready.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.turn();
            if self.flows.ready() == 0 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub(super) fn wait(&mut self, milliseconds: u64) {
        self.now = Tick(self.now.0 + milliseconds);
        self.net.ends().nanos += milliseconds * 1_000_000;
        self.with(|flows, cx| flows.expire(cx));
    }

    pub(super) fn totals(&self) -> Totals {
        self.stats.totals()
    }

    pub(super) fn ask(&mut self, n: u16, datagrams: &[&[u8]]) {
        for bytes in datagrams {
            let what = Incoming { from: client(n), to: None, bytes: bytes.to_vec(), segment: 0 };
            self.net.ends().arrive(0, what);
        }
        self.settle();
    }

    fn train(&mut self, n: u16, bytes: &[u8], segment: usize) {
        self.net.ends().arrive(0, Incoming { from: client(n), to: None, bytes: bytes.to_vec(), segment });
        self.settle();
    }

    /// A reply comes in on a socket: the first socket of a flow is number 2.
    pub(super) fn reply(&mut self, socket: usize, from: SocketAddr, bytes: &[u8], segment: usize) {
        self.net.ends().arrive(socket, Incoming { from, to: None, bytes: bytes.to_vec(), segment });
        self.settle();
    }

    /// What each socket has sent, as texts.
    pub(super) fn sent(&self, socket: usize) -> Vec<(SocketAddr, Vec<String>)> {
        let text = |sent: &Sent| {
            (sent.to, sent.datagrams.iter().map(|one| String::from_utf8_lossy(one).into_owned()).collect())
        };
        self.net.ends().get(socket).sent.iter().map(text).collect()
    }

    pub(super) fn opened(&self) -> usize {
        self.net.ends().len() - 2
    }

    /// Each datagram is accounted for, and everything that was taken is given back.
    pub(super) fn check_counts(&self) {
        let t = self.totals();
        let dropped = t.udp_no_backend
            + t.udp_over_limit
            + t.udp_draining
            + t.udp_empty
            + t.udp_truncated
            + t.udp_too_big
            + t.udp_would_block
            + t.udp_refused
            + t.udp_failed;
        assert_eq!(t.udp_in, t.udp_forwarded + dropped, "{t:?}");
        let lost =
            t.udp_stranger + t.udp_reply_truncated + t.udp_reply_too_big + t.udp_reply_would_block + t.udp_reply_failed;
        assert_eq!(t.udp_replies, t.udp_out + lost, "{t:?}");
    }

    /// What has begun has ended once, at the listener, in the pool and at each backend, and what was counted there comes to
    /// what was counted for the process.
    fn check_booked(&self) {
        let totals = self.totals();
        let (listener, pool) = (self.snapshot.listeners[0].tallies.sum(), self.snapshot.pools[0].tallies.sum());
        let mut backends = Sum::default();
        for backend in &self.snapshot.pools[0].backends {
            let sum = backend.state.tallies.sum();
            assert_eq!(sum.sessions, ended(&sum), "backend {}: {sum:?}", backend.id);
            assert_eq!(sum.refused, 0, "{sum:?}");
            backends += sum;
        }
        for sum in [listener, pool] {
            assert_eq!(sum.sessions, ended(&sum), "{sum:?}");
            assert_eq!((sum.datagrams_in, sum.bytes_in), (totals.udp_in, totals.bytes_in), "{sum:?}");
            assert_eq!((sum.datagrams_out, sum.bytes_out), (totals.udp_out, totals.bytes_out), "{sum:?}");
        }
        assert_eq!(backends.datagrams_in, totals.udp_forwarded);
        assert_eq!(backends.datagrams_out + totals.udp_stranger, totals.udp_replies);
    }

    pub(super) fn check_all_back(&mut self) {
        assert_eq!(self.flows.len(), 0);
        if self.totals().panics == 0 {
            self.check_booked();
        }
        assert!(self.flows.table.is_empty());
        assert_eq!(self.net.ends().open(), 2, "the listening sockets alone");
        assert_eq!(self.process.used(), 0);
        let listener = &self.snapshot.listeners[0];
        assert_eq!(listener.connections.used(), 0);
        assert_eq!(listener.per_client.as_ref().map_or(0, |clients| clients.clients()), 0);
        for backend in &self.snapshot.pools[0].backends {
            assert_eq!(backend.state.active.used(), 0, "{}", backend.id);
        }
    }
}

fn ended(sum: &Sum) -> u64 {
    sum.succeeded + sum.failed + sum.refused + sum.aborted
}

fn rules(responses: u32, requests: u32, keep_on_down: bool) -> Udp {
    Udp { responses, requests, keep_on_down }
}

fn one(to: SocketAddr, text: &str) -> (SocketAddr, Vec<String>) {
    (to, vec![text.to_owned()])
}
