//! `l4lb demo`: backends and a balancer in one process, and commands that show what it does.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::args::DemoArgs;
use super::backend::{Faults, Server, Settings, Speaks};
use crate::app::{self, Bound, Options, Stop, ToldBy};
use crate::base::exit::Exit;
use crate::config::{Address, Backend, Config, Global, Listener, Pool, Protocol};

const HOST: &str = "127.0.0.1";
const BACKENDS: usize = 3;
const HTTP: &str = "http";
const TCP: &str = "tcp";

/// Runs the demonstration until a signal, or until its time is over.
pub(super) fn run(args: &DemoArgs) -> Exit {
    let pools = match [(HTTP, Speaks::Http), (TCP, Speaks::Tcp)].map(|(name, speaks)| pool(name, speaks)) {
        [Ok(http), Ok(tcp)] => vec![http, tcp],
        [Err(error), _] | [_, Err(error)] => {
            return super::cannot_bind(format_args!("a port of {HOST}"), &error);
        }
    };
    let tcp_port = if args.port == 0 { 0 } else { args.port + 1 };
    let config = Config {
        // The drain is short: nobody should wait half a minute for a connection left open in another terminal.
        global: Global {
            log_level: log::LevelFilter::Warn,
            shutdown_timeout: Duration::from_secs(1),
            ..Global::default()
        },
        listeners: vec![listener(HTTP, Protocol::Http, args.port, 0), listener(TCP, Protocol::Tcp, tcp_port, 1)],
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
    for number in 1..=BACKENDS {
        let id = format!("backend{number}");
        let server = Server::bind(speaks, HOST, 0)?;
        let address = Address::Ip(server.address());
        server.start(Settings { id: id.clone(), delay: Duration::ZERO, faults: Faults::new(0.0) })?;
        pool.backends.push(Backend { id, address, weight: 1, max_connections: 0, backup: false, disabled: false });
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
    let (Some(http), Some(tcp)) = (at(HTTP), at(TCP)) else {
        return String::new();
    };
    let (tcp_host, tcp_port) = (tcp.ip(), tcp.port());
    let ask = |word: &str| format!("bash -c '{{ echo {word} >&3; head -1 <&3; }} 3<>/dev/tcp/{tcp_host}/{tcp_port}'");
    let end = match duration {
        None => "Ctrl-C ends it.".to_owned(),
        Some(duration) => format!("It ends in {}, or with Ctrl-C.", humantime::format_duration(duration)),
    };
    format!(
        "\
l4lb is running, with three backends behind each port.
  HTTP  http://{http}  over {http_backends}
  TCP   {tcp}  over {tcp_backends}

Each HTTP request, and each TCP connection, goes to the next backend, which tells its name. Try, in another terminal:

    {curl} http://{http}/
    for i in 1 2 3; do {curl} http://{http}/; done
    {curl} -d 'some data' http://{http}/any/path
    {curl} http://{http}/health
    {once}
    for i in 1 2 3; do {each}; done

{end}
",
        http_backends = backends.first().map_or("", String::as_str),
        tcp_backends = backends.get(1).map_or("", String::as_str),
        once = ask("hello"),
        each = ask("hello"),
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
