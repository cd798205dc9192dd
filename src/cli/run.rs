//! `l4lb -c FILE` and `l4lb --port …`: a configuration from a file or from flags, handed to `app`.

use std::net::{IpAddr, SocketAddr};

use super::args::{Protocol, RunArgs};
use super::check;
use crate::app::{self, Bound, Options};
use crate::base::exit::Exit;
use crate::config::{self, Address, Algorithm, Backend, Config, Global, Listener, Pool, SocketOptions};

/// The name of the one listener and the one pool of a run without a file.
const NAME: &str = "main";

const NOTHING_TO_DO: &str = "\
nothing to run: name a configuration file, or a port and its backends
  l4lb -c config/lb.toml
  l4lb --protocol tcp --port 8080 --backend 127.0.0.1:8001 --backend 127.0.0.1:8002
  l4lb demo        shows it at work, with backends of its own";

/// Runs the balancer until a signal ends it.
pub(super) fn run(args: &RunArgs) -> Exit {
    let config = match (&args.config, args.port) {
        (Some(file), _) => match config::load(file) {
            Ok(config) => config,
            Err(errors) => return check::refuse(&errors),
        },
        (None, Some(port)) => match from_flags(args, port) {
            Ok(config) => config,
            Err(message) => return super::usage(message),
        },
        (None, None) => return super::usage(NOTHING_TO_DO),
    };
    app::run(config, Options { debug: args.debug, stop: None, ready: Some(Box::new(announce)) })
}

/// One line for each address, on standard output: whoever asked for port 0 reads the true one here.
fn announce(bound: &[Bound]) {
    for Bound { listener, address } in bound {
        super::say(&format!("{listener} listening on {address}\n"));
    }
}

/// The configuration that the flags mean, or what is wrong with them.
fn from_flags(args: &RunArgs, port: u16) -> Result<Config, String> {
    match args.protocol {
        Protocol::Tcp => {}
        Protocol::Http => {
            return Err(
                "http is not supported yet, and it is the default; add `--protocol tcp` to forward bytes".into()
            );
        }
        Protocol::Udp => return Err("udp is not supported yet; use `--protocol tcp`".into()),
    }
    if args.backends.is_empty() {
        return Err("there is no backend; add `--backend HOST:PORT`, once for each server".into());
    }
    let algorithm = algorithm(&args.algorithm)?;
    let bind = bind(&args.host, port)?;
    let mut backends: Vec<Backend> = Vec::new();
    for typed in &args.backends {
        let address = Address::backend(typed).map_err(|error| format!("--backend: {error}"))?;
        if backends.iter().any(|other| other.address == address) {
            return Err(format!("--backend {typed} is given twice; leave one out"));
        }
        let id = typed.clone();
        backends.push(Backend { id, address, weight: 1, max_connections: 0, backup: false, disabled: false });
    }
    let listener = Listener {
        name: NAME.to_owned(),
        binds: vec![bind],
        protocol: config::Protocol::Tcp,
        pool: 0,
        idle_timeout: Listener::TCP_IDLE,
        max_connections: 0,
        socket: SocketOptions::default(),
    };
    let pool = Pool { algorithm, backends, ..Pool::new(NAME) };
    Ok(Config { global: Global::default(), listeners: vec![listener], pools: vec![pool] })
}

/// Where to listen: `--host` is an IPv4 or IPv6 address, in brackets or without, or a name.
fn bind(host: &str, port: u16) -> Result<Address, String> {
    if let Ok(ip) = super::without_brackets(host).parse::<IpAddr>() {
        return Ok(Address::Ip(SocketAddr::new(ip, port)));
    }
    if host.contains(':') {
        return Err(format!("--host: {host:?} is no address; write it without a port, which --port tells"));
    }
    format!("{host}:{port}").parse().map_err(|error| format!("--host: {error}"))
}

fn algorithm(typed: &str) -> Result<Algorithm, String> {
    /// Of the contract, and of a later version.
    const LATER: [&str; 6] =
        ["ip_hash", "least_connections", "consistent_hash", "fastest_response", "maglev", "random_two"];
    match typed {
        "round_robin" => Ok(Algorithm::RoundRobin),
        "weighted_round_robin" => Ok(Algorithm::WeightedRoundRobin),
        later if LATER.contains(&later) => {
            Err(format!("--algorithm {later} is not supported yet; use round_robin or weighted_round_robin"))
        }
        unknown => Err(format!("there is no --algorithm {unknown:?}; use round_robin or weighted_round_robin")),
    }
}
