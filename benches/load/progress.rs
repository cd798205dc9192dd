//! One line on standard error that says how far the run is.

use std::io::{IsTerminal, Write};

use crate::args::{Args, Kind, Scenario};
use crate::party::Entrant;

/// One line on standard error that says what is being measured.
pub(crate) struct Progress {
    terminal: bool,
    done: u32,
    all: u32,
    line: String,
}

impl Progress {
    pub(crate) fn new(args: &Args, entrants: &[Entrant]) -> Self {
        let windows = |scenario: Scenario| {
            let parties: Vec<&Entrant> =
                entrants.iter().filter(|entrant| entrant.takes_part(scenario.protocol())).collect();
            let proxies = parties.iter().filter(|entrant| entrant.kind != Kind::Direct).count() as u32;
            match scenario.is_idle() {
                true => args.rounds * proxies,
                false => args.rounds * parties.len() as u32 + u32::from(args.syscalls) * proxies,
            }
        };
        let all = args.scenario.iter().copied().map(windows).sum::<u32>() * args.workers.len() as u32;
        Self { terminal: std::io::stderr().is_terminal(), done: 0, all, line: String::new() }
    }

    pub(crate) fn at(&mut self, scenario: Scenario, workers: u16, what: &str, party: Kind) {
        self.done += 1;
        let (done, all) = (self.done, self.all);
        self.line = format!("[{done}/{all}] {}, {workers} worker(s), {what}: {}", scenario.name(), party.name());
        self.show("");
    }

    pub(crate) fn found(&mut self, what: &str) {
        self.show(&format!(": {what}"));
    }

    /// Without a terminal a line is printed once, when its result is there.
    fn show(&self, result: &str) {
        if self.terminal {
            eprint!("\r\x1b[K{}{result}", self.line);
            let _ = std::io::stderr().flush();
        } else if !result.is_empty() {
            eprintln!("{}{result}", self.line);
        }
    }

    pub(crate) fn end(&self) {
        if self.terminal {
            eprintln!("\r\x1b[K");
        }
    }
}
