//! What it costs to ask: by one thread, and by two that do nothing else.

use crate::rules;
use l4lb::base::time::nanos;
use l4lb::guard::{RateKey, RateLimit, RateRule};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Asked in a round: so few that hardly a round is interrupted, so many that the clock does not count.
const ASKED: u64 = 2_000;
/// Rounds that threads run before they are started anew.
const ROUNDS: usize = 20;
/// For so long rounds are run until enough of them count.
const LONGEST: Duration = Duration::from_secs(2);
/// From one who asks to the next, in nanoseconds.
const STEP: u64 = 2_000;

/// Whose share is asked for.
#[derive(Clone, Copy)]
enum Whose {
    /// All share one.
    All,
    /// The same client each time.
    One,
    /// Another of so many each time, in no order.
    Many(u64),
}

/// Measures and prints the table.
pub(crate) fn show(rounds: usize) {
    println!("## Nanoseconds to ask\n");
    println!("| limit | whose | let in, 1 thread | 2 threads | refused, 1 thread | 2 threads |");
    println!("| --- | --- | --: | --: | --: | --: |");
    let whose = [
        ("all", Whose::All),
        ("one client", Whose::One),
        ("100,000 clients", Whose::Many(100_000)),
        ("a million clients", Whose::Many(1_000_000)),
    ];
    for (name, rule) in rules() {
        for (who, whose) in whose {
            let told = |rule, threads, let_in| {
                let found = measure(rule, whose, threads, let_in, rounds);
                found.map_or("-".to_owned(), |ns| format!("{ns:.0}"))
            };
            let tight = tight(rule);
            println!(
                "| {name} | {who} | {} | {} | {} | {} |",
                told(rule, 1, true),
                told(rule, 2, true),
                told(tight, 1, false),
                told(tight, 2, false)
            );
        }
    }
    println!("\nTo read the clock, which whoever asks has to do as well: {:.0}\n", clock());
}

/// The same kind, one at a time and none behind it.
fn tight(rule: RateRule) -> RateRule {
    match rule {
        RateRule::TokenBucket { .. } => RateRule::TokenBucket { capacity: 1, refill: 0.001 },
        RateRule::SlidingWindow { .. } => RateRule::SlidingWindow { max: 1, window: Duration::from_secs(100_000) },
        RateRule::LeakyBucket { .. } => RateRule::LeakyBucket { capacity: 1, leak: 0.001 },
    }
}

fn clock() -> f64 {
    let begun = Instant::now();
    for _ in 0..1_000_000 {
        black_box(nanos());
    }
    begun.elapsed().as_nanos() as f64 / 1e6
}

/// The median of those rounds that all threads ran at the same time; `None` when there were too few of them, since others
/// had the processors.
fn measure(rule: RateRule, whose: Whose, threads: usize, let_in: bool, wanted: usize) -> Option<f64> {
    let limit = RateLimit::new(rule, !matches!(whose, Whose::All));
    let key = |n: u64| limit.key_of_address(((n as u32).wrapping_mul(2_654_435_761)).to_be_bytes().into());
    let (all, mut now) = (if let Whose::Many(all) = whose { all } else { 1 }, 1);
    // Everybody has come before, so that refusals are refusals.
    (0..all).for_each(|n| _ = limit.take(key(n), now));
    let end = Instant::now() + LONGEST;
    let mut found = Vec::new();
    while found.len() < wanted && Instant::now() < end {
        found.extend(rounds(&limit, &key, all, threads, now, let_in));
        now += ROUNDS as u64 * ASKED * STEP;
    }
    found.sort_unstable_by(f64::total_cmp);
    (found.len() >= wanted / 4).then(|| found[found.len() / 2])
}

/// Some rounds: nanoseconds to ask, of those that count.
fn rounds(
    limit: &RateLimit,
    key: &(impl Fn(u64) -> RateKey + Sync),
    all: u64,
    threads: usize,
    began: u64,
    let_in: bool,
) -> Vec<f64> {
    let start = Instant::now();
    let arrived = AtomicUsize::new(0);
    let spans: Vec<Vec<(f64, f64)>> = std::thread::scope(|scope| {
        let one = |seed: usize| {
            let arrived = &arrived;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed as u64);
                let mut spans = Vec::with_capacity(ROUNDS);
                let mut now = began;
                for round in 1..=ROUNDS {
                    // Chance is paid for outside of what is measured.
                    let keys: Vec<RateKey> = (0..ASKED).map(|_| key(random.u64(..all))).collect();
                    arrived.fetch_add(1, SeqCst);
                    while arrived.load(SeqCst) < round * threads {
                        std::hint::spin_loop();
                    }
                    let from = start.elapsed().as_secs_f64();
                    for key in &keys {
                        now += STEP;
                        assert_eq!(black_box(limit.take(*key, now)).is_ok(), let_in);
                    }
                    spans.push((from, start.elapsed().as_secs_f64()));
                }
                spans
            })
        };
        let running: Vec<_> = (0..threads).map(one).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let of_round = |round: usize| {
        let of = || spans.iter().map(|spans| spans[round]);
        let all = of().fold((f64::MAX, 0.0f64), |(a, b), (from, until)| (a.min(from), b.max(until)));
        let together = of().fold((0.0f64, f64::MAX), |(a, b), (from, until)| (a.max(from), b.min(until)));
        let (all, together) = (all.1 - all.0, together.1 - together.0);
        (together > 0.8 * all).then(|| all * 1e9 / ASKED as f64)
    };
    (0..ROUNDS).filter_map(of_round).collect()
}
