//! What the admin API answers: a snapshot, its counters and its backends as JSON.
//!
//! Knows: what is in a snapshot. Must not touch: anything else; it is a function of that and the time.

use crate::base::time::Tick;
use crate::config::Config;
use crate::control::answers::About;
use crate::control::inforce;
use crate::guard::BreakerState;
use crate::shared::admin::{Answer, Question};
use crate::shared::limit::Limit;
use crate::shared::snapshot::{Backend, Listener, Pool, Protocol, Serves, Snapshot};
use crate::stats::Sum;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::HashSet;

/// Answers `question` as things stand `now`; `about` is what the configuration is made of, and `departs` says that the
/// process is to end.
pub(super) fn answer(question: &Question, snapshot: &Snapshot, about: &About, now: Tick, departs: bool) -> Answer {
    match question {
        Question::Config => inforce::config(about),
        Question::Health => health(snapshot, now, departs),
        Question::Stats => json(200, &stats(snapshot, now)),
        Question::Backends { pool } => backends(pool.as_deref(), snapshot, now),
    }
}

pub(super) fn json(status: u16, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            Answer::json(status, body)
        }
        Err(error) => Answer::problem(500, &format!("this cannot be told: {error}; please report it")),
    }
}

/// Objects by name, in the order of the configuration.
struct ByName<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for ByName<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    /// Why, where it is not for a pool that has nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unhealthy_pools: Vec<String>,
    pools: ByName<PoolHealth>,
}

#[derive(Serialize)]
struct PoolHealth {
    status: &'static str,
    available: usize,
    backends: usize,
}

fn health(snapshot: &Snapshot, now: Tick, departs: bool) -> Answer {
    let word = |healthy: bool| if healthy { "healthy" } else { "unhealthy" };
    let one = |pool: &Pool| {
        let available = pool.available(now);
        let health = PoolHealth { status: word(available > 0), available, backends: pool.backends.len() };
        (pool.name.to_string(), health)
    };
    let pools: Vec<_> = snapshot.live_pools().map(one).collect();
    let bad = pools.iter().filter(|(_, health)| health.available == 0).map(|(name, _)| name.clone());
    let unhealthy_pools: Vec<String> = bad.collect();
    let healthy = unhealthy_pools.is_empty() && !departs;
    let reason = departs.then_some("draining");
    let health = Health { status: word(healthy), reason, unhealthy_pools, pools: ByName(pools) };
    json(if healthy { 200 } else { 503 }, &health)
}

#[derive(Serialize)]
struct BackendLine<'a> {
    id: &'a str,
    pool: &'a str,
    address: &'a str,
    weight: u16,
    state: &'static str,
    health: &'static str,
    active_connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit_breaker: Option<Breaker>,
}

fn backends(wanted: Option<&str>, snapshot: &Snapshot, now: Tick) -> Answer {
    if let Some(wanted) = wanted
        && !snapshot.live_pools().any(|pool| &*pool.name == wanted)
    {
        let names: Vec<&str> = snapshot.live_pools().map(|pool| &*pool.name).collect();
        return Answer::problem(404, &format!("there is no pool {wanted:?}; the pools are {}", names.join(", ")));
    }
    let pools = snapshot.pools.iter().filter(|pool| wanted.is_none_or(|wanted| &*pool.name == wanted));
    let line = |pool, backend| backend_line(pool, backend, now);
    let lines: Vec<_> = pools.flat_map(|pool| pool.backends.iter().map(move |backend| line(pool, backend))).collect();
    json(200, &lines).about(snapshot.edition)
}

/// The backend `id` of `pool`, as [`Question::Backends`] lists it.
pub(super) fn backend(status: u16, snapshot: &Snapshot, pool: &str, id: &str, now: Tick) -> Answer {
    let pool = snapshot.live_pools().find(|known| &*known.name == pool);
    let found = pool.and_then(|pool| Some((pool, pool.backends.iter().find(|backend| &*backend.id == id)?)));
    match found {
        Some((pool, backend)) => json(status, &backend_line(pool, backend, now)),
        // Somebody has removed it since.
        None => Answer::problem(409, "the change was made, and another one has removed the backend since"),
    }
}

/// The backend `id` of `pool`, if it is on its way out: it is not in `config`, the configuration in force, any more.
pub(super) fn leaving<'s>(snapshot: &'s Snapshot, config: &Config, pool: &str, id: &str) -> Option<&'s Backend> {
    let stays = config.pools.iter().find(|known| known.name == pool)?;
    if stays.backends.iter().any(|backend| backend.id == id) {
        return None;
    }
    let pool = snapshot.live_pools().find(|known| &*known.name == pool)?;
    pool.backends.iter().find(|backend| &*backend.id == id)
}

fn backend_line<'a>(pool: &'a Pool, backend: &'a Backend, now: Tick) -> BackendLine<'a> {
    BackendLine {
        id: &backend.id,
        pool: &pool.name,
        address: &backend.address,
        weight: backend.weight,
        state: backend.standing(now).word(),
        health: if backend.is_well(now) { "healthy" } else { "unhealthy" },
        active_connections: backend.state.active.used(),
        circuit_breaker: breaker(pool, backend, &backend.state.tallies.sum(), now),
    }
}

/// A circuit breaker, where one is configured.
#[derive(Serialize)]
struct Breaker {
    state: &'static str,
    failure_rate: f64,
}

/// The breaker of a backend, which has counted `sum`: the one place that says so.
fn breaker(pool: &Pool, backend: &Backend, sum: &Sum, now: Tick) -> Option<Breaker> {
    pool.breaker.map(|_| Breaker {
        state: match backend.state.breaker.state(now) {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        },
        failure_rate: 1.0 - sum.success_rate(),
    })
}

#[derive(Serialize)]
struct Stats {
    #[serde(flatten)]
    totals: Counts,
    listeners: ByName<LimitedCounts>,
    pools: ByName<PoolStats>,
}

/// Of a listener or pool, with what its limit by rate has let in, where there is one.
#[derive(Serialize)]
struct LimitedCounts {
    #[serde(flatten)]
    own: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimit>,
}

#[derive(Serialize)]
struct RateLimit {
    allowed: u64,
    limited: u64,
}

fn with_limit(own: Counts, limit: Option<&Limit>) -> LimitedCounts {
    let rate_limit = limit.map(|limit| {
        let (allowed, limited) = limit.gates.totals();
        RateLimit { allowed, limited }
    });
    LimitedCounts { own, rate_limit }
}

#[derive(Serialize)]
struct PoolStats {
    #[serde(flatten)]
    own: LimitedCounts,
    backends: ByName<BackendStats>,
}

#[derive(Serialize)]
struct BackendStats {
    #[serde(flatten)]
    own: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit_breaker: Option<Breaker>,
}

#[derive(Serialize)]
struct Counts {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams: Option<BothWays>,
    succeeded: u64,
    failed: u64,
    refused: u64,
    aborted: u64,
    success_rate: f64,
    bytes: BothWays,
    active: u64,
    latency_ms: Latency,
    retries: u64,
}

#[derive(Serialize)]
struct BothWays {
    r#in: u64,
    out: u64,
}

#[derive(Serialize)]
struct Latency {
    mean: f64,
}

/// Which protocols something has to do with: what it counts is called by them.
#[derive(Clone, Copy, Default)]
struct Speaks {
    http: bool,
    tcp: bool,
    udp: bool,
}

impl Speaks {
    fn add(&mut self, protocol: Protocol) {
        match protocol {
            Protocol::Http => self.http = true,
            Protocol::Tcp => self.tcp = true,
            Protocol::Udp => self.udp = true,
        }
    }
}

fn counts(sum: &Sum, speaks: Speaks, active: u64) -> Counts {
    Counts {
        requests: speaks.http.then_some(sum.requests),
        connections: speaks.tcp.then_some(sum.connections),
        sessions: speaks.udp.then_some(sum.sessions),
        datagrams: speaks.udp.then_some(BothWays { r#in: sum.datagrams_in, out: sum.datagrams_out }),
        succeeded: sum.succeeded,
        failed: sum.failed,
        refused: sum.refused,
        aborted: sum.aborted,
        success_rate: sum.success_rate(),
        bytes: BothWays { r#in: sum.bytes_in, out: sum.bytes_out },
        active,
        latency_ms: Latency { mean: sum.mean_latency() },
        retries: sum.retries,
    }
}

fn stats(snapshot: &Snapshot, now: Tick) -> Stats {
    let mut totals = Sum::default();
    let mut all = Speaks::default();
    let mut by_pool = vec![Speaks::default(); snapshot.pools.len()];
    let mut listeners = Vec::new();
    // What is asked of the admin API is counted nowhere.
    for listener in snapshot.listeners.iter().filter(|listener| listener.serves != Serves::Admin) {
        let mut own = Speaks::default();
        own.add(listener.protocol);
        all.add(listener.protocol);
        for pool in pools_of(listener) {
            by_pool[pool].add(listener.protocol);
        }
        // What has left the configuration still counts for the whole.
        let sum = listener.tallies.sum();
        totals += sum;
        if listener.gone {
            continue;
        }
        let counts = with_limit(counts(&sum, own, sum.active()), listener.rate_limit.as_ref());
        listeners.push((listener.name.to_string(), counts));
    }
    let pool = |(pool, speaks): (&Pool, Speaks)| {
        let backend = |backend: &Backend| {
            let sum = backend.state.tallies.sum();
            let own = counts(&sum, speaks, u64::from(backend.state.active.used()));
            (backend.id.to_string(), BackendStats { own, circuit_breaker: breaker(pool, backend, &sum, now) })
        };
        let sum = pool.tallies.sum();
        // One that leaves may have left its id to another.
        let mut told = HashSet::new();
        let backends = pool.backends.iter().filter(|backend| told.insert(&backend.id)).map(backend);
        let backends = ByName(backends.collect());
        let own = with_limit(counts(&sum, speaks, sum.active()), pool.rate_limit.as_ref());
        (pool.name.to_string(), PoolStats { own, backends })
    };
    let pools = snapshot.pools.iter().zip(by_pool).filter(|(pool, _)| !pool.gone).map(pool).collect();
    Stats { totals: counts(&totals, all, totals.active()), listeners: ByName(listeners), pools: ByName(pools) }
}

/// Where a listener leads, by itself and by its routes.
fn pools_of(listener: &Listener) -> impl Iterator<Item = usize> {
    listener.pool.iter().chain(&listener.http.routes).map(|pool| pool.0 as usize)
}
