//! How each algorithm chooses, and what a choice costs: the pickers of the product, fed by a simulation in its own time.
//! docs/algorithms.md holds what it prints and says how to read it.
//!
//! Read `runs.rs` first: it says what is asked. `server.rs` and `simulation.rs` are the world that answers.

mod cost;
mod keys;
mod pools;
mod runs;
mod server;
mod simulation;
mod table;

use clap::{Parser, ValueEnum};
use std::process::ExitCode;

/// Shows how each algorithm chooses, and what a choice costs.
#[derive(Debug, Parser)]
#[command(name = "choosing", bin_name = "cargo bench --bench choosing --")]
struct Args {
    /// Passed by cargo; means nothing.
    #[arg(long, hide = true)]
    bench: bool,

    /// Where chance begins: the same seed gives the same tables, but for the costs.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// A sixth of the time, and figures as coarse as that makes them.
    #[arg(long)]
    quick: bool,

    /// What to show.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "servers,keys,cost")]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Servers that are equal, slow, stalled or failing.
    Servers,
    /// Keys of the hashing algorithms: balance, and what moves.
    Keys,
    /// Nanoseconds a pick.
    Cost,
}

fn main() -> ExitCode {
    if !std::env::args().any(|arg| arg == "--bench") {
        // `cargo test --all-targets` runs benches too, only to see that they start.
        println!("nothing measured; use: cargo bench --bench choosing");
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    for part in &args.only {
        match part {
            Part::Servers => runs::show(args.seed, args.quick),
            Part::Keys => keys::show(args.quick),
            Part::Cost => cost::show(args.quick),
        }
    }
    ExitCode::SUCCESS
}
