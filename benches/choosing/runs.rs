//! What is asked of each algorithm, and the table of the answers.

use crate::pools::{WAYS, Way, pool};
use crate::simulation::{Found, Script, run};
use crate::table::{ms, print, share};
use l4lb::guard::BreakerRules;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SERVERS: u32 = 10;
/// As in an example of a configuration.
const BREAKER: BreakerRules = BreakerRules { failures: 5, successes: 3, timeout: Duration::from_secs(60) };

/// The runs, in the order of the columns.
struct Scripts {
    equal: Script,
    slower: Script,
    stalled: Script,
    recovering: Script,
    failing: Script,
    faulty: Script,
    all_faulty: Script,
}

impl Scripts {
    fn new(quick: bool) -> Scripts {
        let part = if quick { 6.0 } else { 1.0 };
        let plain = |seconds: f64| {
            let seconds = seconds / part;
            Script {
                seconds,
                load: 0.7,
                special: vec![],
                fails: 0.0,
                others_fail: 0.0,
                window: (0.3 * seconds, seconds),
            }
        };
        let slower = Script { special: vec![(0.0, 1.0 / 3.0)], load: 0.7 * (9.0 + 1.0 / 3.0) / 10.0, ..plain(120.0) };
        let stalled =
            Script { seconds: 73.0, special: vec![(10.0, 0.0), (13.0, 1.0)], window: (13.0, 73.0), ..plain(0.0) };
        let end = if quick { 80.0 } else { 180.0 };
        let recovering =
            Script { seconds: end, special: vec![(0.0, 0.1), (20.0, 1.0)], window: (60.0, end), ..plain(0.0) };
        let failing = Script { fails: 1.0, load: 0.6, ..plain(60.0) };
        let faulty = Script { fails: 0.01, load: 0.6, ..plain(60.0) };
        let all_faulty = Script { fails: 0.001, others_fail: 0.001, ..plain(60.0) };
        Scripts { equal: plain(60.0), slower, stalled, recovering, failing, faulty, all_faulty }
    }
}

/// Runs all of it and prints the table.
pub(crate) fn show(seed: u64, quick: bool) {
    let scripts = Scripts::new(quick);
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(vec![Vec::new(); WAYS.len()]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(WAYS.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(way) = WAYS.get(next.fetch_add(1, Relaxed)) {
                    let row = row(*way, &scripts, seed);
                    let at = WAYS.iter().position(|other| other.name == way.name).unwrap_or(0);
                    rows.lock().unwrap_or_else(PoisonError::into_inner)[at] = row;
                }
            });
        }
    });
    println!("## Ten servers, eight requests at once each, 20 ms a request (exponential), 70 % busy\n");
    let head = [
        "algorithm",
        "equal: max/mean",
        "p50 / p99 ms",
        "one 3x slower: p50 / p99 ms",
        "its share (fair .036)",
        "after a stall of 3 s (fair .100)",
        "after 20 s 10x slower (fair .100)",
        "one fails at once",
        "with a breaker",
        "one fails 1 %",
        "all fail 0.1 %: p50 / p99 ms",
    ];
    print(&head, &rows.into_inner().unwrap_or_else(PoisonError::into_inner));
}

fn row(way: Way, scripts: &Scripts, seed: u64) -> Vec<String> {
    let one = |script: &Script, seed: u64| run(&pool(way, SERVERS), script, seed);
    let both = |found: &Found| format!("{} / {}", ms(found.quantile(0.5)), ms(found.quantile(0.99)));
    let equal = one(&scripts.equal, seed);
    let slower = one(&scripts.slower, seed);
    let again: Vec<f64> = (seed..seed + 3).map(|seed| one(&scripts.recovering, seed).shares[0]).collect();
    let (least, most) = again.iter().fold((1.0f64, 0.0f64), |(a, b), share| (a.min(*share), b.max(*share)));
    let mut broken = pool(way, SERVERS);
    broken.breaker = Some(BREAKER);
    vec![
        way.name.to_owned(),
        format!("{:.3}", equal.shares.iter().copied().fold(0.0, f64::max) * f64::from(SERVERS)),
        both(&equal),
        both(&slower),
        share(slower.shares[0]),
        share(one(&scripts.stalled, seed).shares[0]),
        format!("{} to {}", share(least), share(most)),
        share(one(&scripts.failing, seed).shares[0]),
        share(run(&broken, &scripts.failing, seed).shares[0]),
        share(one(&scripts.faulty, seed).shares[0]),
        both(&one(&scripts.all_faulty, seed)),
    ]
}
