//! HTTP on scripted links, from seeds: each answer belongs to its request and is whole or visibly cut, nothing malformed
//! passes, nothing that cannot be repeated is, no connection is used again that should not be, and nothing is left behind.
//!
//! Both ends read by a model of their own (`parser`), and hold what comes against what was said (`ledger`).

mod backend;
mod checks;
mod client;
mod ledger;
mod parser;
mod plan;
mod points;
mod random;
mod render;
mod world;

use crate::{hush, number};
use plan::Scenario;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use world::{Summary, World};

/// How many an ordinary run takes.
const SEEDS: u64 = 3_000;

/// Seeds that once failed, with what they found.
/// They hold as long as scenarios are made as they are; what must never be lost is in `points`, too.
const REGRESSIONS: &[(u64, &str)] = &[
    (385, "the rest of a head stood behind that of the second try"),
    (2104, "the same, taken for content"),
    (2747, "an error of our own in the midst of a response"),
    (1600, "an early answer was lost to a reset for the rest of the upload"),
    (79_643, "the same, to the next request, that was sent before the answer was read"),
    (98, "a client was kept after an error that it took slowly, and then it was not"),
];

fn run(scenario: Scenario) -> Result<Summary, String> {
    hush();
    match catch_unwind(AssertUnwindSafe(|| World::new(scenario).run())) {
        Ok(result) => result,
        Err(panic) => Err(match panic.downcast_ref::<String>() {
            Some(text) => format!("a panic: {text}"),
            None => "a panic".into(),
        }),
    }
}

fn run_seed(seed: u64) -> Result<Summary, String> {
    run(Scenario::random(seed)).map_err(|why| {
        format!(
            "seed {seed}: {why}\n  again: L4LB_SEED={seed} cargo test --test simulator one_http_seed -- --nocapture"
        )
    })
}

#[test]
fn thousands_of_http_seeds() {
    let (first, count) = (number("L4LB_FIRST").unwrap_or(0), number("L4LB_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let work = || {
        let (mut all, mut failures) = (Vec::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + count || failures.len() >= 5 {
                return (all, failures);
            }
            match run_seed(seed) {
                Ok(summary) => all.push(summary),
                Err(why) => failures.push(why),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            let (good, bad) = thread.join().expect("runs catch their panics");
            all.extend(good);
            failures.extend(bad);
        }
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    let sum = |what: fn(&Summary) -> u64| all.iter().map(what).sum::<u64>();
    let told: [(&str, u64); 18] = [
        ("turns", sum(|s| s.turns)),
        ("events", sum(|s| s.events)),
        ("clients", sum(|s| s.totals.accepted)),
        ("requests", sum(|s| s.requests)),
        ("responses that were whole", sum(|s| s.whole)),
        ("responses that were cut", sum(|s| s.parts)),
        ("errors of its own", sum(|s| s.own)),
        ("tunnels", sum(|s| s.tunnels)),
        ("connects", sum(|s| s.dials)),
        ("requests over a used connection", sum(|s| s.reused)),
        ("requests seen twice", sum(|s| s.repeated)),
        ("cut", sum(|s| s.totals.cut)),
        ("idle", sum(|s| s.totals.idle)),
        ("unserved", sum(|s| s.totals.unserved)),
        ("retried", sum(|s| s.totals.retried)),
        ("shed", sum(|s| s.totals.shed)),
        ("panics", sum(|s| s.totals.panics)),
        ("runs that spliced", sum(|s| u64::from(s.spliced > 0))),
    ];
    let blocks = all.iter().map(|s| s.blocks).max();
    println!("{} seeds, at most {blocks:?} blocks a session: {told:?}", all.len());
    if count >= SEEDS {
        for (what, count) in told {
            assert!(count > 10, "in all these seeds there were only {count} {what}");
        }
    }
}

#[test]
fn one_http_seed() {
    let Some(seed) = number("L4LB_SEED") else { return };
    println!("{}\n{:#?}", Scenario::random(seed).config(), Scenario::random(seed));
    match run_seed(seed) {
        Ok(summary) => println!("{summary:#?}"),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn http_seeds_that_once_failed() {
    for (seed, why) in REGRESSIONS {
        if let Err(again) = run_seed(*seed) {
            panic!("{why}, again: {again}");
        }
    }
}

#[test]
fn an_http_seed_is_always_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run_seed(seed), run_seed(seed));
    }
}
