//! From the death of a backend to the last request that fails of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::kills::{Asker, End, Finally};
use crate::support::l4lb::command;
use crate::support::programs::{Program, backend};
use crate::support::{L4lb, PATIENCE, Setup, note};

/// How long a backend may be silent before a request has failed.
const RESPONSE: Duration = Duration::from_secs(1);

/// What a backend dies of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// It is killed: the kernel refuses connections.
    Killed,
    /// It hangs: the kernel accepts connections, and nobody answers.
    Hung,
}

/// What came of one death.
struct Trial {
    failed: usize,
    /// When the last failure was seen by its client, after the death.
    last: Option<Duration>,
    /// When the health check had found out.
    verdict: Duration,
}

/// One of three backends dies under the requests of eight clients.
fn one_dies(death: Death, retries: u32, interval: Duration) -> Trial {
    let mut backends = [backend(), backend(), backend()];
    let setup = Setup { protocol: "http", ..Setup::new() }
        .pool(&format!("retries = {retries}\nresponse_timeout = \"{}s\"", RESPONSE.as_secs()));
    let toml = backends.iter().fold(setup, |setup, backend| setup.backend(backend.addr)).toml();
    let check = format!("{{ kind = \"http\", path = \"/health\", interval = \"{}ms\" }}", interval.as_millis());
    let lb = L4lb::start(command(&[]), &toml.replace("{ kind = \"none\" }", &check));
    let (over, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let (died, verdict) = thread::scope(|scope| {
        let _over = Finally(&over);
        for _ in 0..8 {
            scope.spawn(|| {
                let mut asker = Asker::new(lb.addr());
                while !over.load(Ordering::SeqCst) {
                    let end = asker.ask("/");
                    if end != End::Served {
                        failures.lock().expect("never poisoned").push(Instant::now());
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        // Let all three be in use, and the phase of the checks be any.
        thread::sleep(Duration::from_millis(500) + interval.mul_f64(fastrand::f64()));
        let victim: &mut Program = &mut backends[0];
        let died = Instant::now();
        match death {
            Death::Killed => victim.kill(),
            Death::Hung => victim.signal(Signal::SIGSTOP),
        }
        let name = format!("backend {} is down", victim.addr);
        lb.wait_for_log("the backend is down", |line| line.contains(&name));
        let verdict = died.elapsed();
        // Those who had come to it before may still wait; and nobody else is to fail in this time.
        thread::sleep(RESPONSE + Duration::from_secs(2));
        (died, verdict)
    });
    let failures = failures.into_inner().expect("never poisoned");
    let last = failures.iter().max().map(|at| at.saturating_duration_since(died));
    Trial { failed: failures.len(), last, verdict }
}

/// `n` trials, three at a time.
fn trials(death: Death, retries: u32, interval: Duration, n: usize) -> Vec<Trial> {
    let many = |_| {
        thread::scope(|scope| {
            let running: Vec<_> = (0..3).map(|_| scope.spawn(|| one_dies(death, retries, interval))).collect();
            running.into_iter().map(|trial| trial.join().expect("a trial comes to its end")).collect::<Vec<_>>()
        })
    };
    (0..n.div_ceil(3)).flat_map(many).collect()
}

/// The median and the most, in seconds.
fn middle_and_most(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.last() {
        Some(most) => format!("{:.2} ({most:.2})", values[values.len() / 2]),
        None => "-".into(),
    }
}

#[test]
fn after_the_verdict_nobody_fails_and_with_a_retry_nobody_fails_of_a_kill() {
    // the time that a failure may take to be seen by its client, on a machine that is busy
    let slack = PATIENCE / 15;
    let show = |death, retries| {
        let Trial { failed, last, verdict } = one_dies(death, retries, Duration::from_millis(200));
        let why = format!("{death:?}, retries = {retries}: {failed} failed, the last after {last:?}; {verdict:?}");
        let waits = if death == Death::Hung { RESPONSE } else { Duration::ZERO };
        assert!(last.is_none_or(|last| last < verdict + waits + slack), "{why}");
        match (death, retries) {
            (Death::Killed, 0) => assert!((1..=24).contains(&failed), "a crowd each time it is tried: {why}"),
            (Death::Killed, _) => assert_eq!(failed, 0, "{why}"),
            // a request that was sent is not repeated when its answer does not come in time
            (Death::Hung, _) => assert!(failed > 0, "{why}"),
        }
    };
    thread::scope(|scope| {
        for (death, retries) in [(Death::Killed, 0), (Death::Killed, 1), (Death::Hung, 0), (Death::Hung, 1)] {
            scope.spawn(move || show(death, retries));
        }
    });
}

#[test]
#[ignore = "takes four minutes and prints a table; run by name"]
fn failover_time() {
    println!("| a backend | retries | failed requests | last failure after s | found down after s |");
    println!("| --- | --: | --: | --: | --: |");
    for (death, retries) in [(Death::Killed, 0), (Death::Killed, 1), (Death::Hung, 0), (Death::Hung, 1)] {
        let trials = trials(death, retries, Duration::from_secs(2), 21);
        let failed = middle_and_most(trials.iter().map(|trial| trial.failed as f64)).replace(".00", "");
        let last = middle_and_most(trials.iter().filter_map(|trial| trial.last).map(|last| last.as_secs_f64()));
        let verdict = middle_and_most(trials.iter().map(|trial| trial.verdict.as_secs_f64()));
        let name = if death == Death::Killed { "is killed" } else { "hangs" };
        println!("| {name} | {retries} | {failed} | {last} | {verdict} |");
        note(&format!("failover, a backend that {name}, retries = {retries}: last failure {last} s, down {verdict} s"));
    }
}
