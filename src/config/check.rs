//! What is wrong only in company: names that clash or lead nowhere, addresses that are taken, loops.

use std::collections::HashMap;
use std::net::IpAddr;

use super::error::{Fault, Hint, Quoted};
use super::reader::{Noted, Reader};
use super::sections::{Draft, ListenerDraft, PoolDraft};
use super::{Address, Config, HealthCheck, Protocol, Transport};

/// Compares the parts of `draft` with each other, and with `own`, the addresses of this machine; reports, and joins them.
pub(super) fn join(r: &mut Reader<'_>, mut draft: Draft, own: &[IpAddr]) -> Config {
    if draft.listeners.is_empty() && !r.partial() {
        r.report(0, "listener", Fault::NoListener);
    }
    unique(r, draft.listeners.iter().filter_map(|l| l.name.as_ref()));
    unique(r, draft.pools.iter().filter_map(|p| p.name.as_ref()));
    draft.pools.iter().for_each(|pool| backends(r, pool));
    pools_by_index(r, &mut draft);
    bound_once(r, &draft);
    let carried = carried(&draft);
    no_loops(r, &draft, &carried, own);
    for (pool, carried) in draft.pools.iter_mut().zip(&carried) {
        if !pool.checked && carried == &[Some(Transport::Udp)] {
            pool.pool.health_check = HealthCheck::None;
        }
    }
    Config {
        global: draft.global,
        listeners: draft.listeners.into_iter().map(|l| l.listener).collect(),
        pools: draft.pools.into_iter().map(|p| p.pool).collect(),
    }
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

/// What carries traffic to each pool, each once; `None` is a listener whose protocol could not be read.
fn carried(draft: &Draft) -> Vec<Vec<Option<Transport>>> {
    let mut carried = vec![Vec::new(); draft.pools.len()];
    for ListenerDraft { listener, protocol, .. } in &draft.listeners {
        let transport = protocol.map(Protocol::transport);
        for pool in listener.pool.into_iter().chain(listener.routes.iter().map(|route| route.pool)) {
            if let Some(known) = carried.get_mut(pool)
                && !known.contains(&transport)
            {
                known.push(transport);
            }
        }
    }
    carried
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
fn no_loops(r: &mut Reader<'_>, draft: &Draft, carried: &[Vec<Option<Transport>>], own: &[IpAddr]) {
    let ports = by_port(draft);
    for (pool, carried) in draft.pools.iter().zip(carried) {
        let carried = if carried.is_empty() { &[Some(Transport::Tcp), Some(Transport::Udp)][..] } else { carried };
        for address in pool.backends.iter().filter_map(|b| b.address.as_ref()) {
            let binds = carried.iter().flatten().filter_map(|transport| ports.get(&(*transport, address.value.port())));
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
