//! From a configuration, and what is known of the world, to a snapshot.

use crate::balance::{self, Picker, Place};
use crate::base::ids::{BackendSlot, PoolId};
use crate::base::net::{Network, Networks};
use crate::config::{self, Address, CheckKind, Config, Transport};
use crate::control::checks::{self, algorithm_of, breaker_of, hash_key_of};
use crate::control::limits::Limited;
use crate::control::loops::Loops;
use crate::guard::{Budget, Cap, PerClient, Seldom};
use crate::probe::Health;
use crate::route::{HeaderMatch, Route, Router};
use crate::shared::admin::Rules;
use crate::shared::backend::BackendState;
use crate::shared::checks::{CheckPlan, Target};
use crate::shared::choose::{Crowds, Turns};
use crate::shared::queue::{Queue, Wakers};
use crate::shared::snapshot::{Backend, Http, Listener, Pool, Protocol, Snapshot, Udp};
use crate::stats::Tallies;
use crate::wire::proxy;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// What the next snapshot will be built from. Outlives every snapshot, and with it the live state of backends.
pub struct Plan {
    config: Config,
    admin: Arc<Rules>,
    generation: u64,
    /// What names resolve to; one that is missing does not, or not yet.
    names: HashMap<(String, u16), Arc<[SocketAddr]>>,
    /// Live states, by pool and address as configured.
    states: HashMap<(Arc<str>, Address), Arc<BackendState>>,
    pools: HashMap<Arc<str>, Known>,
    /// By listener.
    limits: Vec<Limits>,
    loops: Loops,
    workers: usize,
    wakers: Wakers,
}

/// What outlives snapshots of a listener.
struct Limits {
    connections: Arc<Cap>,
    per_client: Option<Arc<PerClient>>,
    warnings: Arc<Seldom>,
    tallies: Arc<Tallies>,
    rate: Limited,
}

/// What outlives snapshots of a pool.
#[derive(Clone)]
struct Known {
    turns: Arc<Turns>,
    crowds: Arc<Crowds>,
    budget: Arc<Budget>,
    tallies: Arc<Tallies>,
    rate: Limited,
    queue: OnceLock<Arc<Queue>>,
    /// Pickers, primaries and backups, and what they were built from: tables of hashes are work, and most changes leave
    /// them as they are.
    pickers: [Option<Built>; 2],
}

/// A picker and what it was built from.
#[derive(Clone)]
struct Built {
    algorithm: balance::Algorithm,
    places: Vec<Place>,
    picker: Arc<Picker>,
}

impl Known {
    fn new(workers: usize) -> Known {
        Known {
            turns: Arc::default(),
            crowds: Arc::default(),
            budget: Arc::default(),
            tallies: Tallies::shared(workers),
            rate: Limited::new(workers),
            queue: OnceLock::new(),
            pickers: [None, None],
        }
    }

    fn picker(&mut self, tier: usize, algorithm: balance::Algorithm, places: Vec<Place>) -> Arc<Picker> {
        if let Some(built) = &self.pickers[tier]
            && built.algorithm == algorithm
            && built.places == places
        {
            return built.picker.clone();
        }
        let picker = Arc::new(Picker::build(algorithm, &places));
        self.pickers[tier] = Some(Built { algorithm, places, picker: picker.clone() });
        picker
    }
}

impl Plan {
    /// A plan by `config` for so many workers, with no name resolved.
    pub fn new(config: Config, workers: usize) -> Plan {
        let limits = config.listeners.iter().map(|listener| Limits {
            connections: Cap::new(listener.max_connections),
            per_client: (listener.max_per_client > 0).then(|| PerClient::new(listener.max_per_client)),
            warnings: Arc::default(),
            tallies: Tallies::shared(workers),
            rate: Limited::new(workers),
        });
        let limits = limits.collect();
        let admin = Arc::new(rules(&config.admin));
        let (names, states, pools, loops) = (HashMap::new(), HashMap::new(), HashMap::new(), Loops::new(&config));
        let wakers = Wakers::default();
        Plan { config, admin, generation: 0, names, states, pools, limits, loops, workers, wakers }
    }

    /// The same with workers that are woken by `wakers` when a place comes free that one of their clients waits for.
    pub fn waking(mut self, wakers: Wakers) -> Plan {
        self.wakers = wakers;
        self
    }

    /// The same with what is bound, and a way to learn the addresses of this machine: a backend's address where one of
    /// those would take what is sent there is not used, and that is said once.
    pub fn listening(mut self, bound: Vec<(Transport, SocketAddr)>, machine: fn() -> Vec<IpAddr>) -> Plan {
        self.loops.listen(bound, machine);
        self
    }

    /// Takes note of what a name resolves to; nothing means that it does not. True when that is new, or the addresses of
    /// this machine are.
    pub fn resolved(&mut self, host: String, port: u16, addresses: Vec<SocketAddr>) -> bool {
        let moved = self.loops.look();
        let key = (host, port);
        if self.names.get(&key).map_or(&[][..], |known| known) == addresses {
            return moved;
        }
        match addresses.is_empty() {
            true => self.names.remove(&key),
            false => self.names.insert(key, addresses.into()),
        };
        true
    }

    /// All backends of `snapshot`, the last that was built, that are to be checked.
    pub fn targets(&self, snapshot: &Snapshot) -> Vec<Target> {
        let mut targets = Vec::new();
        for (pool, built) in self.config.pools.iter().zip(&snapshot.pools) {
            let mut plans: HashMap<String, Arc<CheckPlan>> = HashMap::new();
            for (backend, built_backend) in pool.backends.iter().zip(&built.backends) {
                let Some(plan) = checks::plan_of(pool, backend).filter(|_| !backend.disabled) else { continue };
                // Nearly always the same for all of a pool; Host is what may differ.
                let plan = plans.entry(format!("{plan:?}")).or_insert_with(|| Arc::new(plan)).clone();
                targets.push(Target {
                    slot: built_backend.state.slot,
                    pool: built.name.clone(),
                    id: built_backend.id.clone(),
                    addresses: built_backend.addresses.clone(),
                    plan,
                    state: built_backend.state.clone(),
                });
            }
        }
        targets
    }

    /// The next snapshot.
    pub fn build(&mut self) -> Arc<Snapshot> {
        self.generation += 1;
        let listeners = self.config.listeners.iter().zip(&mut self.limits).map(|(listener, limits)| Listener {
            name: listener.name.as_str().into(),
            protocol: match listener.protocol {
                config::Protocol::Http => Protocol::Http,
                config::Protocol::Tcp => Protocol::Tcp,
                config::Protocol::Udp => Protocol::Udp,
            },
            serves: listener.serves,
            pool: listener.pool.map(|pool| PoolId(pool as u32)),
            http: build_http(listener),
            accept_proxy: listener.accept_proxy,
            idle_timeout: listener.idle_timeout,
            connections: limits.connections.clone(),
            per_client: limits.per_client.clone(),
            rate_limit: limits.rate.by(listener.rate_limit.as_ref()),
            warnings: limits.warnings.clone(),
            tallies: limits.tallies.clone(),
        });
        let listeners = listeners.collect();
        let (names, states, known) = (&self.names, &mut self.states, &mut self.pools);
        let (loops, workers) = (&mut self.loops, (self.workers, &self.wakers));
        let pools = self.config.pools.iter().enumerate();
        let pools: Vec<Pool> = pools.map(|pool| build_pool(pool, names, states, known, loops, workers)).collect();
        self.loops.tell();
        let closes = pools.iter().any(|pool| {
            pool.close_on_down && pool.backends.iter().any(|backend| backend.state.health() == Health::Down)
        });
        Arc::new(Snapshot { generation: self.generation, admin: self.admin.clone(), listeners, pools, closes })
    }
}

fn addresses_of(backend: &config::Backend, names: &HashMap<(String, u16), Arc<[SocketAddr]>>) -> Arc<[SocketAddr]> {
    match &backend.address {
        Address::Ip(address) => Arc::new([*address]),
        Address::Name { host, port } => names.get(&(host.clone(), *port)).cloned().unwrap_or_else(|| Arc::new([])),
    }
}

fn rules(admin: &config::Admin) -> Rules {
    Rules {
        allow: networks(&admin.allow),
        hosts: admin.hosts.clone(),
        token: admin.token.as_ref().map(|token| token.secret.clone()),
    }
}

fn networks(networks: &[ipnet::IpNet]) -> Networks {
    networks.iter().filter_map(|net| net.to_string().parse::<Network>().ok()).collect()
}

fn build_http(listener: &config::Listener) -> Http {
    let http = &listener.http;
    let routes = listener.routes.iter().enumerate().map(|(at, route)| Route {
        host: route.host.as_ref().and_then(|host| match host {
            config::HostMatch::Exact(name) => name.parse().ok(),
            config::HostMatch::Suffix(name) => format!("*{name}").parse().ok(),
        }),
        path: route.path.clone(),
        path_prefix: route.path_prefix.clone(),
        methods: route.methods.clone(),
        header: route.header.as_ref().map(|(name, value)| HeaderMatch {
            name: name.clone(),
            value: value.as_ref().map(|value| value.clone().into_bytes()),
        }),
        target: at as u16,
    });
    Http {
        header_timeout: http.header_timeout,
        body_timeout: http.body_timeout,
        request_timeout: http.request_timeout,
        tunnel_timeout: http.tunnel_timeout,
        max_header_size: http.max_header_size,
        max_body_size: http.max_body_size.unwrap_or(0),
        router: Router::build(routes.collect()),
        routes: listener.routes.iter().map(|route| PoolId(route.pool as u32)).collect(),
        trusted: networks(&listener.trusted_proxies),
    }
}

fn build_pool(
    (number, pool): (usize, &config::Pool),
    names: &HashMap<(String, u16), Arc<[SocketAddr]>>,
    states: &mut HashMap<(Arc<str>, Address), Arc<BackendState>>,
    pools: &mut HashMap<Arc<str>, Known>,
    loops: &mut Loops,
    (workers, wakers): (usize, &Wakers),
) -> Pool {
    let name: Arc<str> = pool.name.as_str().into();
    let known = pools.entry(name.clone()).or_insert_with(|| Known::new(workers));
    let queue = known.queue.get_or_init(|| Queue::new(workers, pool.queue, wakers.clone())).clone();
    let backends: Vec<Backend> = pool
        .backends
        .iter()
        .map(|backend| {
            let id: Arc<str> = backend.id.as_str().into();
            let addresses = loops.without((number, &name), &id, addresses_of(backend, names));
            let slot = BackendSlot(states.len() as u32);
            let state = states
                .entry((name.clone(), backend.address.clone()))
                .or_insert_with(|| BackendState::new(slot, backend.max_connections, pool.keepalive, workers))
                .clone();
            // Set once, and always the same.
            let _ = state.queue.set(queue.clone());
            Backend {
                id,
                address: backend.address.to_string().into(),
                weight: backend.weight,
                disabled: backend.disabled,
                checked: pool.health_check.kind != CheckKind::None,
                addresses,
                state,
            }
        })
        .collect();
    // One whose name does not resolve is down: it takes no turns.
    let works = |backend: &config::Backend, built: &Backend| {
        !backend.disabled && backend.weight > 0 && !built.addresses.is_empty()
    };
    let is_up = |built: &Backend| built.state.health() != Health::Down;
    let all = || pool.backends.iter().zip(&backends).enumerate();
    let working = all().filter(|(_, (backend, built))| works(backend, built)).count();
    let healthy = all().filter(|(_, (backend, built))| works(backend, built) && is_up(built)).count();
    let panics = (healthy as f64) < pool.panic_threshold * working as f64;
    let algorithm = algorithm_of(pool.algorithm);
    let mut tiers = [Vec::new(), Vec::new()];
    for (place, (backend, built)) in all() {
        // Hashes keep those that are down: their keys come back to them, and a table is not built at every change.
        if works(backend, built) && (is_up(built) || panics || algorithm.hashes()) {
            let place = Place { place: place as u32, id: backend.id.clone(), weight: backend.weight };
            tiers[usize::from(backend.backup)].push(place);
        }
    }
    let [primaries, backups] = tiers;
    Pool {
        connect_timeout: pool.connect_timeout,
        response_timeout: pool.response_timeout,
        retries: pool.retries,
        retry_budget: pool.retry_budget,
        budget: known.budget.clone(),
        tallies: known.tallies.clone(),
        keepalive: pool.keepalive > 0,
        keepalive_timeout: pool.keepalive_timeout,
        send_proxy: match pool.send_proxy {
            config::SendProxy::Off => None,
            config::SendProxy::V1 => Some(proxy::Version::V1),
            config::SendProxy::V2 => Some(proxy::Version::V2),
        },
        udp: Udp {
            responses: pool.udp_responses,
            requests: pool.udp_requests,
            keep_on_down: pool.udp_on_down == config::OnDown::Keep,
        },
        backends,
        turns: known.turns.clone(),
        crowds: known.crowds.clone(),
        primaries: known.picker(0, algorithm, primaries),
        backups: known.picker(1, algorithm, backups),
        hash_key: hash_key_of(&pool.hash_key),
        hash_balance: pool.hash_balance.unwrap_or(0.0) as f32,
        breaker: breaker_of(pool),
        rate_limit: known.rate.by(pool.rate_limit.as_ref()),
        slow_start: pool.slow_start,
        panics,
        queue,
        queue_timeout: pool.queue_timeout,
        close_on_down: pool.tcp_on_down == config::TcpOnDown::Close,
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

    fn ids(pool: &Pool, picker: &Picker) -> Vec<String> {
        picker.places().map(|place| pool.backends[place as usize].id.to_string()).collect()
    }

    #[test]
    fn only_those_that_take_new_work_take_turns() {
        let mut plan = Plan::new(config::parse(FILE, "test").unwrap(), 1);
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
    fn a_name_that_leads_back_to_us_is_as_one_that_does_not_resolve() {
        let bound = vec![(Transport::Tcp, "0.0.0.0:2".parse().unwrap())];
        let machine = || vec!["192.0.2.1".parse().unwrap()];
        let mut plan = Plan::new(config::parse(FILE, "test").unwrap(), 1).listening(bound, machine);
        let mut resolve = |ip: [u8; 4]| {
            assert!(plan.resolved("name.test".into(), 2, vec![(ip, 2).into()]));
            let snapshot = plan.build();
            ids(&snapshot.pools[0], &snapshot.pools[0].primaries).join(" ")
        };
        assert_eq!(resolve([192, 0, 2, 1]), "literal", "it is this machine");
        assert_eq!(resolve([192, 0, 2, 2]), "literal named", "it has moved");
        assert_eq!(resolve([127, 0, 0, 1]), "literal", "and back");
    }

    #[test]
    fn what_is_known_of_a_backend_outlives_the_snapshot() {
        let mut plan = Plan::new(config::parse(FILE, "test").unwrap(), 1);
        let first = plan.build();
        first.pools[0].backends[0].state.failed(Tick(10));
        let second = plan.build();
        assert!(second.generation > first.generation);
        assert!(second.pools[0].backends[0].state.is_aside(Tick(11)));
        assert!(Arc::ptr_eq(&first.pools[0].turns, &second.pools[0].turns));
    }

    #[test]
    fn what_udp_needs_is_there_and_its_counts_outlive_the_snapshot() {
        let file = r#"
            pool = [{ name = "a", udp_responses = 1, udp_requests = 2, udp_on_down = "keep" }, { name = "b" }]
            [[listener]]
            name = "few"
            bind = "127.0.0.1:0"
            protocol = "udp"
            pool = "a"
            max_per_client = 1
            [[listener]]
            name = "many"
            bind = "127.0.0.1:0"
            protocol = "udp"
            pool = "b"
        "#;
        let mut plan = Plan::new(config::parse(file, "test").unwrap(), 1);
        let first = plan.build();
        assert_eq!(first.listeners[0].protocol, Protocol::Udp);
        assert_eq!(first.pools[0].udp, Udp { responses: 1, requests: 2, keep_on_down: true });
        assert_eq!(first.pools[1].udp, Udp::default());
        assert!(first.listeners[1].per_client.is_none(), "0 is no limit");
        let client = [192, 0, 2, 1].into();
        let taken = first.listeners[0].per_client.as_ref().unwrap().take(client);
        let second = plan.build();
        let limit = second.listeners[0].per_client.as_ref().unwrap();
        assert!(taken.is_some() && limit.take(client).is_none(), "the one it has counts still");
    }
}
