//! `l4lb -c FILE` and `l4lb --port …`: a configuration from a file or from flags, handed to `app`.

use std::net::{IpAddr, SocketAddr};

use super::args::{Protocol, RunArgs};
use super::check;
use crate::app::{self, Bound, Options, ToldBy};
use crate::base::exit::Exit;
use crate::base::machine::own_addresses;
use crate::config::{
    self, Address, Admin, Algorithm, Backend, Config, Global, HashKey, HealthCheck, Listener, Pool, Serves,
};

/// The name of the one listener and the one pool of a run without a file.
const NAME: &str = "main";

const NOTHING_TO_DO: &str = "\
nothing to run: name a configuration file, or a port and its backends
  l4lb -c config/lb.toml
  l4lb --port 8080 --backend 127.0.0.1:8001 --backend 127.0.0.1:8002
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
    let told_by = if args.config.is_some() { ToldBy::File } else { ToldBy::HostAndPort };
    let (debug, file) = (args.debug, args.config.clone());
    let ready: app::Ready = Box::new(announce);
    app::run(config, Options { debug, file, told_by, upgradable: true, stop: None, ready: Some(ready) })
}

/// One line for each address, on standard output: whoever asked for port 0 reads the true one here.
fn announce(bound: &[Bound]) {
    for Bound { listener, address, .. } in bound {
        super::say(&format!("{listener} listening on {address}\n"));
    }
}

/// The configuration that the flags mean, or what is wrong with them.
fn from_flags(args: &RunArgs, port: u16) -> Result<Config, String> {
    let protocol = match args.protocol {
        Protocol::Tcp => config::Protocol::Tcp,
        Protocol::Http => config::Protocol::Http,
        Protocol::Udp => config::Protocol::Udp,
    };
    if args.backends.is_empty() && protocol != config::Protocol::Http {
        return Err("there is no backend; add `--backend HOST:PORT`, once for each server".into());
    }
    let algorithm = Algorithm::named(&args.algorithm)
        .ok_or_else(|| format!("there is no --algorithm {:?}; use round_robin", args.algorithm))?;
    let bind = bind(&args.host, port)?;
    let own = own_addresses();
    let mut backends: Vec<Backend> = Vec::new();
    for typed in &args.backends {
        let address = Address::backend(typed).map_err(|error| format!("--backend: {error}"))?;
        if address.reaches(&bind, false, &own) {
            return Err(format!("--backend {typed} is where l4lb itself would listen; write the port of a server"));
        }
        if backends.iter().any(|other| other.address.canonical() == address.canonical()) {
            return Err(format!("--backend {typed} is given twice; leave one out"));
        }
        backends.push(Backend::new(typed, address));
    }
    let serves = if protocol == config::Protocol::Http { Serves::Both } else { Serves::Traffic };
    let listener = Listener { binds: vec![bind], pool: Some(0), serves, ..Listener::new(NAME, protocol) };
    let hash_key = HashKey::usual(algorithm, protocol == config::Protocol::Http);
    let mut pool = Pool { algorithm, hash_key, backends, ..Pool::new(NAME) };
    if protocol == config::Protocol::Udp {
        pool.health_check = HealthCheck::none();
    }
    Ok(Config { global: Global::default(), admin: Admin::default(), listeners: vec![listener], pools: vec![pool] })
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::Cli;
    use super::*;

    fn from(line: &str) -> Result<Config, String> {
        let cli = Cli::try_parse_from(std::iter::once("l4lb").chain(line.split(' '))).expect(line);
        from_flags(&cli.run, cli.run.port.expect(line))
    }

    #[test]
    fn flags_mean_the_same_as_a_file() {
        for protocol in ["tcp", "udp"] {
            let file = r#"
            listener = [{ name = "main", bind = "[::1]:80", protocol = "PROTOCOL", pool = "main" }]
            [[pool]]
            name = "main"
            algorithm = "weighted_round_robin"
            backend = [{ address = "a:1" }, { address = "[::1]:81" }]
        "#;
            let flags = "--protocol PROTOCOL --host ::1 --port 80 --backend a:1 --backend [::1]:81 --algorithm weighted_round_robin";
            let [file, flags] = [file, flags].map(|text| text.replace("PROTOCOL", protocol));
            assert_eq!(from(&flags).unwrap(), config::parse(&file, "lb.toml").unwrap());
        }
    }

    #[test]
    fn http_is_spoken_where_nothing_else_is_asked_for() {
        let config = from("--port 80 --backend a:1").unwrap();
        assert_eq!(config.listeners[0].protocol, config::Protocol::Http);
        assert_eq!(config.listeners[0].serves, Serves::Both);
        assert!(from("--port 80").unwrap().pools[0].backends.is_empty(), "they may come later");
    }

    #[test]
    fn flags_without_a_host_listen_everywhere() {
        let config = from("--protocol tcp --port 0 --backend a:1").unwrap();
        assert_eq!(config.listeners[0].binds, ["0.0.0.0:0".parse().unwrap()]);
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        let cases = [
            ("IPv4", "127.0.0.1", Some("127.0.0.1:80")),
            ("IPv6", "::1", Some("[::1]:80")),
            ("IPv6 as in a URL", "[::1]", Some("[::1]:80")),
            ("a name", "localhost", Some("localhost:80")),
            ("with a port", "localhost:81", None),
            ("nearly IPv4", "127.1", None),
            ("nothing", "", None),
        ];
        for (why, host, expected) in cases {
            let got = bind(host, 80).map(|address| address.to_string());
            assert_eq!(got.as_deref().ok(), expected, "{why}: {got:?}");
        }
    }

    #[test]
    fn flags_that_cannot_be_meant_are_told_with_a_way_out() {
        let cases = [
            ("no backend", "--port 80 --protocol tcp", "add `--backend HOST:PORT`"),
            ("no port", "--port 80 --protocol tcp --backend a", "has no port"),
            ("nothing connects to port 0", "--port 80 --protocol tcp --backend a:0", "port 0"),
            ("twice", "--port 80 --protocol tcp --backend a:1 --backend a:1", "given twice"),
            ("twice, spelled apart", "--port 80 --protocol tcp --backend a:1 --backend A.:1", "given twice"),
            ("ourselves", "--port 80 --protocol tcp --backend 127.0.0.1:80", "itself would listen"),
            ("a bad host", "--port 80 --protocol tcp --backend a:1 --host a:b", "without a port"),
        ];
        for (why, line, part) in cases {
            let message = from(line).expect_err(why);
            assert!(message.contains(part), "{why}: {message}");
        }
    }

    #[test]
    fn every_algorithm_means_the_same_as_in_a_file() {
        for algorithm in Algorithm::NAMES {
            for (protocol, admin) in [("http", ", admin = true"), ("tcp", "")] {
                let file = format!(
                    "listener = [{{ name = 'main', bind = '0.0.0.0:80', protocol = '{protocol}', pool = 'main'{admin} }}]\n\
                     pool = [{{ name = 'main', algorithm = '{algorithm}', backend = [{{ address = 'a:1' }}] }}]\n"
                );
                let flags = format!("--port 80 --backend a:1 --protocol {protocol} --algorithm {algorithm}");
                assert_eq!(from(&flags).unwrap(), config::parse(&file, "lb.toml").unwrap(), "{flags}");
            }
        }
    }
}
