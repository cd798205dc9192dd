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
/// Picks from one look at the clock to the next: so few that hardly a batch is interrupted, so many that the clock does
/// not count.
const PICKS: u32 = 100;
/// Batches that threads run before they are started anew.
const BATCHES: usize = 200;
/// Batches at the start that do not count, while caches are filled.
const WARM: usize = 20;
/// A batch that takes so many times the usual one was interrupted.
const INTERRUPTED: f64 = 3.0;
/// For so long it is measured until there are enough runs that count.
const LONGEST: Duration = Duration::from_secs(6);

/// Measures and prints the table.
pub(crate) fn show(quick: bool) {
    println!("## Nanoseconds a pick, by backends and threads\n");
    let runs = if quick { 40 } else { 200 };
    let mut head = vec!["algorithm".to_owned()];
    for threads in [1, 2] {
        head.extend(SIZES.map(|n| format!("{n}, {threads} thread{}", if threads == 1 { "" } else { "s" })));
    }
    let rows: Vec<_> = WAYS.iter().map(|way| row(*way, runs)).collect();
    print(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
}

fn row(way: Way, runs: usize) -> Vec<String> {
    let mut row = vec![way.name.to_owned()];
    let mut two = Vec::new();
    for n in SIZES {
        let pool = pool(way, n);
        // Some have answered, as in any pool that is in use.
        let answered = |at: usize| pool.backends[at].state.estimate.sample(1e6 * (at % 7 + 1) as f64, 1);
        (0..n as usize).for_each(answered);
        let told = |found: Option<f64>| found.map_or("-".to_owned(), |ns| format!("{ns:.0}"));
        row.push(told(measure(&pool, 1, runs)));
        two.push(told(measure(&pool, 2, runs)));
    }
    row.extend(two);
    row
}

/// The median of runs; `None` when too few of them tell something, since others had the processors.
fn measure(pool: &Pool, threads: usize, wanted: usize) -> Option<f64> {
    let end = Instant::now() + LONGEST;
    let mut found = Vec::new();
    while found.len() < wanted && Instant::now() < end {
        found.extend(figure(&run(pool, threads)));
    }
    (found.len() >= wanted / 8).then(|| median(&mut found))
}

/// Lets threads pick at the same time: for each, when its batches began, and when the last one ended, in nanoseconds.
fn run(pool: &Pool, threads: usize) -> Vec<Vec<f64>> {
    let start = Instant::now();
    let arrived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let one = |seed: usize| {
            let arrived = &arrived;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed as u64);
                let mut marks = Vec::with_capacity(BATCHES + 1);
                arrived.fetch_add(1, SeqCst);
                while arrived.load(SeqCst) < threads {
                    std::hint::spin_loop();
                }
                for _ in 0..BATCHES {
                    marks.push(start.elapsed().as_nanos() as f64);
                    for _ in 0..PICKS {
                        let key = Key(random.u64(..));
                        let picked = pool.pick(Tick(1_000), For { key, tried: &[], random: &mut random });
                        drop(black_box(picked));
                    }
                }
                marks.push(start.elapsed().as_nanos() as f64);
                marks
            })
        };
        let running: Vec<_> = (0..threads).map(one).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

/// Nanoseconds a pick: the mean over the threads, of which one may fare better than the other, of the median over their
/// batches. Only those batches count during which all other threads were running and not interrupted.
fn figure(threads: &[Vec<f64>]) -> Option<f64> {
    let spans = |marks: &[f64]| marks.windows(2).map(|two| two[1] - two[0]).collect::<Vec<_>>();
    let usual: Vec<f64> = threads.iter().map(|marks| median(&mut spans(marks))).collect();
    let ran = |thread: usize, from: f64, until: f64| {
        let marks = &threads[thread];
        let (first, last) = (marks.partition_point(|mark| *mark <= from), marks.partition_point(|mark| *mark < until));
        let covers = first > 0 && last < marks.len();
        covers && spans(&marks[first - 1..=last]).iter().all(|span| *span < INTERRUPTED * usual[thread])
    };
    let of_thread = |thread: usize| {
        let others = || (0..threads.len()).filter(move |other| *other != thread);
        let batches = threads[thread].windows(2).skip(WARM).map(|two| (two[0], two[1]));
        let counts = batches.filter(|(from, until)| others().all(|other| ran(other, *from, *until)));
        let mut counted: Vec<f64> = counts.map(|(from, until)| until - from).collect();
        (counted.len() >= BATCHES / 4).then(|| median(&mut counted) / f64::from(PICKS))
    };
    let figures: Option<Vec<f64>> = (0..threads.len()).map(of_thread).collect();
    figures.map(|figures| figures.iter().sum::<f64>() / figures.len() as f64)
}

/// Of some values, at least one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
