//! What is wrong only in company: names that clash or lead nowhere, addresses that are taken, loops.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::error::{Fault, Hint, Quoted};
use super::reader::{Noted, Reader};
use super::sections::{Checked, Draft, ListenerDraft, PoolDraft};
use super::{Address, Config, HashKey, HealthCheck, LimitKey, Listener, Protocol, Serves, Transport};

/// Compares the parts of `draft` with each other, and with `own`, the addresses of this machine; reports, and joins them.
pub(super) fn join(r: &mut Reader<'_>, mut draft: Draft, own: &[IpAddr]) -> Config {
    if draft.listeners.is_empty() && !r.partial() {
        r.report(0, "listener", Fault::NoListener);
    }
    unique(r, draft.listeners.iter().filter_map(|l| l.name.as_ref()));
    draft.listeners.extend(draft.admin_bind.take().map(admin_listener));
    unique(r, draft.pools.iter().filter_map(|p| p.name.as_ref()));
    draft.pools.iter().for_each(|pool| backends(r, pool));
    pools_by_index(r, &mut draft);
    bound_once(r, &draft);
    let users = users(&draft);
    no_loops(r, &draft, &users, own);
    request_keys(r, &mut draft, &users);
    kinds_of_checks(r, &mut draft, &users);
    Config {
        global: draft.global,
        admin: draft.admin,
        listeners: draft.listeners.into_iter().map(|l| l.listener).collect(),
        pools: draft.pools.into_iter().map(|p| p.pool).collect(),
    }
}

/// The listener of `[admin]`: one more for HTTP.
fn admin_listener(bind: Noted<Address>) -> ListenerDraft {
    let mut listener = Listener::new(Listener::ADMIN, Protocol::Http);
    listener.serves = Serves::Admin;
    listener.binds.push(bind.value.clone());
    let protocol = Some(Protocol::Http);
    ListenerDraft { listener, name: None, protocol, binds: vec![bind], pool: None, route_pools: Vec::new() }
}

fn unique<'a>(r: &mut Reader<'_>, names: impl Iterator<Item = &'a Noted<String>>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for name in names {
        let first = *seen.entry(&name.value).or_insert(name.at);
        if first != name.at {
            let first = r.line(first);
            r.report(name.at, name.place.clone(), Fault::Taken { found: Quoted::new(&name.value), first });
        }
    }
}

fn backends(r: &mut Reader<'_>, pool: &PoolDraft) {
    let mut seen: HashMap<Address, usize> = HashMap::new();
    let mut same = Vec::new();
    for address in pool.backends.iter().filter_map(|b| b.address.as_ref()) {
        let first = *seen.entry(address.value.canonical()).or_insert(address.at);
        if first != address.at {
            same.push(address.at);
            let (found, first) = (address.value.to_string(), r.line(first));
            r.report(address.at, address.place.clone(), Fault::SameBackend { found, first });
        }
    }
    // An address that is there twice has been reported; that its id is then there twice too goes without saying.
    let said = |id: &Noted<String>, named: bool| !named && same.contains(&id.at);
    unique(r, pool.backends.iter().filter_map(|b| b.id.as_ref().filter(|id| !said(id, b.named))));
}

/// The binds by transport and port: only those can have anything to do with each other. A listener whose protocol could
/// not be read may be of either, so nothing is said of it.
fn by_port(draft: &Draft) -> HashMap<(Transport, u16), Vec<&Noted<Address>>> {
    let mut ports: HashMap<_, Vec<&Noted<Address>>> = HashMap::new();
    for listener in &draft.listeners {
        for (bind, protocol) in listener.binds.iter().filter_map(|bind| Some((bind, listener.protocol?))) {
            ports.entry((protocol.transport(), bind.value.port())).or_default().push(bind);
        }
    }
    ports
}

/// A listener that sends traffic to a pool.
struct User {
    name: Quoted,
    /// `None` when it could not be read.
    protocol: Option<Protocol>,
}

/// The listeners that use each pool, each once.
fn users(draft: &Draft) -> Vec<Vec<User>> {
    let mut users: Vec<Vec<User>> = draft.pools.iter().map(|_| Vec::new()).collect();
    for ListenerDraft { listener, protocol, .. } in &draft.listeners {
        let pools = listener.pool.into_iter().chain(listener.routes.iter().map(|route| route.pool));
        for pool in pools.collect::<BTreeSet<usize>>() {
            if let Some(users) = users.get_mut(pool) {
                users.push(User { name: Quoted::new(&listener.name), protocol: *protocol });
            }
        }
    }
    users
}

/// Why something that is read from requests, shown as `found`, cannot be had in a pool that these listeners use; `sure`
/// when no other may.
fn no_requests(found: Quoted, users: &[User], sure: bool) -> Option<Fault> {
    let other = |user: &User| Some((user.name.clone(), user.protocol.filter(|p| *p != Protocol::Http)?));
    match users.iter().find_map(other) {
        Some((listener, protocol)) if users.iter().any(|user| user.protocol == Some(Protocol::Http)) => {
            Some(Fault::NoRequest { found, listener, protocol })
        }
        None if all_http(users) => None,
        _ => sure.then_some(Fault::NoHttp { found }),
    }
}

fn all_http(users: &[User]) -> bool {
    !users.is_empty() && users.iter().all(|user| user.protocol == Some(Protocol::Http))
}

/// Sets what each pool hashes. What is read from requests, there and for limits, only where all traffic is requests.
fn request_keys(r: &mut Reader<'_>, draft: &mut Draft, users: &[Vec<User>]) {
    // A listener whose pool or protocol is not known may use any pool.
    let sure = !r.partial()
        && draft.listeners.iter().all(|l| {
            let pool = l.pool.is_none() == l.listener.pool.is_none();
            l.protocol.is_some() && pool && l.listener.routes.iter().all(|route| route.pool != usize::MAX)
        });
    for (draft, users) in draft.pools.iter_mut().zip(users) {
        if let Some(key) = draft.limit_key.take().filter(|key| matches!(key.value, LimitKey::Header(_)))
            && let Some(fault) = no_requests(Quoted::new(&key.value.to_string()), users, sure)
        {
            r.report(key.at, key.place, fault);
        }
        let Some(key) = draft.hash_key.take() else {
            draft.pool.hash_key = HashKey::usual(draft.pool.algorithm, all_http(users));
            continue;
        };
        if key.value != HashKey::ClientIp
            && let Some(fault) = no_requests(Quoted::new(&key.value.to_string()), users, sure)
        {
            r.report(key.at, key.place, fault);
        }
        draft.pool.hash_key = key.value;
    }
}

/// A connection tells nothing of backends that only take datagrams: they are checked only as the file says.
fn kinds_of_checks(r: &mut Reader<'_>, draft: &mut Draft, users: &[Vec<User>]) {
    for (draft, users) in draft.pools.iter_mut().zip(users) {
        if users.is_empty() || users.iter().any(|user| user.protocol != Some(Protocol::Udp)) {
            continue;
        }
        match &draft.checked {
            Checked::Unsaid => draft.pool.health_check = HealthCheck::none(),
            Checked::Kindless(at, place) if !r.partial() => r.report(*at, place.clone(), Fault::NoUdpKind),
            Checked::Kindless(..) | Checked::Said => {}
        }
    }
}

fn bound_once(r: &mut Reader<'_>, draft: &Draft) {
    for binds in by_port(draft).values() {
        for (i, bind) in binds.iter().enumerate() {
            if let Some(first) = binds[..i].iter().find(|first| first.value.clashes(&bind.value)) {
                let other = format!("{} ({})", first.place, first.value);
                let (found, first) = (bind.value.to_string(), r.line(first.at));
                r.report(bind.at, bind.place.clone(), Fault::BoundTwice { found, other, first });
            }
        }
    }
}

/// No backend is a listener that speaks over the same transport as traffic comes to its pool by: by TCP to port 53 of this
/// machine is no loop for what came by UDP. A pool that nobody uses yet may be used by either.
fn no_loops(r: &mut Reader<'_>, draft: &Draft, users: &[Vec<User>], own: &[IpAddr]) {
    let ports = by_port(draft);
    for (pool, users) in draft.pools.iter().zip(users) {
        let uses = |transport| users.iter().any(|user| user.protocol.map(Protocol::transport) == Some(transport));
        let carried =
            [Transport::Tcp, Transport::Udp].map(|transport| (transport, users.is_empty() || uses(transport)));
        let carried = carried.into_iter().filter_map(|(transport, carried)| carried.then_some(transport));
        for address in pool.backends.iter().filter_map(|b| b.address.as_ref()) {
            let binds = carried.clone().filter_map(|transport| ports.get(&(transport, address.value.port())));
            let mut reached = binds.flat_map(|binds| {
                // As they will be bound: [::] leaves IPv4 to a listener that has the port there.
                let only_v6 = binds.iter().any(|bind| matches!(bind.value, Address::Ip(ip) if ip.is_ipv4()));
                binds.iter().filter(move |bind| address.value.reaches(&bind.value, only_v6, own))
            });
            if let Some(bind) = reached.next() {
                let other = format!("{} ({})", bind.place, bind.value);
                let (found, first) = (address.value.to_string(), r.line(bind.at));
                r.report(address.at, address.place.clone(), Fault::OwnListener { found, other, first });
            }
        }
    }
}

fn pools_by_index(r: &mut Reader<'_>, draft: &mut Draft) {
    let mut index: HashMap<&str, usize> = HashMap::new();
    for (i, name) in draft.pools.iter().enumerate().filter_map(|(i, pool)| Some((i, pool.name.as_ref()?))) {
        index.entry(&name.value).or_insert(i);
    }
    // A pool without a name is an error already; it may be the one that is meant.
    let sure = !r.partial() && draft.pools.iter().all(|pool| pool.name.is_some());
    let known = || draft.pools.iter().filter_map(|pool| Some(pool.name.as_ref()?.value.as_str()));
    let mut find = |wanted: &Noted<String>| {
        let found = index.get(wanted.value.as_str()).copied();
        if found.is_none() && sure {
            let hint = match Hint::new(&wanted.value, known()) {
                Hint::OneOf(all) if all.is_empty() => Hint::AddPool(wanted.value.clone()),
                hint => hint,
            };
            let found = Quoted::new(&wanted.value);
            r.report(wanted.at, wanted.place.clone(), Fault::UnknownPool { found, hint });
        }
        found
    };
    for ListenerDraft { listener, pool, route_pools, .. } in &mut draft.listeners {
        listener.pool = pool.as_ref().and_then(&mut find);
        for (route, pool) in listener.routes.iter_mut().zip(route_pools) {
            // Without one there is an error, and no Config.
            route.pool = pool.as_ref().and_then(&mut find).unwrap_or(usize::MAX);
        }
    }
}
