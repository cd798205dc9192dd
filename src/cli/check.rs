//! `l4lb check`: every error of a file at once, and nothing started.

use std::path::Path;

use super::args::CheckArgs;
use crate::app::Account;
use crate::base::exit::Exit;
use crate::config::{self, Config, Serves};

/// Loads the file and tells how it is.
pub(super) fn run(args: &CheckArgs) -> Exit {
    match config::load(&args.config) {
        Ok(config) => match Account::of(&config.global) {
            Ok(_) => {
                super::say(&summary(&args.config, &config));
                Exit::Done
            }
            Err(unknown) => {
                eprintln!("{unknown}");
                Exit::Config
            }
        },
        Err(errors) => refuse(&errors),
    }
}

/// Tells what is wrong with a file, each error on a line of its own.
pub(super) fn refuse(errors: &config::Errors) -> Exit {
    eprintln!("{}", errors.to_string().trim_end());
    Exit::Config
}

fn summary(file: &Path, config: &Config) -> String {
    // That of [admin] is no [[listener]].
    let listeners = config.listeners.iter().filter(|listener| listener.serves != Serves::Admin).count();
    let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
    format!(
        "{}: ok: {}, {}, {}\n",
        file.display(),
        count(listeners, "listener"),
        count(config.pools.len(), "pool"),
        count(backends, "backend")
    )
}

/// "1 pool", "0 pools", "3 pools".
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_like_a_sentence() {
        let cases = [(0, "0 pools"), (1, "1 pool"), (2, "2 pools")];
        for (number, expected) in cases {
            assert_eq!(count(number, "pool"), expected);
        }
    }
}
