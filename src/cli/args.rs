//! The command line as typed: the one table behind the parser, `--help`, the completions and (by a test) l4lb(1).

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Algorithm, read_duration};

const USAGE: &str = "\
l4lb -c FILE [--debug]
       l4lb --port PORT --backend HOST:PORT... [OPTIONS]
       l4lb COMMAND [OPTIONS]";

const EXAMPLES: &str = "\
Examples:
  l4lb demo                                see it work: backends, a balancer and commands to try
  l4lb check -c config/lb.toml             find every mistake in a file
  l4lb -c config/lb.toml                   run from a file
  l4lb --protocol tcp --port 6379 --backend 10.0.0.1:6379 --backend 10.0.0.2:6379
                                           run without a file

Exit codes: 0 done, 1 the configuration is wrong, 2 usage, 3 an address cannot be bound.
SIGTERM and SIGINT drain and exit 0; a second one exits at once. More in l4lb(1) and l4lb.toml(5).";

/// A load balancer for TCP, UDP and HTTP.
///
/// Spreads TCP connections, UDP sessions and HTTP requests over backends.
#[derive(Debug, Parser)]
#[command(
    name = "l4lb",
    version,
    override_usage = USAGE,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// `l4lb -c FILE`, or `l4lb --port …`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Run from this file (TOML, see l4lb.toml(5))
    #[arg(short = 'c', long, value_name = "FILE", conflicts_with_all = ["port", "backends", "host", "protocol", "algorithm"])]
    pub(super) config: Option<PathBuf>,
    /// Run without a file: listen on this port; 0 lets the system choose
    #[arg(long, value_name = "PORT")]
    pub(super) port: Option<u16>,
    /// A server to send clients to; give it once for each server
    #[arg(long = "backend", value_name = "HOST:PORT", requires = "port")]
    pub(super) backends: Vec<String>,
    /// Listen on this address or name
    #[arg(long, value_name = "HOST", default_value = "0.0.0.0", requires = "port")]
    pub(super) host: String,
    /// What is spoken on the port
    ///
    /// With tcp, bytes are forwarded as they are; with udp, datagrams, those of one client to one backend.
    #[arg(long, value_name = "PROTOCOL", default_value = "http", requires = "port")]
    pub(super) protocol: Protocol,
    /// How a backend is picked; l4lb.toml(5) tells what each does
    ///
    /// Without a file all weights are 1, so the first two pick alike. What consistent_hash looks at is the path and the
    /// query of a request for http, and the address of the client for tcp.
    #[arg(
        long, value_name = "ALGORITHM", default_value = "round_robin", requires = "port",
        value_parser = PossibleValuesParser::new(Algorithm::NAMES)
    )]
    pub(super) algorithm: String,
    /// Log at level debug, whatever the file says
    #[arg(long)]
    pub(super) debug: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a configuration file and tell every error in it
    ///
    /// Each error is a line on standard error: file:line:column: key: what is wrong; how to mend it. Exits with 0 when
    /// there is none, else with 1. Nothing is bound or started.
    Check(CheckArgs),
    /// Start backends and a balancer over them, and print commands to try
    ///
    /// Three backends each for HTTP, TCP and UDP run inside this process on loopback ports that the system chooses. The
    /// balancer listens on 127.0.0.1: on PORT for the HTTP backends, on PORT+1 for TCP and on PORT+2 for UDP.
    Demo(DemoArgs),
    /// Run the example backend
    ///
    /// HTTP: answers with JSON that names the backend and repeats the request; GET /health tells that it is healthy.
    /// TCP: sends every byte back as it comes, each line begun with the backend's id and a colon. UDP: sends every
    /// datagram back, begun in the same way. SIGTERM and SIGINT end it.
    Backend(BackendArgs),
    /// Print the completion script of a shell
    ///
    /// For bash, now: source <(l4lb completions bash). To keep it, write the output where the shell looks for it.
    Completions(CompletionsArgs),
}

/// `l4lb check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file to check
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

/// `l4lb demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Listen on this port for HTTP and on the next two for TCP and UDP; 0 lets the system choose all
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(0..=65533))]
    pub(super) port: u16,
    /// End after this time, such as 10s or 2m [default: run until Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = read_duration)]
    pub(super) duration: Option<Duration>,
}

/// `l4lb backend`.
#[derive(Debug, Args)]
pub(super) struct BackendArgs {
    /// Listen on this port; 0 lets the system choose
    #[arg(long, value_name = "PORT")]
    pub(super) port: u16,
    /// The name in every answer [default: backend-PORT]
    ///
    /// 1 to 64 printable characters. PORT is the true port, also with `--port 0`.
    #[arg(long, value_name = "ID", value_parser = id)]
    pub(super) id: Option<String>,
    /// Listen on this address or name
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub(super) host: String,
    /// What to speak
    #[arg(long, value_name = "PROTOCOL", default_value = "http")]
    pub(super) protocol: Protocol,
    /// Wait this long before each answer, such as 5ms
    ///
    /// With tcp: before each line; with udp: before each datagram.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = read_duration)]
    pub(super) delay: Duration,
    /// The share of answers that fail, 0 to 1
    ///
    /// Evenly spread: 0.1 is every tenth. With http a failure is status 500, never for /health; with tcp the connection
    /// is cut instead of a line answered; with udp a datagram is not answered.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub(super) error_rate: f64,
}

/// `l4lb completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(super) shell: Shell,
}

/// What can be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    Http,
    Tcp,
    Udp,
}

/// The shells that completions are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// A share of answers: a number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a number from 0 to 1, such as 0.1 for every tenth".to_owned()),
    }
}

/// A name that fits on a line of its own.
fn id(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=64 if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => Err("write 1 to 64 printable characters".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn values_are_in_range_once_parsed() {
        let cases: &[(&str, &[&str], bool)] = &[
            ("a demo needs the next two ports", &["demo", "--port", "65534"], false),
            ("the last three ports", &["demo", "--port", "65533"], true),
            ("a time needs its unit", &["demo", "--duration", "10"], false),
            ("a month is no minute", &["demo", "--duration", "10M"], false),
            ("a time with its unit", &["demo", "--duration", "10s"], true),
            ("more than every answer", &["backend", "--port", "1", "--error-rate", "1.1"], false),
            ("less than none", &["backend", "--port", "1", "--error-rate=-0.1"], false),
            ("no number at all", &["backend", "--port", "1", "--error-rate", "NaN"], false),
            ("every answer", &["backend", "--port", "1", "--error-rate", "1"], true),
            ("an id is one line", &["backend", "--port", "1", "--id", "a\nb"], false),
            ("an id names something", &["backend", "--port", "1", "--id", ""], false),
            ("a port has 16 bits", &["backend", "--port", "65536"], false),
            ("a backend needs a port", &["backend"], false),
            ("a check needs a file", &["check"], false),
            ("a shell that we do not know", &["completions", "tcsh"], false),
            ("the administration is not due", &["ctl", "stats"], false),
            ("a file and flags", &["-c", "lb.toml", "--port", "80"], false),
            ("a file and a backend", &["-c", "lb.toml", "--backend", "a:1"], false),
            ("a file and a protocol", &["-c", "lb.toml", "--protocol", "tcp"], false),
            ("a file and debug", &["-c", "lb.toml", "--debug"], true),
            ("backends without a port to serve them on", &["--backend", "a:1"], false),
            ("a host without a port", &["--host", "::1"], false),
            ("a file for the run and a command", &["-c", "lb.toml", "demo"], false),
        ];
        for (why, args, good) in cases {
            let parsed = Cli::try_parse_from(std::iter::once(&"l4lb").chain(*args));
            assert_eq!(parsed.is_ok(), *good, "{why}: {parsed:?}");
        }
    }
}
