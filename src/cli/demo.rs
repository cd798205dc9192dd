//! `l4lb demo`: backends and a balancer in one process, and commands that show what it does.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::args::DemoArgs;
use super::backend::{Faults, Server, Settings, Speaks};
use crate::app::{self, Bound, Options, Stop, ToldBy};
use crate::base::exit::Exit;
use crate::config::{Address, Admin, Backend, Config, Global, HealthCheck, Listener, Pool, Protocol};

const HOST: &str = "127.0.0.1";
const BACKENDS: usize = 3;
const HTTP: &str = "http";
const TCP: &str = "tcp";
const UDP: &str = "udp";

/// Runs the demonstration until a signal, or until its time is over.
pub(super) fn run(args: &DemoArgs) -> Exit {
    let pools = [(HTTP, Speaks::Http), (TCP, Speaks::Tcp), (UDP, Speaks::Udp)];
    let pools = match pools.into_iter().map(|(name, speaks)| pool(name, speaks)).collect() {
        Ok(pools) => pools,
        Err(error) => return super::cannot_bind(format_args!("a port of {HOST}"), &error),
    };
    let port = |after: u16| if args.port == 0 { 0 } else { args.port + after };
    let config = Config {
        // The drain is short: nobody should wait half a minute for a connection left open in another terminal.
        global: Global {
            log_level: log::LevelFilter::Warn,
            shutdown_timeout: Duration::from_secs(1),
            ..Global::default()
        },
        admin: Admin::default(),
        listeners: vec![
            listener(HTTP, Protocol::Http, port(0), 0),
            listener(TCP, Protocol::Tcp, port(1), 1),
            listener(UDP, Protocol::Udp, port(2), 2),
        ],
        pools,
    };
    let (stop, duration) = (Stop::new(), args.duration);
    let ending = stop.clone();
    let backends = backends(&config);
    let ready = move |bound: &[Bound]| {
        let curl = curl(|name| std::env::var(name).ok());
        super::say(&instructions(bound, &backends, &curl, duration));
        if let Some(duration) = duration {
            thread::spawn(move || {
                thread::sleep(duration);
                ending.stop();
            });
        }
    };
    app::run(
        config,
        Options { told_by: ToldBy::Port, stop: Some(stop), ready: Some(Box::new(ready)), ..Options::default() },
    )
}

/// Three backends, bound and serving.
fn pool(name: &str, speaks: Speaks) -> io::Result<Pool> {
    let mut pool = Pool::new(name);
    if speaks == Speaks::Udp {
        pool.health_check = HealthCheck::none();
    }
    for number in 1..=BACKENDS {
        let id = format!("backend{number}");
        let server = Server::bind(speaks, HOST, 0)?;
        let address = Address::Ip(server.address());
        server.start(Settings { id: id.clone(), delay: Duration::ZERO, faults: Faults::new(0.0) })?;
        pool.backends.push(Backend::new(id, address));
    }
    Ok(pool)
}

fn listener(name: &str, protocol: Protocol, port: u16, pool: usize) -> Listener {
    Listener {
        binds: vec![Address::Ip(SocketAddr::from(([127, 0, 0, 1], port)))],
        pool: Some(pool),
        ..Listener::new(name, protocol)
    }
}

/// "backend1 127.0.0.1:40001, backend2 …" for each pool.
fn backends(config: &Config) -> Vec<String> {
    let line = |backend: &Backend| format!("{} {}", backend.id, backend.address);
    config.pools.iter().map(|pool| pool.backends.iter().map(line).collect::<Vec<_>>().join(", ")).collect()
}

/// How to call curl here: where a proxy is set it must not be asked for loopback addresses.
fn curl(variable: impl Fn(&str) -> Option<String>) -> String {
    let proxied =
        ["http_proxy", "all_proxy", "ALL_PROXY"].iter().any(|name| variable(name).is_some_and(|it| !it.is_empty()));
    if proxied { "curl -s --noproxy '*'".to_owned() } else { "curl -s".to_owned() }
}

/// The text on standard output. Every line that begins with four spaces is a command for bash.
fn instructions(bound: &[Bound], backends: &[String], curl: &str, duration: Option<Duration>) -> String {
    let at = |name: &str| bound.iter().find(|it| it.listener == name).map(|it| it.address);
    let (Some(http), Some(tcp), Some(udp)) = (at(HTTP), at(TCP), at(UDP)) else {
        return String::new();
    };
    let ask = |by: &str, at: SocketAddr| {
        let (host, port) = (at.ip(), at.port());
        format!("bash -c '{{ echo hello >&3; timeout 5 head -1 <&3; }} 3<>/dev/{by}/{host}/{port}'")
    };
    let end = match duration {
        None => "Ctrl-C ends it.".to_owned(),
        Some(duration) => format!("It ends in {}, or with Ctrl-C.", humantime::format_duration(duration)),
    };
    format!(
        "\
l4lb is running, with three backends behind each port.
  HTTP  http://{http}  over {http_backends}
  TCP   {tcp}  over {tcp_backends}
  UDP   {udp}  over {udp_backends}

Each HTTP request, each TCP connection and each UDP session (what comes from one port of a client) goes to the next
backend, which tells its name. Try, in another terminal:

    {curl} http://{http}/
    for i in 1 2 3; do {curl} http://{http}/; done
    {curl} -d 'some data' http://{http}/any/path
    {curl} http://{http}/health
    {tcp_once}
    for i in 1 2 3; do {tcp_once}; done
    {udp_once}
    for i in 1 2 3; do {udp_once}; done

{end}
",
        http_backends = backends.first().map_or("", String::as_str),
        tcp_backends = backends.get(1).map_or("", String::as_str),
        udp_backends = backends.get(2).map_or("", String::as_str),
        tcp_once = ask(TCP, tcp),
        udp_once = ask(UDP, udp),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_not_asked_for_loopback() {
        let cases = [
            ("none set", &[][..], "curl -s"),
            ("set to nothing", &[("http_proxy", "")][..], "curl -s"),
            ("for http", &[("http_proxy", "http://p:1")][..], "curl -s --noproxy '*'"),
            ("for everything", &[("ALL_PROXY", "http://p:1")][..], "curl -s --noproxy '*'"),
            ("curl does not heed this one for http", &[("HTTP_PROXY", "http://p:1")][..], "curl -s"),
        ];
        for (why, variables, expected) in cases {
            let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, it)| (*it).to_owned());
            assert_eq!(curl(variable), expected, "{why}");
        }
    }
}
