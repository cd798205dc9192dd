//! What stays, what goes and what comes when a plan takes another configuration.

use super::*;
use crate::base::net::Networks;
use crate::shared::backend::Lease;
use crate::shared::changes::Which;
use std::fmt::Write;

/// A name, settings of its pool, and backends: their ports, and what else is said of each.
type Row<'a> = (&'a str, &'a str, &'a [(u16, &'a str)]);

/// A listener and a pool of each name, the listener's leading to the pool, with backends at these ports of 127.0.0.1.
fn file(pools: &[Row<'_>]) -> String {
    let mut text = String::new();
    for (name, settings, backends) in pools {
        let _ = write!(
            text,
            "[[listener]]\nname = '{name}'\nbind = '127.0.0.1:0'\nprotocol = 'tcp'\npool = '{name}'\n\
             [[pool]]\nname = '{name}'\nhealth_check = {{ kind = 'none' }}\n{settings}\n"
        );
        for (port, more) in *backends {
            let _ = writeln!(text, "[[pool.backend]]\nid = 'b{port}'\naddress = '127.0.0.1:{port}'\n{more}");
        }
    }
    text
}

fn config(pools: &[Row<'_>]) -> Config {
    config::parse(&file(pools), "test").unwrap_or_else(|errors| panic!("{errors}"))
}

fn plan(pools: &[Row<'_>]) -> Plan {
    Plan::new(config(pools), 1)
}

fn ids(pool: &Pool) -> Vec<String> {
    pool.primaries.places().map(|place| pool.backends[place as usize].id.to_string()).collect()
}

fn listed(pool: &Pool) -> Vec<String> {
    let word = |backend: &Backend| format!("{} {}", backend.id, pool.standing(backend, Tick(0)).word());
    pool.backends.iter().map(word).collect()
}

#[test]
fn what_keeps_its_name_keeps_its_number_and_all_that_is_known() {
    let mut plan = plan(&[("a", "", &[(1, ""), (2, "")]), ("b", "", &[(3, "")])]);
    let first = plan.build();
    first.pools[1].backends[0].state.failed(Tick(10));
    // Another order, another before them, one more in the middle.
    let changes = plan.adopt(config(&[("c", "", &[]), ("b", "", &[(4, ""), (3, "")]), ("a", "", &[(2, ""), (1, "")])]));
    let second = plan.build();
    let names: Vec<&str> = second.pools.iter().map(|pool| &*pool.name).collect();
    assert_eq!(names, ["a", "b", "c"], "new ones shift nobody");
    assert_eq!(plan.listener_ids(), [ListenerId(2), ListenerId(1), ListenerId(0)], "in the order of the file");
    for (was, is) in first.listeners.iter().zip(&second.listeners) {
        assert_eq!((was.pool, &was.name), (is.pool, &is.name));
        assert!(Arc::ptr_eq(&was.connections, &is.connections) && Arc::ptr_eq(&was.tallies, &is.tallies));
    }
    for (was, is) in first.pools.iter().zip(&second.pools) {
        assert!(Arc::ptr_eq(&was.turns, &is.turns) && Arc::ptr_eq(&was.tallies, &is.tallies));
        assert!(Arc::ptr_eq(&was.queue, &is.queue) && Arc::ptr_eq(&was.crowds, &is.crowds));
        for backend in &was.backends {
            let now = is.backend_of(backend.state.slot).expect("it is still there");
            assert!(Arc::ptr_eq(&now.state, &backend.state) && now.id == backend.id);
        }
    }
    assert!(second.pools[1].backends[1].state.is_aside(Tick(11)));
    assert_eq!((changes.listeners.added, changes.pools.added), (vec!["c".to_owned()], vec!["c".to_owned()]));
    assert_eq!(changes.backends.added, [Which { pool: "b".into(), id: "b4".into() }]);
    assert!(changes.listeners.changed.is_empty() && changes.pools.changed.is_empty(), "only the places of pools moved");
    assert!(plan.compare(plan.config()).is_empty());
}

#[test]
fn limits_that_have_changed_hold_for_what_is_there() {
    let mut plan = plan(&[("a", "queue = 1\nkeepalive = 1", &[(1, "max_connections = 1")])]);
    let first = plan.build();
    let (pool, state) = (&first.pools[0], &first.pools[0].backends[0].state);
    let lease = Lease::take(state, None, Tick(0));
    let (idle, waits) = (state.idle.take(), pool.queue.join());
    assert!(lease.is_some() && idle.is_some() && waits.is_some());
    // Whether there is one more place for a connection, an idle one and one who waits; it is given back at once.
    let more =
        || [Lease::take(state, None, Tick(0)).is_some(), state.idle.take().is_some(), pool.queue.join().is_some()];
    assert_eq!(more(), [false; 3]);
    let text = file(&[("a", "queue = 2\nkeepalive = 2", &[(1, "max_connections = 2")])]);
    let text = text.replace("protocol", "max_connections = 1\nprotocol");
    let changes = plan.adopt(config::parse(&text, "test").unwrap());
    assert_eq!(more(), [true; 3]);
    let place = first.listeners[0].connections.take();
    assert!(place.is_some() && first.listeners[0].connections.take().is_none());
    assert_eq!((&*changes.listeners.changed, &*changes.pools.changed), (&["a".to_owned()][..], &["a".to_owned()][..]));
    assert_eq!(changes.backends.changed, [Which { pool: "a".into(), id: "b1".into() }]);
    let removed = [&changes.listeners.removed, &changes.pools.removed];
    assert!(removed.iter().all(|removed| removed.is_empty()) && changes.backends.removed.is_empty());
}

#[test]
fn a_limit_by_rate_is_the_same_one_as_long_as_it_says_the_same() {
    let with = |capacity: u32| {
        let limit = format!("rate_limit = {{ algorithm = 'token_bucket', key = 'all', capacity = {capacity} }}");
        let text = file(&[("a", &limit, &[(1, "")]), ("b", "", &[(2, "")])]);
        config::parse(&text.replacen("protocol", &format!("{limit}\nprotocol"), 1), "test").unwrap()
    };
    // Those of the listener and of the pool, by name.
    let limits = |snapshot: &Snapshot| {
        let listener = snapshot.listeners.iter().find(|listener| &*listener.name == "a").unwrap();
        let pool = snapshot.pools.iter().find(|pool| &*pool.name == "a").unwrap();
        [&listener.rate_limit, &pool.rate_limit].map(|limit| limit.as_ref().map(|limit| limit.rate.clone()))
    };
    let mut plan = Plan::new(with(5), 1);
    let first = limits(&plan.build());
    let rows = [
        ("only another snapshot", plan.config().clone(), true),
        ("the listener and the pool are gone", config(&[("b", "", &[(2, "")])]), true),
        ("they come back as they were", with(5), true),
        ("another rule", with(6), false),
    ];
    for (why, config, same) in rows {
        plan.adopt(config);
        let now = limits(&plan.build());
        for (was, is) in first.iter().zip(&now) {
            assert_eq!(Arc::ptr_eq(was.as_ref().unwrap(), is.as_ref().unwrap()), same, "{why}");
        }
    }
    plan.adopt(config(&[("a", "", &[(1, "")])]));
    assert!(limits(&plan.build()).iter().all(Option::is_none), "it is off");
}

#[test]
fn a_backend_that_leaves_takes_nothing_new_and_is_gone_with_its_last_connection() {
    let mut plan = plan(&[("a", "", &[(1, ""), (2, "")])]);
    let first = plan.build();
    let gone = first.pools[0].backends[0].state.clone();
    let lease = Lease::take(&gone, None, Tick(0)).unwrap();
    plan.adopt(config(&[("a", "", &[(2, "")])]));
    let second = plan.build();
    assert_eq!(ids(&second.pools[0]), ["b2"]);
    assert_eq!(listed(&second.pools[0]), ["b2 up", "b1 draining"]);
    assert!(gone.is_leaving() && !gone.is_cut());
    assert_eq!((plan.take_left(), plan.take_left()), (vec![gone.slot], vec![]), "told once");
    assert!(!plan.settle(second.generation), "it has a connection");
    drop(lease);
    assert!(!plan.settle(first.generation), "a worker goes by the old snapshot and may still pick it");
    assert!(plan.settle(second.generation));
    assert_eq!(listed(&plan.build().pools[0]), ["b2 up"]);
    // Whoever still has the state, has it; then it is freed here.
    let taken = plan.known.slots_taken();
    assert!(!plan.settle(0) && plan.drains());
    drop((first, second, gone));
    assert!(!plan.settle(0) && !plan.drains());
    assert_eq!((taken, plan.known.slots_taken()), (2, 1));
}

#[test]
fn one_that_comes_back_while_it_leaves_is_the_old_one() {
    let mut plan = plan(&[("a", "", &[(1, ""), (2, "")])]);
    let first = plan.build();
    let state = first.pools[0].backends[0].state.clone();
    let _lease = Lease::take(&state, None, Tick(0)).unwrap();
    plan.adopt(config(&[("a", "", &[(2, "")])]));
    plan.build();
    plan.adopt(config(&[("a", "", &[(1, ""), (2, "")])]));
    let third = plan.build();
    assert_eq!(listed(&third.pools[0]), ["b1 up", "b2 up"]);
    assert!(Arc::ptr_eq(&state, &third.pools[0].backends[0].state) && !state.is_leaving());
    assert!(!plan.drains());
}

#[test]
fn what_still_drains_when_its_time_is_over_is_cut() {
    let timeout = "drain_timeout = '10s'";
    let rows: [(&str, &str, u64, bool); 4] = [
        ("in time", timeout, 10_000, false),
        ("too long", timeout, 10_001, true),
        ("0 is never", "", 1_000_000, false),
        ("0 is never, as typed", "drain_timeout = '0s'", 1_000_000, false),
    ];
    for told in [false, true] {
        for (why, settings, now, cut) in rows {
            let mut plan = plan(&[("a", settings, &[(1, "")])]);
            let first = plan.build();
            let state = first.pools[0].backends[0].state.clone();
            let _lease = Lease::take(&state, None, Tick(0)).unwrap();
            // As the admin API would have it drain, or without it.
            let mut next = config(&[("a", settings, &[(1, "")])]);
            match told {
                true => next.pools[0].backends[0].draining = true,
                false => next.pools[0].backends.clear(),
            }
            plan.adopt(next);
            let second = plan.build();
            assert_eq!(ids(&second.pools[0]), [""; 0], "{why}");
            plan.at(Tick(now));
            assert_eq!((plan.settle(second.generation), state.is_cut()), (cut, cut), "{why}, {told}");
            let third = plan.build();
            assert_eq!(third.cuts - second.cuts, u64::from(cut), "{why}: workers look once");
            assert_eq!(plan.build().cuts, third.cuts, "{why}: and not again");
            assert_eq!(listed(&third.pools[0]), ["b1 draining"], "{why}");
        }
    }
}

#[test]
fn one_that_is_marked_as_leaving_is_as_one_that_is_not_there() {
    let mut plan = plan(&[("a", "", &[(1, ""), (2, "")])]);
    let first = plan.build();
    let _lease = Lease::take(&first.pools[0].backends[0].state, None, Tick(0)).unwrap();
    let mut next = plan.config().clone();
    next.pools[0].backends[0].leaving = true;
    let changes = plan.adopt(next.clone());
    assert_eq!(changes.backends.removed, [Which { pool: "a".into(), id: "b1".into() }]);
    assert_eq!(listed(&plan.build().pools[0]), ["b2 up", "b1 draining"]);
    assert!(plan.adopt(next).is_empty(), "said once");
    assert_eq!(listed(&plan.build().pools[0]), ["b2 up", "b1 draining"]);
}

#[test]
fn what_has_gone_leaves_its_place_to_its_sessions_and_gets_it_back() {
    let mut plan = plan(&[("a", "", &[(1, "")]), ("b", "", &[(2, "")])]);
    let first = plan.build();
    let client = first.listeners[0].connections.take();
    plan.adopt(config(&[("b", "", &[(2, "")])]));
    let second = plan.build();
    assert_eq!((second.listeners[0].gone, second.listeners[1].gone), (true, false));
    assert_eq!((second.pools[0].gone, second.pools[1].gone), (true, false));
    assert_eq!(second.listeners[1].pool, Some(PoolId(1)));
    assert_eq!(second.live_pools().map(|pool| &*pool.name).collect::<Vec<_>>(), ["b"]);
    // A client that has come and has asked for nothing yet is still served.
    assert_eq!(ids(&second.pools[0]), ["b1"]);
    assert_eq!(listed(&second.pools[0]), ["b1 draining"]);
    assert!(!plan.settle(second.generation), "it may pick one yet");
    drop(client);
    assert!(plan.settle(second.generation), "nobody is there any more");
    assert_eq!(listed(&plan.build().pools[0]), [""; 0]);
    plan.adopt(config(&[("a", "", &[(1, "")]), ("b", "", &[(2, "")])]));
    let last = plan.build();
    assert_eq!((last.listeners[0].gone, last.pools[0].gone), (false, false));
    assert!(Arc::ptr_eq(&first.listeners[0].tallies, &last.listeners[0].tallies));
    assert!(Arc::ptr_eq(&first.pools[0].turns, &last.pools[0].turns));
    assert_eq!(ids(&last.pools[0]), ["b1"]);
}

#[test]
fn a_listener_that_speaks_something_else_is_another_one() {
    let mut plan = plan(&[("a", "", &[(1, "")])]);
    plan.build();
    let text = file(&[("a", "", &[(1, "")])]).replace("'tcp'", "'http'");
    let changes = plan.adopt(config::parse(&text, "test").unwrap());
    let second = plan.build();
    assert_eq!(plan.listener_ids(), [ListenerId(1)]);
    let told: Vec<_> = second.listeners.iter().map(|listener| (listener.gone, listener.protocol)).collect();
    assert_eq!(told, [(true, Protocol::Tcp), (false, Protocol::Http)]);
    assert_eq!(changes.listeners.changed, ["a"]);
}

#[test]
fn names_that_come_and_go_for_ever_take_no_end_of_room() {
    let mut plan = plan(&[("a", "", &[])]);
    for n in 0..400 {
        plan.at(Tick(n * 1_000));
        plan.adopt(config(&[("a", "", &[]), (&format!("n{n}"), "", &[(1, "")])]));
        let generation = plan.build().generation;
        plan.settle(generation);
    }
    let snapshot = plan.build();
    assert!(snapshot.listeners.len() < 70 && snapshot.pools.len() < 70, "{}", snapshot.pools.len());
    assert!(plan.known.slots_taken() < 10);
}

#[test]
fn what_the_whole_process_goes_by_is_told_apart() {
    let mut plan = plan(&[("a", "", &[])]);
    let mut next = plan.config().clone();
    (next.global.workers, next.global.max_connections) = (3, 7);
    next.admin.allow.clear();
    let changes = plan.adopt(next);
    assert_eq!(changes.settings, ["global.max_connections", "admin.allow"]);
    assert_eq!(changes.at_restart, ["global.workers"]);
    assert_eq!(plan.build().admin.allow, Networks::default());
}

#[test]
fn what_only_another_process_would_do_stays_as_it_runs() {
    let plan = plan(&[("a", "", &[(1, "")])]);
    let text = format!("{}[global]\nworkers = 7\nspin = '1ms'\nlog_level = 'debug'\n", file(&[("a", "", &[(1, "")])]));
    let mut config = config::parse(&text, "test").unwrap();
    assert_eq!(plan.keep(&mut config), ["global.workers", "global.spin"]);
    let running = &plan.config().global;
    assert_eq!((config.global.workers, config.global.spin), (running.workers, running.spin));
    assert_ne!(config.global.log_level, running.log_level, "this is done while it runs");
    assert_eq!(plan.keep(&mut config), Vec::<String>::new());
}
