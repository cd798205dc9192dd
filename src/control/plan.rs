//! From a configuration, and what is known of the world, to a snapshot.

use crate::balance::Rota;
use crate::base::ids::{BackendSlot, PoolId};
use crate::config::{self, Address, Algorithm, Config, Protocol};
use crate::guard::{Cap, Seldom};
use crate::shared::backend::BackendState;
use crate::shared::snapshot::{Backend, Listener, Pool, Snapshot, Turns};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The pool of a listener that workers cannot serve: none has this number, so its clients are closed.
const NO_POOL: PoolId = PoolId(u16::MAX);

/// What the next snapshot will be built from. Outlives every snapshot, and with it the live state of backends.
pub struct Plan {
    config: Config,
    generation: u64,
    /// What names resolve to; one that is missing does not, or not yet.
    names: HashMap<(String, u16), Arc<[SocketAddr]>>,
    /// Live states, by pool and address as configured.
    states: HashMap<(Arc<str>, Address), Arc<BackendState>>,
    turns: HashMap<Arc<str>, Arc<Turns>>,
    caps: Vec<(Arc<Cap>, Arc<Seldom>)>,
}

impl Plan {
    /// A plan by `config`, with no name resolved.
    pub fn new(config: Config) -> Plan {
        let caps =
            config.listeners.iter().map(|listener| (Cap::new(listener.max_connections), Arc::default())).collect();
        Plan { config, generation: 0, names: HashMap::new(), states: HashMap::new(), turns: HashMap::new(), caps }
    }

    /// Takes note of what a name resolves to; nothing means that it does not. True when that is new.
    pub fn resolved(&mut self, host: String, port: u16, addresses: Vec<SocketAddr>) -> bool {
        let key = (host, port);
        if self.names.get(&key).map_or(&[][..], |known| known) == addresses {
            return false;
        }
        match addresses.is_empty() {
            true => self.names.remove(&key),
            false => self.names.insert(key, addresses.into()),
        };
        true
    }

    /// The next snapshot.
    pub fn build(&mut self) -> Arc<Snapshot> {
        self.generation += 1;
        let listeners = self.config.listeners.iter().zip(&self.caps).map(|(listener, (cap, warnings))| Listener {
            name: listener.name.as_str().into(),
            pool: listener
                .pool
                .filter(|_| listener.protocol == Protocol::Tcp)
                .map_or(NO_POOL, |pool| PoolId(pool as u16)),
            idle_timeout: listener.idle_timeout,
            connections: cap.clone(),
            warnings: warnings.clone(),
        });
        let listeners = listeners.collect();
        let pools = self.config.pools.iter();
        let pools = pools.map(|pool| build_pool(pool, &self.names, &mut self.states, &mut self.turns)).collect();
        Arc::new(Snapshot { generation: self.generation, listeners, pools })
    }
}

fn build_pool(
    pool: &config::Pool,
    names: &HashMap<(String, u16), Arc<[SocketAddr]>>,
    states: &mut HashMap<(Arc<str>, Address), Arc<BackendState>>,
    turns: &mut HashMap<Arc<str>, Arc<Turns>>,
) -> Pool {
    let name: Arc<str> = pool.name.as_str().into();
    let mut backends = Vec::with_capacity(pool.backends.len());
    let (mut primaries, mut backups) = (Vec::new(), Vec::new());
    for (place, backend) in pool.backends.iter().enumerate() {
        let addresses: Arc<[SocketAddr]> = match &backend.address {
            Address::Ip(address) => Arc::new([*address]),
            Address::Name { host, port } => names.get(&(host.clone(), *port)).cloned().unwrap_or_else(|| Arc::new([])),
        };
        // One whose name does not resolve is down: it takes no turns.
        if !backend.disabled && backend.weight > 0 && !addresses.is_empty() {
            let turns = if backend.backup { &mut backups } else { &mut primaries };
            turns.push((place as u32, backend.weight));
        }
        let slot = BackendSlot(states.len() as u32);
        let state = states
            .entry((name.clone(), backend.address.clone()))
            .or_insert_with(|| BackendState::new(slot, backend.max_connections))
            .clone();
        backends.push(Backend { id: backend.id.as_str().into(), addresses, state });
    }
    let rota = |places: Vec<(u32, u16)>| match pool.algorithm {
        Algorithm::RoundRobin => Rota::in_turn(places.into_iter().map(|(place, _)| place).collect()),
        Algorithm::WeightedRoundRobin => Rota::weighted(&places),
    };
    Pool {
        connect_timeout: pool.connect_timeout,
        retries: pool.retries,
        backends,
        turns: turns.entry(name.clone()).or_default().clone(),
        primaries: rota(primaries),
        backups: rota(backups),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Tick;

    const FILE: &str = r#"
        [[listener]]
        name = "l"
        bind = "127.0.0.1:0"
        protocol = "tcp"
        pool = "p"
        [[pool]]
        name = "p"
        algorithm = "weighted_round_robin"
        [[pool.backend]]
        id = "literal"
        address = "127.0.0.1:1"
        weight = 2
        [[pool.backend]]
        id = "named"
        address = "name.test:2"
        [[pool.backend]]
        id = "disabled"
        address = "127.0.0.1:3"
        disabled = true
        [[pool.backend]]
        id = "weightless"
        address = "127.0.0.1:4"
        weight = 0
        [[pool.backend]]
        id = "backup"
        address = "127.0.0.1:5"
        backup = true
    "#;

    fn ids(pool: &Pool, rota: &Rota) -> Vec<String> {
        rota.places().iter().map(|place| pool.backends[*place as usize].id.to_string()).collect()
    }

    #[test]
    fn only_those_that_take_new_work_take_turns() {
        let mut plan = Plan::new(config::parse(FILE, "test").unwrap());
        let first = plan.build();
        let pool = &first.pools[0];
        assert_eq!(ids(pool, &pool.primaries), ["literal"], "the name does not resolve yet");
        assert_eq!(ids(pool, &pool.backups), ["backup"]);
        let address: SocketAddr = "127.0.0.2:2".parse().unwrap();
        assert!(plan.resolved("name.test".into(), 2, vec![address]));
        assert!(!plan.resolved("name.test".into(), 2, vec![address]), "nothing new");
        let second = plan.build();
        let pool = &second.pools[0];
        assert_eq!(ids(pool, &pool.primaries), ["literal", "named"]);
        assert_eq!(*pool.backends[1].addresses, [address]);
        assert!(plan.resolved("name.test".into(), 2, Vec::new()), "it is gone again");
        assert_eq!(ids(&plan.build().pools[0], &plan.build().pools[0].primaries), ["literal"]);
    }

    #[test]
    fn what_is_known_of_a_backend_outlives_the_snapshot() {
        let mut plan = Plan::new(config::parse(FILE, "test").unwrap());
        let first = plan.build();
        first.pools[0].backends[0].state.failed(Tick(10));
        let second = plan.build();
        assert!(second.generation > first.generation);
        assert!(second.pools[0].backends[0].state.is_aside(Tick(11)));
        assert!(Arc::ptr_eq(&first.pools[0].turns, &second.pools[0].turns));
    }
}
