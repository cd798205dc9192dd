//! From the words of the configuration to what is checked, and how is picked.

use crate::balance;
use crate::config::{self, Address, CheckKind};
use crate::guard::BreakerRules;
use crate::probe::{Check, Rules};
use crate::shared::checks::CheckPlan;
use crate::shared::snapshot::HashKey;
use std::net::SocketAddr;
use std::sync::Arc;

/// How `backend` of `pool` is checked; `None`: not at all.
pub(super) fn plan_of(pool: &config::Pool, backend: &config::Backend) -> Option<CheckPlan> {
    let own = backend.check.as_ref().map(|url| url.over(&pool.health_check));
    let config = own.as_ref().unwrap_or(&pool.health_check);
    let check = match &config.kind {
        CheckKind::None => return None,
        CheckKind::Tcp { send, expect } => Check::Tcp { send: send.clone(), expect: expect.clone() },
        CheckKind::Udp { send, expect } => Check::Udp { send: send.clone(), expect: expect.clone() },
        CheckKind::Http { path, host, expect_status } => Check::Http {
            path: path.clone(),
            host: host.clone().unwrap_or_else(|| host_of(&backend.address)),
            expect: *expect_status,
        },
    };
    let config::HealthCheck { rise, fall, interval, initially_up, timeout, .. } = *config;
    Some(CheckPlan { check, rules: Rules { rise, fall, interval, initially_up }, timeout })
}

/// Where `backend`, which is to be found at `addresses`, is checked.
pub(super) fn checked_at(backend: &config::Backend, addresses: &Arc<[SocketAddr]>) -> Arc<[SocketAddr]> {
    match &backend.check {
        Some(url) => addresses.iter().map(|address| SocketAddr::new(address.ip(), url.port)).collect(),
        None => addresses.clone(),
    }
}

/// As a client would write it into Host: without the port where that is HTTP's own.
fn host_of(address: &Address) -> String {
    let text = address.to_string();
    text.strip_suffix(":80").map_or(text.clone(), str::to_owned)
}

/// The same algorithm, as `balance` calls it.
pub(super) fn algorithm_of(algorithm: config::Algorithm) -> balance::Algorithm {
    match algorithm {
        config::Algorithm::RoundRobin => balance::Algorithm::RoundRobin,
        config::Algorithm::WeightedRoundRobin => balance::Algorithm::WeightedRoundRobin,
        config::Algorithm::IpHash => balance::Algorithm::IpHash,
        config::Algorithm::LeastConnections => balance::Algorithm::LeastConnections,
        config::Algorithm::ConsistentHash => balance::Algorithm::ConsistentHash,
        config::Algorithm::FastestResponse => balance::Algorithm::FastestResponse,
        config::Algorithm::Maglev => balance::Algorithm::Maglev,
        config::Algorithm::RandomTwo => balance::Algorithm::RandomTwo,
    }
}

/// The same key, as the snapshot calls it.
pub(super) fn hash_key_of(key: &config::HashKey) -> HashKey {
    match key {
        config::HashKey::ClientIp => HashKey::ClientIp,
        config::HashKey::Path => HashKey::Path,
        config::HashKey::Uri => HashKey::Uri,
        config::HashKey::Header(name) => HashKey::Header(name.as_str().into()),
        config::HashKey::Cookie(name) => HashKey::Cookie(name.as_str().into()),
    }
}

/// When the breakers of a pool move.
pub(super) fn breaker_of(pool: &config::Pool) -> Option<BreakerRules> {
    pool.circuit_breaker.as_ref().map(|breaker| BreakerRules {
        failures: breaker.failure_threshold,
        successes: breaker.success_threshold,
        timeout: breaker.timeout,
    })
}
