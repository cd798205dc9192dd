//! What the tests share: starting l4lb and the programs around it, backends that run in the test, clients,
//! and looking at a process from outside.
//!
//! Everything here waits for a condition with a bound, ends what it started by process id, and leaves
//! nothing behind, also when a test fails.

pub mod client;
pub mod http;
pub mod l4lb;
pub mod line;
pub mod load;
pub mod pattern;
pub mod ports;
pub mod proc;
pub mod programs;
pub mod server;
pub mod udp;

use std::io::Write;
use std::sync::Once;
use std::time::{Duration, Instant};

pub use client::{Client, Ending, closed_without_data, connect, exchange};
pub use l4lb::{L4lb, Setup};
pub use pattern::Pattern;
pub use server::Server;

/// How long anything that must happen may take. Far above what it takes, so that a loaded machine passes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done` says so; fails with `what` when it takes longer than [`PATIENCE`].
pub fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(poll_until(done), "waited {PATIENCE:?} in vain until {what}");
}

/// Waits until `done` says so; false when it takes longer than [`PATIENCE`].
fn poll_until(mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > PATIENCE {
            return false;
        }
        pause();
    }
    true
}

/// Waits until `value` has stayed the same for `calm`, and returns it.
pub fn wait_until_still<T: PartialEq>(what: &str, calm: Duration, mut value: impl FnMut() -> T) -> T {
    let started = Instant::now();
    let (mut last, mut since) = (value(), Instant::now());
    while since.elapsed() < calm {
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        pause();
        let now = value();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// The breath between two looks at a condition that has no event of its own.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Raises the soft limit of descriptors to the hard one, once, for this process and those it starts.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit can be read");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("soft may be raised to hard");
    });
}

/// Tells `scripts/test` something worth a line in its summary: a figure, or what this machine cannot show.
pub fn note(line: &str) {
    eprintln!("note: {line}");
    if let Some(path) = std::env::var_os("L4LB_TEST_NOTES") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}")).expect("the notes can be written");
    }
}
