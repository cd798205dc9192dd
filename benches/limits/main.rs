//! What limits by rate cost: nanoseconds to ask one, by one thread and by two, and the memory of a million keys.
//! docs/algorithms.md holds what it prints.

mod cost;
mod memory;

use clap::{Parser, ValueEnum};
use l4lb::guard::RateRule;
use std::process::ExitCode;
use std::time::Duration;

/// Shows what limits by rate cost.
#[derive(Debug, Parser)]
#[command(name = "limits", bin_name = "cargo bench --bench limits --")]
struct Args {
    /// Passed by cargo; means nothing.
    #[arg(long, hide = true)]
    bench: bool,

    /// A fifth of the rounds.
    #[arg(long)]
    quick: bool,

    /// One row of the table of memory, which is a process of its own.
    #[arg(long, hide = true)]
    row: Option<String>,

    /// What to show.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory,cost")]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bytes a key.
    Memory,
    /// Nanoseconds to ask.
    Cost,
}

/// The limits that are shown, each so that it lets everybody in who comes every other microsecond.
fn rules() -> [(&'static str, RateRule); 3] {
    [
        ("token_bucket", RateRule::TokenBucket { capacity: 1_000_000, refill: 1e6 }),
        ("sliding_window", RateRule::SlidingWindow { max: 10_000, window: Duration::from_millis(1) }),
        ("leaky_bucket", RateRule::LeakyBucket { capacity: 1_000_000, leak: 1e6 }),
    ]
}

fn main() -> ExitCode {
    if !std::env::args().any(|arg| arg == "--bench") {
        // `cargo test --all-targets` runs benches too, only to see that they start.
        println!("nothing measured; use: cargo bench --bench limits");
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    if let Some(row) = &args.row {
        memory::show_row(row);
        return ExitCode::SUCCESS;
    }
    for part in &args.only {
        match part {
            Part::Memory => memory::show(),
            Part::Cost => cost::show(if args.quick { 40 } else { 200 }),
        }
    }
    ExitCode::SUCCESS
}
