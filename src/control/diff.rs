//! What is different between two configurations.

use crate::config::{Config, Listener, Pool, Route};
use crate::shared::changes::{Changes, Diff, Which};
use std::collections::HashMap;

/// What `new` would change where `old` is in force. Backends that leave are as if they were not there.
pub(super) fn compare(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    settings(old, new, &mut changes);
    let by_name: HashMap<&str, &Listener> = old.listeners.iter().map(|listener| (&*listener.name, listener)).collect();
    for listener in &new.listeners {
        match by_name.get(&*listener.name) {
            None => changes.listeners.added.push(listener.name.clone()),
            Some(was) if !same_listener((was, old), (listener, new)) => {
                changes.listeners.changed.push(listener.name.clone());
            }
            Some(_) => {}
        }
    }
    let left = names(new.listeners.iter().map(|listener| &*listener.name));
    let gone = old.listeners.iter().filter(|listener| !left.contains_key(&*listener.name));
    changes.listeners.removed = gone.map(|listener| listener.name.clone()).collect();
    let by_name: HashMap<&str, &Pool> = old.pools.iter().map(|pool| (&*pool.name, pool)).collect();
    for pool in &new.pools {
        match by_name.get(&*pool.name) {
            None => changes.pools.added.push(pool.name.clone()),
            Some(was) if !same_settings(was, pool) => changes.pools.changed.push(pool.name.clone()),
            Some(_) => {}
        }
        backends(by_name.get(&*pool.name).copied(), Some(pool), &mut changes.backends);
    }
    let left = names(new.pools.iter().map(|pool| &*pool.name));
    for pool in old.pools.iter().filter(|pool| !left.contains_key(&*pool.name)) {
        changes.pools.removed.push(pool.name.clone());
        backends(Some(pool), None, &mut changes.backends);
    }
    changes
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, ()> {
    names.map(|name| (name, ())).collect()
}

/// The same but for the places of pools, which may have moved: their names count.
fn same_listener((a, old): (&Listener, &Config), (b, new): (&Listener, &Config)) -> bool {
    let bare = |listener: &Listener| Listener {
        pool: None,
        routes: listener.routes.iter().map(|route| Route { pool: 0, ..route.clone() }).collect(),
        ..listener.clone()
    };
    let leads = |listener: &Listener, config: &Config| -> Vec<Option<String>> {
        let pools = listener.routes.iter().map(|route| Some(route.pool)).chain([listener.pool]);
        pools.map(|pool| Some(config.pools.get(pool?)?.name.clone())).collect()
    };
    bare(a) == bare(b) && leads(a, old) == leads(b, new)
}

/// The same but for the backends.
fn same_settings(a: &Pool, b: &Pool) -> bool {
    bare(a) == bare(b)
}

/// The pool without its backends.
pub(super) fn bare(pool: &Pool) -> Pool {
    let mut bare = pool.clone();
    bare.backends = Vec::new();
    bare
}

fn backends(old: Option<&Pool>, new: Option<&Pool>, diff: &mut Diff<Which>) {
    let all = |pool: Option<&'_ Pool>| -> Vec<_> {
        let stay = pool.into_iter().flat_map(|pool| &pool.backends).filter(|backend| !backend.leaving);
        stay.cloned().collect()
    };
    let (old_backends, new_backends) = (all(old), all(new));
    let pool = new.or(old).map(|pool| pool.name.clone()).unwrap_or_default();
    let which = |id: &str| Which { pool: pool.clone(), id: id.to_owned() };
    let was: HashMap<&str, _> = old_backends.iter().map(|backend| (&*backend.id, backend)).collect();
    for backend in &new_backends {
        match was.get(&*backend.id) {
            None => diff.added.push(which(&backend.id)),
            Some(was) if **was != *backend => diff.changed.push(which(&backend.id)),
            Some(_) => {}
        }
    }
    let left = names(new_backends.iter().map(|backend| &*backend.id));
    diff.removed.extend(old_backends.iter().filter(|backend| !left.contains_key(&*backend.id)).map(|b| which(&b.id)));
}

fn settings(old: &Config, new: &Config, changes: &mut Changes) {
    let (a, b) = (&old.global, &new.global);
    let now = [
        ("global.log_level", a.log_level != b.log_level),
        ("global.max_connections", a.max_connections != b.max_connections),
        ("global.shutdown_timeout", a.shutdown_timeout != b.shutdown_timeout),
        ("global.shutdown_delay", a.shutdown_delay != b.shutdown_delay),
        ("admin.allow", old.admin.allow != new.admin.allow),
        ("admin.hosts", old.admin.hosts != new.admin.hosts),
        ("admin.token_file", old.admin.token != new.admin.token),
    ];
    changes.settings = differ(&now);
    changes.at_restart = at_restart(old, new);
}

/// Which of `keys` differ.
fn differ(keys: &[(&str, bool)]) -> Vec<String> {
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned()).collect()
}

/// What `new` says that only another process would do.
fn at_restart(old: &Config, new: &Config) -> Vec<String> {
    let (a, b) = (&old.global, &new.global);
    let later = [
        ("global.workers", a.workers != b.workers),
        ("global.cpu_affinity", a.cpu_affinity != b.cpu_affinity),
        ("global.spin", a.spin != b.spin),
        ("global.log_file", a.log_file != b.log_file),
        ("global.user", a.user != b.user),
        ("global.group", a.group != b.group),
        ("admin.state_file", old.admin.state_file != new.admin.state_file),
    ];
    let mut later = differ(&later);
    // Whatever else there is, and nobody obeys while it runs.
    let mut known = b.clone();
    (known.workers, known.cpu_affinity, known.spin) = (a.workers, a.cpu_affinity, a.spin);
    (known.log_level, known.max_connections) = (a.log_level, a.max_connections);
    (known.log_file, known.log_file_at) = (a.log_file.clone(), a.log_file_at.clone());
    (known.shutdown_timeout, known.shutdown_delay) = (a.shutdown_timeout, a.shutdown_delay);
    (known.user, known.user_at) = (a.user.clone(), a.user_at.clone());
    (known.group, known.group_at) = (a.group.clone(), a.group_at.clone());
    if known != *a {
        later.push("global".to_owned());
    }
    later
}

/// Lets `new` say what runs, where only another process would do what it says; and tells where that is.
pub(super) fn keep(running: &Config, new: &mut Config) -> Vec<String> {
    let later = at_restart(running, new);
    let (a, b) = (&running.global, &mut new.global);
    (b.workers, b.cpu_affinity, b.spin) = (a.workers, a.cpu_affinity, a.spin);
    (b.log_file, b.log_file_at) = (a.log_file.clone(), a.log_file_at.clone());
    (b.user, b.user_at) = (a.user.clone(), a.user_at.clone());
    (b.group, b.group_at) = (a.group.clone(), a.group_at.clone());
    new.admin.state_file.clone_from(&running.admin.state_file);
    new.admin.state_file_at.clone_from(&running.admin.state_file_at);
    later
}
