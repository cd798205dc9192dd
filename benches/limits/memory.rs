//! A million clients, each once, and then as many others when the shares of the first are whole again.

use l4lb::guard::{RateKey, RateLimit, RateRule};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const KEYS: u32 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// What the process has in memory, in bytes (proc(5), statm).
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Prints the table.
pub(crate) fn show() {
    println!("## A million keys\n");
    println!("| limit | keys | MB, by what holds them | MB, resident | bytes a key | keys, a million others later |");
    println!("| --- | --: | --: | --: | --: | --: |");
    for (name, _) in rules() {
        // Each in a process of its own: what one has given back the next would not seem to take.
        let row = || Command::new(std::env::current_exe()?).args(["--bench", "--row", name]).status();
        if let Err(error) = row() {
            println!("{name}: {error}");
        }
    }
    println!();
}

fn rules() -> [(&'static str, RateRule); 3] {
    [
        ("token_bucket", RateRule::TokenBucket { capacity: 10, refill: 1.0 }),
        ("sliding_window", RateRule::SlidingWindow { max: 10, window: Duration::from_secs(10) }),
        ("leaky_bucket", RateRule::LeakyBucket { capacity: 10, leak: 1.0 }),
    ]
}

/// Prints one row.
pub(crate) fn show_row(wanted: &str) {
    rules().into_iter().filter(|(name, _)| *name == wanted).for_each(|(name, rule)| row(name, rule));
}

fn row(name: &str, rule: RateRule) {
    let before = resident();
    let limit = RateLimit::new(rule, true);
    let key = |n: u32| limit.key_of_address(IpAddr::V4(Ipv4Addr::from(n)));
    fill(&limit, key, 0, SECOND);
    let (keys, bytes, resident) = (limit.keys(), limit.bytes(), resident().saturating_sub(before));
    // A minute later nobody of the first million has anything to remember.
    fill(&limit, key, KEYS, 60 * SECOND);
    println!(
        "| {name} | {keys} | {:.1} | {:.1} | {} | {} |",
        bytes as f64 / 1e6,
        resident as f64 / 1e6,
        bytes / keys.max(1),
        limit.keys()
    );
}

/// Asks for each of a million keys once.
fn fill(limit: &Arc<RateLimit>, key: impl Fn(u32) -> RateKey, from: u32, now: u64) {
    for n in from..from + KEYS {
        assert!(limit.take(key(n), now).is_ok(), "each comes once");
    }
}
