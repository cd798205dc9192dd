//! The pools that are looked at: those of the product, one for each algorithm.

use l4lb::balance::Algorithm;
use l4lb::base::ids::BackendSlot;
use l4lb::shared::backend::BackendState;
use l4lb::shared::snapshot::{Backend, Pool};
use std::sync::Arc;

/// A way to choose, as a line of the tables.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) algorithm: Algorithm,
    /// 0 for none.
    pub(crate) hash_balance: f32,
}

const fn way(name: &'static str, algorithm: Algorithm, hash_balance: f32) -> Way {
    Way { name, algorithm, hash_balance }
}

pub(crate) const WAYS: [Way; 9] = [
    way("round_robin", Algorithm::RoundRobin, 0.0),
    way("weighted_round_robin", Algorithm::WeightedRoundRobin, 0.0),
    way("least_connections", Algorithm::LeastConnections, 0.0),
    way("random_two", Algorithm::RandomTwo, 0.0),
    way("fastest_response", Algorithm::FastestResponse, 0.0),
    way("ip_hash", Algorithm::IpHash, 0.0),
    way("maglev", Algorithm::Maglev, 0.0),
    way("consistent_hash", Algorithm::ConsistentHash, 0.0),
    way("+ hash_balance = 1.25", Algorithm::ConsistentHash, 1.25),
];

/// A pool of that many backends of equal weight.
pub(crate) fn pool(way: Way, n: u32) -> Pool {
    let backend = |n: u32| Backend {
        id: format!("backend{n}").into(),
        address: "".into(),
        disabled: false,
        draining: false,
        checked: false,
        weight: 1,
        addresses: Arc::new([]),
        state: BackendState::new(BackendSlot(n), 0, 0, 1),
    };
    let mut pool = Pool::over(way.algorithm, (0..n).map(backend).collect());
    pool.hash_balance = way.hash_balance;
    pool
}
