//! A UDP listener's address, taken, shared with TCP and left; and the process's end.

use std::ffi::OsStr;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::l4lb::{command, run_to_end};
use crate::support::ports::free_port;
use crate::support::udp::{Datagrams, UdpBackend, dial, occupied};
use crate::support::{L4lb, Server, Setup, exchange, server};

/// Runs l4lb with a file of this text, which must end by itself; exit code and standard error.
fn run_with(toml: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lb.toml");
    std::fs::write(&file, toml).expect("ours");
    run_to_end([OsStr::new("-c"), file.as_os_str()])
}

#[test]
fn a_signal_ends_it_soon_though_sessions_exist() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for (why, pool) in [("idle", ""), ("without their reply", "udp_responses = 1"), ("shared", "udp_requests = 1")]
        {
            let backend = UdpBackend::silent();
            let mut lb = Setup::udp(backend.addr).listener("idle_timeout = \"1h\"").pool(pool).start();
            let clients: Vec<_> = (0..10).map(|_| dial(lb.addr())).collect();
            clients.iter().for_each(|client| client.say(b"x"));
            backend.wait_for(10);
            let since = Instant::now();
            lb.signal(signal);
            assert!(lb.wait_for_exit().success(), "{signal}, sessions {why}");
            let took = since.elapsed();
            // shutdown_timeout is five seconds here
            assert!(took < Duration::from_secs(10), "{signal}, sessions {why}: it took {took:?}");
        }
    }
}

#[test]
fn its_address_is_free_again_as_soon_as_it_has_ended() {
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).start();
    let addr = lb.addr();
    let client = dial(addr);
    client.echo(b"before");
    drop(lb);
    let _again = Setup::udp(backend.addr).bind(&format!("\"{addr}\"")).start();
    client.echo(b"after"); // the same client, from the same port
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_the_reason_and_exit_code_3() {
    let (_plain, taken) = occupied(false);
    let (_sharing, shared) = occupied(true);
    let elsewhere: SocketAddr = "192.0.2.1:5353".parse().expect("an address");
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).start();
    let cases = [
        ("another process has it", taken, "in use"),
        ("another process has it and would share", shared, "in use"),
        ("another l4lb has it", lb.addr(), "in use"),
        ("it is no address of this machine", elsewhere, "assign"),
    ];
    for (why, addr, reason) in cases {
        for workers in [1, 2] {
            let setup = Setup::udp("127.0.0.1:9").global(&format!("workers = {workers}"));
            let (code, said) = run_with(&setup.bind(&format!("\"{addr}\"")).toml());
            assert_eq!(code, Some(3), "{why}, {workers} worker(s); it said\n{said}");
            assert!(said.contains(&addr.to_string()), "{why}: {addr} is not named in\n{said}");
            assert!(said.to_lowercase().contains(reason), "{why}: no reason in\n{said}");
        }
    }
    for _ in 0..20 {
        dial(lb.addr()).echo(b"the one that was first loses nothing by it");
    }
}

/// TCP and UDP echoes at one port, as DNS servers are.
fn twin_backend() -> (Server, UdpBackend) {
    for _ in 0..20 {
        let udp = UdpBackend::echo();
        // one end of the range is as good for TCP as for UDP, unless somebody has it
        if let Ok(listener) = std::net::TcpListener::bind(udp.addr) {
            return (Server::on(listener, server::echo), udp);
        }
    }
    panic!("no port is free for both");
}

#[test]
fn one_port_serves_tcp_and_udp_from_one_pool() {
    let twins: Vec<_> = (0..2).map(|_| twin_backend()).collect();
    let backends: Vec<_> = twins.iter().map(|(_, udp)| format!("{{ address = \"{}\" }}", udp.addr)).collect();
    let lb = twin_listener(&backends.join(", "), "");
    assert_eq!(lb.addr_of("tcp"), lb.addr_of("udp"));
    // one kind after the other: they take turns in the same pool
    (0..10).for_each(|_| assert_eq!(exchange(lb.addr_of("tcp"), b"over tcp"), b"over tcp"));
    (0..10).for_each(|_| dial(lb.addr_of("udp")).echo(b"over udp"));
    for (tcp, udp) in &twins {
        assert_eq!((tcp.accepted(), udp.received()), (5, 5), "each backend serves its share of both");
    }
}

/// l4lb with a TCP and a UDP listener at one port over these backends.
pub fn twin_listener(backends: &str, pool: &str) -> L4lb {
    let mut said = String::new();
    for _ in 0..10 {
        let port = free_port();
        let listener = |protocol| {
            format!(
                "[[listener]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:{port}\"\npool = \"out\"\n"
            )
        };
        let toml = format!(
            "[global]\nworkers = 2\nshutdown_timeout = \"5s\"\n{}{}\
             [[pool]]\nname = \"out\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{backends}]\n{pool}\n",
            listener("tcp"),
            listener("udp")
        );
        match L4lb::attempt(command(&[]), &toml) {
            Ok(lb) => return lb,
            Err(why) => said = why, // somebody was faster at this port
        }
    }
    panic!("it started on none of ten free ports; at last it said\n{said}");
}

#[test]
fn a_client_that_is_gone_does_not_harm_the_listener() {
    let backend = UdpBackend::silent();
    let lb = Setup::udp(backend.addr).global("workers = 1").start();
    let stays = dial(lb.addr());
    stays.say(b"first");
    let of_stays = backend.wait_for(1).from;
    for round in 0..50 {
        // the reply finds nobody, and the kernel tells l4lb so by ICMP
        let goes: UdpSocket = dial(lb.addr());
        goes.say(b"bye");
        let peer = backend.wait_for(2 + 2 * round).from;
        drop(goes);
        (0..3).for_each(|_| backend.send(b"too late", peer));
        stays.say(b"are you there?");
        backend.wait_for(3 + 2 * round);
        backend.send(b"yes", of_stays);
        assert_eq!(stays.take(), b"yes", "round {round}");
    }
}
