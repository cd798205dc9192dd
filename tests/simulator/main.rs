//! A whole worker's sessions on scripted links, from seeds: no byte lost, added, moved or mixed up, nothing left behind,
//! every session ends, and no reset is told as an end.
//!
//! `L4LB_SEED=n` runs just that seed; `L4LB_SEEDS=n` so many instead of the usual ones, from `L4LB_FIRST` on.

mod checks;
mod http;
mod kernel;
mod pattern;
mod points;
mod scenario;
mod script;
mod world;

use l4lb::link::scripted::PANIC;
use l4lb::stats::Totals;
use scenario::Scenario;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use world::{Summary, World};

/// How many an ordinary run takes.
const SEEDS: u64 = 3_000;

/// Seeds that once failed, with what they found.
/// They hold as long as scenarios are made as they are; what must never be lost is in `points`, too.
const REGRESSIONS: &[(u64, &str)] = &[
    (26, "a reader that slowly took what was held was closed as silent"),
    (191, "the same, to a backend"),
    (126, "held bytes were dropped at the idle timeout, and a clean end followed"),
    (149, "the same, with a window that was full"),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Scripted panics are expected, and not worth a line each.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<String>().is_none_or(|text| text != PANIC) {
                usual(info);
            }
        }));
    });
}

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
        format!("seed {seed}: {why}\n  again: L4LB_SEED={seed} cargo test --test simulator one_seed -- --nocapture")
    })
}

#[test]
fn thousands_of_seeds() {
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
    let told: [(&str, u64); 15] = [
        ("turns", sum(|s| s.turns)),
        ("events", sum(|s| s.events)),
        ("sessions whole both ways", sum(|s| s.whole)),
        ("resets passed on after bytes", sum(|s| s.passed_on)),
        ("sessions", sum(|s| s.totals.accepted)),
        ("ended", sum(|s| s.totals.ended)),
        ("cut", sum(|s| s.totals.cut)),
        ("idle", sum(|s| s.totals.idle)),
        ("unserved", sum(|s| s.totals.unserved)),
        ("retried", sum(|s| s.totals.retried)),
        ("shed", sum(|s| s.totals.shed)),
        ("panics", sum(|s| s.totals.panics)),
        ("bytes in", sum(|s| s.totals.bytes_in)),
        ("bytes out", sum(|s| s.totals.bytes_out)),
        ("runs that spliced", sum(|s| u64::from(s.spliced > 0))),
    ];
    println!("{} seeds: {told:?}", all.len());
    if count >= SEEDS {
        for (what, count) in told {
            assert!(count > 10, "in all these seeds there were only {count} {what}");
        }
    }
}

#[test]
fn one_seed() {
    let Some(seed) = number("L4LB_SEED") else { return };
    println!("{}\n{:#?}", Scenario::random(seed).config(), Scenario::random(seed));
    match run_seed(seed) {
        Ok(summary) => println!("{summary:#?}"),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn seeds_that_once_failed() {
    for (seed, why) in REGRESSIONS {
        if let Err(again) = run_seed(*seed) {
            panic!("{why}, again: {again}");
        }
    }
}

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 0..20 {
        let first = run_seed(seed);
        assert_eq!(first, run_seed(seed));
        assert_ne!(first.unwrap_or_default().totals, Totals::default());
    }
}
