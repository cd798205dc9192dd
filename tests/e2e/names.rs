//! Names behind addresses, and both families of addresses.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::ports::{Refusing, free_port};
use crate::support::{L4lb, Server, Setup, exchange, note, server};

fn echo_on(addr: &str) -> Option<Server> {
    let listener = TcpListener::bind(addr).ok()?;
    Some(Server::on(listener, server::echo))
}

fn has_ipv6() -> bool {
    let there = TcpListener::bind("[::1]:0").is_ok();
    if !there {
        note("left out: this machine has no IPv6 loopback");
    }
    there
}

fn is_served(lb: &L4lb) -> bool {
    exchange(lb.addr(), b"x") == b"x"
}

/// How to run a program with `hosts` as its /etc/hosts, in a mount namespace of its own; `None` where that is not allowed.
fn with_hosts(hosts: &Path) -> Option<Vec<String>> {
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let attempts: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    for attempt in attempts {
        let mut wrapper: Vec<String> = attempt.iter().map(|s| s.to_string()).collect();
        wrapper.extend(["sh".into(), "-c".into(), script.into(), hosts.display().to_string()]);
        let trial = Command::new(&wrapper[0]).args(&wrapper[1..]).arg("true").output();
        if trial.is_ok_and(|output| output.status.success()) {
            return Some(wrapper);
        }
    }
    note(
        "left out: this machine lets nobody have an /etc/hosts of his own, so names with several addresses are not shown",
    );
    None
}

#[test]
fn localhost_works_when_the_backend_listens_on_127_0_0_1_only() {
    let echo = echo_on("127.0.0.1:0").expect("IPv4");
    let lb = Setup::to(format_args!("localhost:{}", echo.addr.port())).start();
    for _ in 0..4 {
        assert!(is_served(&lb));
    }
}

#[test]
fn localhost_works_when_the_backend_listens_on_ipv6_only() {
    if !has_ipv6() {
        return;
    }
    let echo = echo_on("[::1]:0").expect("IPv6");
    let mut setup = Setup::to(format_args!("localhost:{}", echo.addr.port()));
    let known = ("localhost", 0).to_socket_addrs().expect("localhost resolves");
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    if !known.into_iter().any(|addr| addr.is_ipv6()) {
        std::fs::write(hosts.path(), "127.0.0.1 localhost\n::1 localhost\n").expect("the file is ours");
        match with_hosts(hosts.path()) {
            Some(wrapper) => setup = setup.wrapped(wrapper),
            None => return,
        }
    }
    let lb = setup.start();
    for _ in 0..4 {
        assert!(is_served(&lb));
    }
}

#[test]
fn all_addresses_of_a_name_are_tried_at_each_connect() {
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(hosts.path(), "127.0.0.2 many.test\n127.0.0.3 many.test\n127.0.0.4 many.test\n").expect("ours");
    let Some(wrapper) = with_hosts(hosts.path()) else {
        return;
    };
    for alive in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        let echo = echo_on(&format!("{alive}:0")).expect("all of 127/8 is ours");
        let setup = Setup::to(format_args!("many.test:{}", echo.addr.port()));
        // other addresses are no other backends: no retry is needed to reach them
        let lb = setup.pool("retries = 0").wrapped(&wrapper).start();
        for i in 0..4 {
            assert!(is_served(&lb), "client {i} while {alive} alone listens");
        }
    }
}

#[test]
fn a_name_that_leads_back_to_the_listener_is_not_used_and_the_log_says_so() {
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(hosts.path(), "127.0.0.1 back.test\n").expect("ours");
    let Some(wrapper) = with_hosts(hosts.path()) else {
        return;
    };
    let (echo, port) = (Server::echo(), free_port());
    let setup = Setup::to(format_args!("back.test:{port}")).backend(echo.addr).bind(&format!("\"0.0.0.0:{port}\""));
    let lb = setup.pool("retries = 0").wrapped(&wrapper).start();
    for i in 0..8 {
        assert_eq!(exchange(([127, 0, 0, 1], port).into(), b"x"), b"x", "client {i} came round, or to nobody");
    }
    let at = format!("127.0.0.1:{port}");
    lb.wait_for_log("which backend leads back", |line| {
        line.contains("[ERROR]") && line.contains(&at) && line.contains("our own listener")
    });
    assert_eq!(lb.log().iter().filter(|line| line.contains("our own listener")).count(), 1, "once is enough");
}

#[test]
fn a_name_that_does_not_resolve_leaves_its_backend_down_and_the_others_serve() {
    let echo = Server::echo();
    let lb = Setup::to("nowhere.invalid:80").backend(echo.addr).backend("elsewhere.invalid:80").start();
    for i in 0..20 {
        assert!(is_served(&lb), "client {i}");
    }
    lb.wait_for_log("which name does not resolve", |line| line.contains("nowhere.invalid"));
}

#[test]
fn a_pool_of_names_that_do_not_resolve_closes_its_clients_and_goes_on() {
    let lb = Setup::to("nowhere.invalid:80").start();
    for _ in 0..5 {
        assert!(crate::support::closed_without_data(lb.addr()));
    }
}

#[test]
fn a_backend_may_have_an_ipv6_address() {
    if !has_ipv6() {
        return;
    }
    let echo = echo_on("[::1]:0").expect("IPv6");
    let lb = Setup::to(echo.addr).start();
    assert!(is_served(&lb));
}

#[test]
fn a_listener_may_have_an_ipv6_address() {
    if !has_ipv6() {
        return;
    }
    let echo = Server::echo();
    let lb = Setup::to(echo.addr).bind("\"[::1]:0\"").start();
    assert!(lb.addr().is_ipv6(), "it listens on {}", lb.addr());
    assert!(is_served(&lb));
}

#[test]
fn a_listener_on_every_address_takes_clients_of_both_families() {
    if !has_ipv6() {
        return;
    }
    let echo = Server::echo();
    let lb = Setup::to(echo.addr).bind("\"[::]:0\"").start();
    let port = lb.addr().port();
    for host in ["127.0.0.1", "[::1]"] {
        let addr: SocketAddr = format!("{host}:{port}").parse().expect("an address");
        assert_eq!(exchange(addr, b"x"), b"x", "a client that comes to {host}");
    }
}

#[test]
fn a_listener_may_have_several_addresses() {
    let echo = Server::echo();
    let lb = Setup::to(echo.addr).bind("[\"127.0.0.1:0\", \"127.0.0.2:0\", \"localhost:0\"]").start();
    let addrs = lb.addrs();
    assert!(addrs.len() >= 3, "it told {addrs:?}");
    for addr in addrs {
        assert_eq!(exchange(addr, b"x"), b"x", "at {addr}");
    }
}

#[test]
fn names_are_not_resolved_on_the_data_path() {
    let (echo, refusing) = (Server::echo(), Refusing::new());
    let lb = Setup::to("nowhere.invalid:80").backend(echo.addr).backend(refusing.addr).start();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let asked = Instant::now();
        assert!(is_served(&lb));
        slowest = slowest.max(asked.elapsed());
    }
    // a resolver that has nobody to ask takes five seconds (resolv.conf(5), timeout)
    assert!(slowest < Duration::from_secs(2), "the slowest of 100 took {slowest:?}");
}
