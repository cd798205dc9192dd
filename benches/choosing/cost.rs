//! What one pick costs, with the lease taken and given back: the whole of `Pool::pick`, as workers call it.

use crate::pools::{WAYS, Way, pool};
use crate::table::print;
use l4lb::balance::Key;
use l4lb::base::time::Tick;
use l4lb::shared::choose::For;
use l4lb::shared::snapshot::Pool;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const SIZES: [u32; 4] = [3, 30, 300, 3_000];
/// Picks in a round: so few that hardly a round is interrupted, so many that the clock does not count.
const PICKS: u32 = 2_000;
/// Rounds that threads run before they are started anew.
const ROUNDS: usize = 20;
/// For so long rounds are run until enough of them count.
const LONGEST: Duration = Duration::from_secs(1);

/// Measures and prints the table.
pub(crate) fn show(quick: bool) {
    println!("## Nanoseconds a pick, by backends and threads\n");
    let rounds = if quick { 40 } else { 200 };
    let mut head = vec!["algorithm".to_owned()];
    for threads in [1, 2] {
        head.extend(SIZES.map(|n| format!("{n}, {threads} thread{}", if threads == 1 { "" } else { "s" })));
    }
    let rows: Vec<_> = WAYS.iter().map(|way| row(*way, rounds)).collect();
    print(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
}

fn row(way: Way, rounds: usize) -> Vec<String> {
    let mut row = vec![way.name.to_owned()];
    let mut two = Vec::new();
    for n in SIZES {
        let pool = pool(way, n);
        // Some have answered, as in any pool that is in use.
        let answered = |at: usize| pool.backends[at].state.estimate.sample(1e6 * (at % 7 + 1) as f64, 1);
        (0..n as usize).for_each(answered);
        let told = |found: Option<f64>| found.map_or("-".to_owned(), |ns| format!("{ns:.0}"));
        row.push(told(measure(&pool, 1, rounds)));
        two.push(told(measure(&pool, 2, rounds)));
    }
    row.extend(two);
    row
}

/// The median of those rounds that all threads ran at the same time; `None` when there were too few of them, since others
/// had the processors.
fn measure(pool: &Pool, threads: usize, wanted: usize) -> Option<f64> {
    let end = Instant::now() + LONGEST;
    let mut found = Vec::new();
    while found.len() < wanted && Instant::now() < end {
        found.extend(rounds(pool, threads));
    }
    found.sort_unstable_by(f64::total_cmp);
    (found.len() >= wanted / 4).then(|| found[found.len() / 2])
}

/// Some rounds: nanoseconds a pick of those that count.
fn rounds(pool: &Pool, threads: usize) -> Vec<f64> {
    let start = Instant::now();
    let arrived = AtomicUsize::new(0);
    let spans: Vec<Vec<(f64, f64)>> = std::thread::scope(|scope| {
        let one = |seed: usize| {
            let arrived = &arrived;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed as u64);
                let mut spans = Vec::with_capacity(ROUNDS);
                for round in 1..=ROUNDS {
                    arrived.fetch_add(1, SeqCst);
                    while arrived.load(SeqCst) < round * threads {
                        std::hint::spin_loop();
                    }
                    let from = start.elapsed().as_secs_f64();
                    for _ in 0..PICKS {
                        let key = Key(random.u64(..));
                        let picked = pool.pick(Tick(1_000), For { key, tried: &[], random: &mut random });
                        drop(black_box(picked));
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
        (together > 0.8 * all).then(|| all * 1e9 / f64::from(PICKS))
    };
    (0..ROUNDS).filter_map(of_round).collect()
}
