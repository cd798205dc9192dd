//! The command line: arguments in, an exit code out, and the small programs behind the subcommands.
//!
//! Knows: how a user types (`args`), how a configuration is loaded, how `app` is started. Must not touch: how
//! traffic is balanced. What is typed wrong ends here with code 2 and a hint; `app` sees only a checked configuration.

mod args;
mod backend;
mod check;
mod demo;
mod run;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use self::args::{Cli, Command, Shell};
use crate::base::exit::Exit;

/// Runs the program with these arguments, the first being its own name, and tells how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of the parser too, on standard output and with code 0.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    match cli.command {
        None => run::run(&cli.run),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::Backend(args)) => backend::run(&args),
        Some(Command::Completions(args)) => completions(args.shell),
    }
}

/// The definitions behind the parser, for whoever compares or renders them.
pub fn command() -> clap::Command {
    Cli::command()
}

fn completions(shell: Shell) -> Exit {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "l4lb", &mut script);
    say(&String::from_utf8_lossy(&script));
    Exit::Done
}

/// Tells a mistake in the arguments that the parser alone could not see.
fn usage(message: impl std::fmt::Display) -> Exit {
    let _ = command().error(ErrorKind::ValueValidation, message).print();
    Exit::Usage
}

/// Tells that an address cannot be listened on, and why.
fn cannot_bind(address: impl std::fmt::Display, error: &io::Error) -> Exit {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what listens there, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; it is no address of this machine",
        _ => "",
    };
    eprintln!("l4lb: cannot listen on {address}: {error}{advice}");
    Exit::Bind
}

/// Writes to standard output at once. A reader that has left (`| head -1`) is no reason to fail.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("l4lb: cannot write to standard output: {error}");
    }
}

/// "::1" for "[::1]", which some like to type; anything else as it is.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
