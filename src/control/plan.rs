//! From a configuration, and what is known of the world, to a snapshot.

use crate::balance::Place;
use crate::base::ids::{BackendSlot, ListenerId, PoolId};
use crate::base::net::{Network, Networks};
use crate::base::time::Tick;
use crate::config::{self, Address, CheckKind, Config, Transport};
use crate::control::checks::{self, algorithm_of, breaker_of, hash_key_of};
use crate::control::diff;
use crate::control::known::{Known, KnownPool};
use crate::control::loops::Loops;
use crate::probe::Health;
use crate::route::{HeaderMatch, Route, Router};
use crate::shared::admin::Rules;
use crate::shared::changes::Changes;
use crate::shared::checks::{CheckPlan, Target};
use crate::shared::queue::{Queue, Wakers};
use crate::shared::snapshot::{Backend, Http, Listener, Places, Pool, Protocol, Snapshot, Udp};
use crate::wire::proxy;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

/// What the next snapshot will be built from. Outlives every snapshot, and with it the live state of backends.
pub struct Plan {
    config: Config,
    admin: Arc<Rules>,
    generation: u64,
    edition: u64,
    now: Tick,
    /// What names resolve to; one that is missing does not, or not yet.
    names: HashMap<(String, u16), Arc<[SocketAddr]>>,
    known: Known,
    loops: Loops,
    workers: usize,
    wakers: Wakers,
    /// See [`Snapshot::cuts`], and the backends that it was counted for.
    cuts: u64,
    cut: HashSet<BackendSlot>,
}

impl Plan {
    /// A plan by `config` for so many workers, with no name resolved.
    pub fn new(config: Config, workers: usize) -> Plan {
        let admin = Arc::new(rules(&config.admin));
        let nothing = Config { listeners: Vec::new(), pools: Vec::new(), ..config.clone() };
        let mut plan = Plan {
            config: nothing,
            admin,
            generation: 0,
            edition: first_edition(),
            now: Tick::default(),
            names: HashMap::new(),
            known: Known::new(workers),
            loops: Loops::default(),
            workers,
            wakers: Wakers::default(),
            cuts: 0,
            cut: HashSet::new(),
        };
        plan.take_over(config);
        plan
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

    /// From now on these are bound.
    pub fn binds(&mut self, bound: Vec<(Transport, SocketAddr)>) {
        self.loops.bind(bound);
    }

    /// What time it is, for what happens from here on.
    pub fn at(&mut self, now: Tick) {
        self.now = now;
    }

    /// What is in force, or will be with the next snapshot.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of the configuration of the next snapshot.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// The configuration of the next snapshot is the one of that number.
    pub fn number(&mut self, edition: u64) {
        self.edition = edition;
    }

    /// Whether it is known where `address` is.
    pub fn resolves(&self, address: &Address) -> bool {
        match address {
            Address::Ip(_) => true,
            Address::Name { host, port } => self.names.contains_key(&(host.clone(), *port)),
        }
    }

    /// Which of our own listeners takes what the pool at `place` in the configuration sends to `address`, as far as one can
    /// tell before names are resolved.
    pub fn own_listener(&self, place: usize, address: &Address) -> Option<SocketAddr> {
        self.loops.leads_back(self.known.pool_ids.get(place)?.0 as usize, address)
    }

    /// What [`Plan::adopt`] would change.
    pub fn compare(&self, config: &Config) -> Changes {
        diff::compare(&self.config, config)
    }

    /// Lets `config` say what runs, where only another process would do what it says; and tells where that is.
    pub fn keep(&self, config: &mut Config) -> Vec<String> {
        diff::keep(&self.config, config)
    }

    /// From now on `config` is what the next snapshot is built from: all of it, changes of the admin API included. What keeps
    /// its name keeps its number, its counters and all that is known of it; a limit that has changed holds at once. A backend
    /// that is not there any more, or is marked as leaving, drains.
    pub fn adopt(&mut self, config: Config) -> Changes {
        let changes = self.compare(&config);
        self.take_over(config);
        changes
    }

    fn take_over(&mut self, mut config: Config) {
        for pool in &mut config.pools {
            pool.backends.retain(|backend| !backend.leaving);
        }
        self.known.adopt(&mut self.config, &config, self.now, self.generation + 1);
        if self.config.admin != config.admin {
            self.admin = Arc::new(rules(&config.admin));
        }
        self.config = config;
        let wanted: HashSet<(String, u16)> = self.names().into_iter().collect();
        self.names.retain(|name, _| wanted.contains(name));
        let mut carried = vec![Vec::new(); self.known.pools.len()];
        for listener in &self.known.listeners {
            for pool in listener.pool.iter().chain(&listener.routes) {
                carried[pool.0 as usize].push(listener.config.protocol.transport());
            }
        }
        self.loops.carry(carried);
    }

    /// Every name of a backend that is there, or leaves, with its port; once each.
    pub fn names(&self) -> Vec<(String, u16)> {
        let present = self.config.pools.iter().flat_map(|pool| &pool.backends);
        let leaving = self.known.leaving().map(|leaver| &leaver.config);
        let names = present.chain(leaving).filter_map(|backend| match &backend.address {
            Address::Name { host, port } => Some((host.clone(), *port)),
            Address::Ip(_) => None,
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The number of each listener of the configuration, in its order.
    pub fn listener_ids(&self) -> &[ListenerId] {
        &self.known.listener_ids
    }

    /// Looks after backends that leave: they are gone when the last connection is, or cut when their time is over. `seen`
    /// is the generation that all workers go by. True when there is something new to publish.
    pub fn settle(&mut self, seen: u64) -> bool {
        self.known.settle(&self.config, self.now, seen)
    }

    /// True while there is something for [`Plan::settle`] to look after.
    pub fn drains(&self) -> bool {
        self.known.drains()
    }

    /// Backends that have begun to leave since this was last asked: no connection to them is kept any longer.
    pub fn take_left(&mut self) -> Vec<BackendSlot> {
        self.known.take_left()
    }

    /// The generation of the snapshot that will be built next.
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
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
        for (pool, id) in self.config.pools.iter().zip(&self.known.pool_ids) {
            let Some(built) = snapshot.pool(*id) else { continue };
            let mut last: Option<Arc<CheckPlan>> = None;
            for (backend, built_backend) in pool.backends.iter().zip(&built.backends) {
                let Some(plan) = checks::plan_of(pool, backend).filter(|_| !backend.disabled) else { continue };
                // Nearly always the same for all of a pool; Host is what may differ.
                let plan = last.take().filter(|last| **last == plan).unwrap_or_else(|| Arc::new(plan));
                last = Some(plan.clone());
                targets.push(Target {
                    slot: built_backend.state.slot,
                    pool: built.name.clone(),
                    id: built_backend.id.clone(),
                    addresses: checks::checked_at(backend, &built_backend.addresses),
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
        let listeners = self.known.listeners.iter_mut().map(|known| Listener {
            name: known.config.name.as_str().into(),
            gone: known.gone.is_some(),
            protocol: match known.config.protocol {
                config::Protocol::Http => Protocol::Http,
                config::Protocol::Tcp => Protocol::Tcp,
                config::Protocol::Udp => Protocol::Udp,
            },
            serves: known.config.serves,
            pool: known.pool,
            http: build_http(&known.config, &known.routes),
            accept_proxy: known.config.accept_proxy,
            idle_timeout: known.config.idle_timeout,
            connections: known.connections.clone(),
            per_client: known.per_client(),
            rate_limit: known.rate.by(known.config.rate_limit.as_ref()),
            warnings: known.warnings.clone(),
            tallies: known.tallies.clone(),
        });
        let listeners = listeners.collect();
        let (config, names, loops, workers) =
            (&self.config, &self.names, &mut self.loops, (self.workers, &self.wakers));
        let pools = self.known.pools.iter_mut().enumerate();
        let pools: Vec<Pool> = pools.map(|(id, known)| build_pool(id, known, config, names, loops, workers)).collect();
        self.loops.tell();
        let ends = |pool: &Pool, backend: &Backend| {
            backend.state.is_cut() || pool.close_on_down && backend.state.health() == Health::Down
        };
        let cut = pools.iter().flat_map(|pool| pool.backends.iter().filter(|backend| ends(pool, backend)));
        let cut: HashSet<BackendSlot> = cut.map(|backend| backend.state.slot).collect();
        self.cuts += u64::from(!cut.is_subset(&self.cut));
        self.cut = cut;
        let (generation, edition, admin, cuts) = (self.generation, self.edition, self.admin.clone(), self.cuts);
        Arc::new(Snapshot { generation, edition, admin, listeners, pools, cuts })
    }
}

/// Where this process begins to count: beyond all that one before it may have told, so that what a client knows of that is
/// not taken for what is in force now. Milliseconds since 1970 leave room for a thousand changes a second.
fn first_edition() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_millis() as u64
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

fn build_http(listener: &config::Listener, pools: &[PoolId]) -> Http {
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
        routes: pools.to_vec(),
        trusted: networks(&listener.trusted_proxies),
    }
}

fn build_pool(
    id: usize,
    known: &mut KnownPool,
    config: &Config,
    names: &HashMap<(String, u16), Arc<[SocketAddr]>>,
    loops: &mut Loops,
    (workers, wakers): (usize, &Wakers),
) -> Pool {
    let gone = known.at.is_err();
    let last;
    let pool = match &known.at {
        Ok(at) => &config.pools[*at],
        Err(left) => {
            last = left.clone();
            &*last
        }
    };
    let name = known.name.clone();
    let queue = known.queue.get_or_init(|| Queue::new(workers, pool.queue, wakers.clone())).clone();
    let present = pool.backends.iter().filter_map(|backend| {
        let state = &known.present.get(&backend.address.canonical())?.state;
        Some((backend, state, backend.draining))
    });
    let leavers = known.leavers.iter().map(|leaver| (&leaver.config, &leaver.state, true));
    let all: Vec<(&config::Backend, Backend)> = present
        .chain(leavers)
        .map(|(backend, state, draining)| {
            let id_of: Arc<str> = backend.id.as_str().into();
            let addresses = loops.without((id, &name), &id_of, addresses_of(backend, names));
            // Set once, and always the same.
            let _ = state.queue.set(queue.clone());
            let built = Backend {
                id: id_of,
                address: backend.address.to_string().into(),
                weight: backend.weight,
                disabled: backend.disabled,
                draining,
                checked: pool.health_check.kind != CheckKind::None || backend.check.is_some(),
                addresses,
                state: state.clone(),
            };
            (backend, built)
        })
        .collect();
    // One whose name does not resolve is down: it takes no turns. In a pool that is gone, those that leave serve who came by
    // a listener that went with it.
    let works = |(backend, built): &(&config::Backend, Backend)| {
        let drains = if gone { backend.draining || built.state.is_cut() } else { built.draining };
        !backend.disabled && !drains && backend.weight > 0 && !built.addresses.is_empty()
    };
    let is_up = |built: &Backend| built.state.health() != Health::Down;
    let working = all.iter().filter(|one| works(one)).count();
    let healthy = all.iter().filter(|one| works(one) && is_up(&one.1)).count();
    let panics = (healthy as f64) < pool.panic_threshold * working as f64;
    let algorithm = algorithm_of(pool.algorithm);
    let mut tiers = [Vec::new(), Vec::new()];
    for (place, one) in all.iter().enumerate() {
        // Hashes keep those that are down: their keys come back to them, and a table is not built at every change.
        if works(one) && (is_up(&one.1) || panics || algorithm.hashes()) {
            let place = Place { place: place as u32, id: one.0.id.clone(), weight: one.0.weight };
            tiers[usize::from(one.0.backup)].push(place);
        }
    }
    let backends: Vec<Backend> = all.into_iter().map(|(_, built)| built).collect();
    let [primaries, backups] = tiers;
    Pool {
        gone,
        places: Places::of(&backends),
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
mod reload;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Picker;

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
