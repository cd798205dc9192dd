//! The load harness: l4lb and its peers measured side by side in one interleaved run, or plain HTTP load on one
//! address. docs/performance.md says how to use it and how to read what it prints.
//!
//! Read `run.rs` first: it says in which order things happen. `role.rs` is the process that makes the load.

mod args;
mod backend;
mod batch;
mod bulk;
mod client;
mod datagram;
mod echo;
mod figures;
mod flows;
mod http;
mod measure;
mod netns;
mod party;
mod progress;
mod report;
mod role;
mod rows;
mod run;
mod site;
mod syscalls;
mod talk;
mod url;
mod window;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use netns::{INSIDE, Interrupt, Place};
use role::LOAD;

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = given.iter().map(String::as_str).collect();
    match words[..] {
        [LOAD, ..] => told(role::run(&given[1..])),
        [INSIDE, namespace, ..] => match Place::namespace(namespace) {
            Ok(place) => compare(&parse(&given[2..]), &place),
            Err(why) => told(Err(why)),
        },
        _ if !words.contains(&"--bench") => {
            // `cargo test --all-targets` runs benches too, only to see that they start.
            println!("nothing measured; use: cargo bench --bench load -- --help");
            ExitCode::SUCCESS
        }
        _ => {
            let args = parse(&given);
            match &args.url {
                Some(url) => url::run(url, &args),
                None => netns::supervise(&given, |place| compare(&args, &place)),
            }
        }
    }
}

fn parse(given: &[String]) -> Args {
    Args::parse_from(std::iter::once("load").chain(given.iter().map(String::as_str)))
}

fn compare(args: &Args, place: &Place) -> ExitCode {
    let findings = match Interrupt::watch().and_then(|interrupt| run::run(args, place, &interrupt)) {
        Ok(findings) => findings,
        Err(why) => return told(Err(why)),
    };
    if findings.rows.is_empty() {
        return told(Err(format!("nobody could be measured: {}", findings.left_out.join("; "))));
    }
    print!("{}", report::text(args, place, &findings));
    let written = args.json.as_ref().map_or(Ok(()), |path| report::write_json(path, args, place, &findings));
    if let Err(why) = written {
        return told(Err(why));
    }
    if findings.l4lb_failed {
        return told(Err("l4lb was asked for and could not be measured".to_owned()));
    }
    ExitCode::SUCCESS
}

fn told(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nload: {why}");
            ExitCode::FAILURE
        }
    }
}
