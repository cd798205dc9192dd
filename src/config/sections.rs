//! The document section by section: tables in, the parts of a `Config` out, still with the places that the checks
//! across sections need.

use super::checks;
use super::error::{Fault, Quoted};
use super::keys::Scope;
use super::limits::rate_limit;
use super::reader::{Noted, Open, Reader};
use super::routes;
use super::{
    Address, Admin, Algorithm, Backend, Global, HashKey, LimitKey, Listener, OnDown, Pool, Protocol, SendProxy, Serves,
    SocketOptions, TcpOnDown, Token,
};

/// What was read, before anything is compared with anything else.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) global: Global,
    pub(super) admin: Admin,
    pub(super) admin_bind: Option<Noted<Address>>,
    pub(super) listeners: Vec<ListenerDraft>,
    pub(super) pools: Vec<PoolDraft>,
}

/// A listener whose pools are still names.
pub(super) struct ListenerDraft {
    pub(super) listener: Listener,
    pub(super) name: Option<Noted<String>>,
    /// As far as it could be read; the one of `listener` is a guess where it could not.
    pub(super) protocol: Option<Protocol>,
    pub(super) binds: Vec<Noted<Address>>,
    pub(super) pool: Option<Noted<String>>,
    /// As long as the listener's routes.
    pub(super) route_pools: Vec<Option<Noted<String>>>,
}

/// A pool whose backends are not compared yet.
pub(super) struct PoolDraft {
    pub(super) pool: Pool,
    pub(super) name: Option<Noted<String>>,
    /// What is hashed, where the file says it and it is not wrong already.
    pub(super) hash_key: Option<Noted<HashKey>>,
    pub(super) checked: Checked,
    /// Who shares its limit, where the file says it and it is not wrong already.
    pub(super) limit_key: Option<Noted<LimitKey>>,
    pub(super) backends: Vec<BackendDraft>,
}

/// Whether the file says how backends are checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Checked {
    /// It says nothing.
    Unsaid,
    /// It does not say by what kind of check: where that could stand, and its place.
    Kindless(usize, String),
    /// It does.
    Said,
}

/// A backend as far as it could be read.
pub(super) struct BackendDraft {
    pub(super) address: Option<Noted<Address>>,
    /// The id, or the address as typed.
    pub(super) id: Option<Noted<String>>,
    /// Whether the id was given.
    pub(super) named: bool,
}

/// Reads everything below the top of the file.
pub(super) fn read(r: &mut Reader<'_>, top: &Open<'_>) -> Draft {
    r.version(top, "version");
    let mut draft = Draft::default();
    if let Some(table) = r.table(top, "global") {
        draft.global = global(r, &table);
    }
    if let Some(table) = r.table(top, "admin") {
        (draft.admin, draft.admin_bind) = admin(r, &table);
    }
    for table in r.tables(top, "listener", "name") {
        draft.listeners.push(listener(r, &table));
    }
    for table in r.tables(top, "pool", "name") {
        draft.pools.push(pool(r, &table));
    }
    draft
}

fn global(r: &mut Reader<'_>, t: &Open<'_>) -> Global {
    let usual = Global::default();
    let log_file = r.text(t, "log_file");
    let (user, group) = (r.text(t, "user"), r.text(t, "group"));
    Global {
        workers: r.integer(t, "workers").unwrap_or(usual.workers),
        log_level: r.choice(t, "log_level").and_then(|word| word.parse().ok()).unwrap_or(usual.log_level),
        log_file_at: log_file.as_ref().map(|path| r.spot(path.at, path.place.clone())),
        log_file: log_file.map(|path| path.value.into()),
        max_connections: r.integer(t, "max_connections").unwrap_or(usual.max_connections),
        shutdown_timeout: r.duration(t, "shutdown_timeout").unwrap_or(usual.shutdown_timeout),
        shutdown_delay: r.duration(t, "shutdown_delay").unwrap_or(usual.shutdown_delay),
        user_at: user.as_ref().map(|name| r.spot(name.at, name.place.clone())),
        user: user.map(|name| name.value),
        group_at: group.as_ref().map(|name| r.spot(name.at, name.place.clone())),
        group: group.map(|name| name.value),
        cpu_affinity: r.boolean(t, "cpu_affinity").unwrap_or(usual.cpu_affinity),
        spin: r.duration(t, "spin").unwrap_or(usual.spin),
    }
}

fn admin(r: &mut Reader<'_>, t: &Open<'_>) -> (Admin, Option<Noted<Address>>) {
    let mut admin = Admin::default();
    if r.has(t, "allow") {
        admin.allow = r.networks(t, "allow");
    }
    admin.hosts = r.hosts(t, "hosts");
    admin.token = r.secret(t, "token_file").map(|(file, secret)| Token { secret, file: file.value.into() });
    let state_file = r.text(t, "state_file");
    admin.state_file_at = state_file.as_ref().map(|path| r.spot(path.at, path.place.clone()));
    admin.state_file = state_file.map(|path| path.value.into());
    (admin, r.bind(t, "listen"))
}

fn listener(r: &mut Reader<'_>, t: &Open<'_>) -> ListenerDraft {
    let name = r.name(t, "name");
    let binds = r.binds(t, "bind");
    let protocol = match r.choice(t, "protocol") {
        Some("http") => Some(Protocol::Http),
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some(other) => unreachable!("{other} is in the table of keys, but not read"),
        None => None,
    };
    let pool = r.text(t, "pool");
    let mut listener = Listener::new(name.as_ref().map_or("", |name| &name.value), protocol.unwrap_or(Protocol::Tcp));
    listener.binds = binds.iter().map(|bind| bind.value.clone()).collect();
    listener.idle_timeout = r.duration(t, "idle_timeout").unwrap_or(listener.idle_timeout);
    listener.max_connections = r.integer(t, "max_connections").unwrap_or(0);
    if protocol != Some(Protocol::Udp) {
        listener.accept_proxy = r.boolean(t, "accept_proxy").unwrap_or(false);
        listener.socket = SocketOptions {
            congestion_control: congestion_control(r, t),
            defer_accept: r.boolean(t, "defer_accept").unwrap_or(false),
            tcp_fastopen: r.boolean(t, "tcp_fastopen").unwrap_or(false),
        };
    }
    if let Some(protocol) = protocol {
        r.scopes(t, protocol, listener.accept_proxy);
    }
    listener.max_per_client = r.integer(t, "max_per_client").unwrap_or(0);
    if let Some(table) = r.table(t, "rate_limit") {
        let (limit, key) = rate_limit(r, &table, ("token_bucket", LimitKey::ClientIp));
        if let (Some(key), Some(protocol)) = (key, protocol)
            && matches!((&key.value, protocol), (LimitKey::Header(_), Protocol::Tcp | Protocol::Udp))
        {
            let found = Quoted::new(&key.value.to_string());
            r.report(key.at, key.place, Fault::NoRequestHere { found, protocol });
        }
        listener.rate_limit = Some(limit);
    }
    let mut route_pools = Vec::new();
    match protocol {
        Some(Protocol::Udp) => {
            r.demand(t, "pool");
        }
        Some(Protocol::Tcp) => {
            r.demand(t, "pool");
            if listener.accept_proxy {
                listener.http.header_timeout = r.duration(t, "header_timeout").unwrap_or(listener.http.header_timeout);
            }
        }
        Some(Protocol::Http) | None => {
            listener.http = routes::http(r, t);
            if r.boolean(t, "admin") == Some(true) {
                listener.serves = Serves::Both;
            }
            listener.trusted_proxies = r.networks(t, "trusted_proxies");
            (listener.routes, route_pools) = routes::read(r, t).into_iter().unzip();
            if r.has_none(t, "route") {
                match protocol {
                    Some(_) if !r.has(t, "pool") && !r.partial() => {
                        r.report(t.at, t.place_of("pool"), Fault::NoPoolNoRoute);
                    }
                    Some(_) => {}
                    None => r.demand(t, "pool"),
                }
            }
        }
    }
    ListenerDraft { listener, name, protocol, binds, pool, route_pools }
}

/// A name that the kernel could know; whether it does is found when it is set.
fn congestion_control(r: &mut Reader<'_>, t: &Open<'_>) -> Option<String> {
    const LONGEST: usize = 15; // TCP_CA_NAME_MAX less the zero at its end (linux/net/tcp.h)
    let name = r.text(t, "congestion_control")?;
    let found = Quoted::new(&name.value);
    if name.value.len() > LONGEST {
        r.report(name.at, name.place, Fault::TooLong { found, limit: LONGEST });
    } else if let Some(bad) =
        name.value.chars().find(|c| !c.is_control() && !c.is_ascii_alphanumeric() && !"_-".contains(*c))
    {
        r.report(name.at, name.place, Fault::BadCharacter { found, bad });
    }
    Some(name.value)
}

fn pool(r: &mut Reader<'_>, t: &Open<'_>) -> PoolDraft {
    let name = r.name(t, "name");
    let mut pool = Pool::new(name.as_ref().map(|name| name.value.clone()).unwrap_or_default());
    let hash_key = picking(r, t, &mut pool);
    pool.connect_timeout = r.duration(t, "connect_timeout").unwrap_or(pool.connect_timeout);
    pool.response_timeout = r.duration(t, "response_timeout").unwrap_or(pool.response_timeout);
    pool.retries = r.integer(t, "retries").unwrap_or(pool.retries);
    pool.retry_budget = r.fraction(t, "retry_budget").unwrap_or(pool.retry_budget);
    pool.keepalive = r.integer(t, "keepalive").unwrap_or(pool.keepalive);
    pool.keepalive_timeout = r.duration(t, "keepalive_timeout").unwrap_or(pool.keepalive_timeout);
    match r.choice(t, "send_proxy") {
        Some("off") | None => pool.send_proxy = SendProxy::Off,
        Some("v1") => pool.send_proxy = SendProxy::V1,
        Some("v2") => pool.send_proxy = SendProxy::V2,
        Some(other) => unreachable!("{other} is in the table of keys, but not read"),
    }
    pool.udp_responses = r.integer(t, "udp_responses").unwrap_or(pool.udp_responses);
    pool.udp_requests = r.integer(t, "udp_requests").unwrap_or(pool.udp_requests);
    match r.choice(t, "udp_on_down") {
        Some("reselect") | None => pool.udp_on_down = OnDown::Reselect,
        Some("keep") => pool.udp_on_down = OnDown::Keep,
        Some(other) => unreachable!("{other} is in the table of keys, but not read"),
    }
    pool.queue = r.integer(t, "queue").unwrap_or(pool.queue);
    pool.queue_timeout = r.duration(t, "queue_timeout").unwrap_or(pool.queue_timeout);
    pool.slow_start = r.duration(t, "slow_start").unwrap_or(pool.slow_start);
    pool.panic_threshold = r.fraction(t, "panic_threshold").unwrap_or(pool.panic_threshold);
    match r.choice(t, "tcp_on_down") {
        Some("keep") | None => pool.tcp_on_down = TcpOnDown::Keep,
        Some("close") => pool.tcp_on_down = TcpOnDown::Close,
        Some(other) => unreachable!("{other} is in the table of keys, but not read"),
    }
    pool.drain_timeout = r.duration(t, "drain_timeout").unwrap_or(pool.drain_timeout);
    let mut checked = Checked::Unsaid;
    if let Some(check) = r.table(t, "health_check") {
        let told;
        (pool.health_check, told) = checks::health_check(r, &check);
        checked = if told { Checked::Said } else { Checked::Kindless(check.at, check.place_of("kind")) };
    }
    if let Some(breaker) = r.table(t, "circuit_breaker") {
        pool.circuit_breaker = Some(checks::circuit_breaker(r, &breaker));
    }
    let mut limit_key = None;
    if let Some(table) = r.table(t, "rate_limit") {
        let limit;
        (limit, limit_key) = rate_limit(r, &table, ("leaky_bucket", LimitKey::All));
        pool.rate_limit = Some(limit);
    }
    let mut backends = Vec::new();
    for table in r.tables(t, "backend", "id") {
        let (backend, draft) = self::backend(r, &table);
        pool.backends.push(backend);
        backends.push(draft);
    }
    PoolDraft { pool, name, hash_key, checked, limit_key, backends }
}

/// How `pool` picks, and what is hashed; whether its traffic has that is seen when its listeners are known.
fn picking(r: &mut Reader<'_>, t: &Open<'_>, pool: &mut Pool) -> Option<Noted<HashKey>> {
    let algorithm = match r.choice(t, "algorithm") {
        // What it is may stand where nothing could be read.
        None if r.has(t, "algorithm") || r.partial() => None,
        None => Some(pool.algorithm),
        Some(name) => {
            let known = Algorithm::named(name);
            debug_assert!(known.is_some(), "{name} is in the table of keys, but not read");
            known
        }
    };
    if let Some(algorithm) = algorithm {
        pool.algorithm = algorithm;
        r.misplaced(t, |scope| match scope {
            Scope::Hashing if !algorithm.is_hashing() => Some(Fault::NotHashing(algorithm)),
            Scope::ConsistentHash if algorithm != Algorithm::ConsistentHash => Some(Fault::NotConsistent(algorithm)),
            _ => None,
        });
    }
    if algorithm.is_none_or(|algorithm| algorithm == Algorithm::ConsistentHash) {
        pool.hash_balance = r.zero_or(t, "hash_balance");
    }
    let key = if algorithm.is_none_or(Algorithm::is_hashing) { r.hash_key(t, "hash_key")? } else { return None };
    match algorithm? {
        Algorithm::IpHash if key.value != HashKey::ClientIp => {
            let found = Quoted::new(&key.value.to_string());
            r.report(key.at, key.place, Fault::NotByAddress { found });
            None
        }
        _ => Some(key),
    }
}

fn backend(r: &mut Reader<'_>, t: &Open<'_>) -> (Backend, BackendDraft) {
    let given = r.name(t, "id");
    if let Some(id) = given.as_ref().filter(|id| id.value == "add" || id.value == "register") {
        r.report(id.at, id.place.clone(), Fault::Reserved(Quoted::new(&id.value)));
    }
    let (address, typed) = r.backend_address(t, "address").unzip();
    let named = given.is_some();
    let id = given.or_else(|| {
        let address = address.as_ref()?;
        Some(Noted { value: typed?, at: address.at, place: address.place.clone() })
    });
    // Any other address does where none could be read: then there is an error, and no Config.
    let place = address.as_ref().map_or(Address::Name { host: String::new(), port: 0 }, |a| a.value.clone());
    let backend = Backend {
        weight: r.integer(t, "weight").unwrap_or(1),
        max_connections: r.integer(t, "max_connections").unwrap_or(0),
        backup: r.boolean(t, "backup").unwrap_or(false),
        disabled: r.boolean(t, "disabled").unwrap_or(false),
        ..Backend::new(id.as_ref().map(|id| id.value.clone()).unwrap_or_default(), place)
    };
    (backend, BackendDraft { address, id, named })
}
