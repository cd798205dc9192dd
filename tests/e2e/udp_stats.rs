//! What `/lb/stats`, `/lb/backends` and `/lb/health` tell of sessions of datagrams is what has happened.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json as value};

use crate::admin::{json, lb};
use crate::stats::{expect, stats};
use crate::support::http::ask;
use crate::support::l4lb::command;
use crate::support::udp::{Counting, Datagrams, Mortal, UdpBackend, dial};
use crate::support::{L4lb, Setup, wait_until};

/// Starts this with an address of its own for the admin API, which is the second.
fn start(setup: Setup) -> (L4lb, SocketAddr) {
    let toml = setup.toml() + "\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let lb_ = L4lb::start(command(&[]), &toml);
    let mut own = None;
    wait_until("the address of the API is told", || {
        own = lb_.log().iter().find_map(|line| line.split_once("listener [admin] on ")?.1.parse().ok());
        own.is_some()
    });
    (lb_, own.expect("just found"))
}

fn of_backend(addr: SocketAddr) -> String {
    format!("/pools/out/backends/{addr}")
}

fn clients(to: SocketAddr, n: usize) -> Vec<UdpSocket> {
    (0..n).map(|_| dial(to)).collect()
}

#[test]
fn sessions_datagrams_and_bytes_add_up_over_all_workers() {
    let backend = UdpBackend::new(|bytes| Some([bytes, b"!!"].concat()));
    let (lb_, api) = start(Setup::udp(backend.addr).listener("idle_timeout = \"1s\""));
    let clients = clients(lb_.addr(), 20);
    for client in &clients {
        for _ in 0..3 {
            assert_eq!(client.ask(b"12345").len(), 7);
        }
    }
    let own = of_backend(backend.addr);
    for place in ["", "/listeners/in", "/pools/out", &*own] {
        expect("sessions", api, place, &[("sessions", 20), ("failed", 0), ("refused", 0), ("aborted", 0)]);
        expect("datagrams", api, &format!("{place}/datagrams"), &[("in", 60), ("out", 60)]);
        expect("bytes", api, &format!("{place}/bytes"), &[("in", 300), ("out", 420)]);
    }
    for place in ["/listeners/in", "/pools/out", &*own] {
        expect("all have ended by idle time", api, place, &[("sessions", 20), ("succeeded", 20), ("active", 0)]);
    }
    let told = stats(api);
    assert!(told["pools"]["out"].get("requests").is_none(), "it knows none: {told}");
    assert_eq!(told["pools"]["out"]["success_rate"], 1.0, "{told}");
}

#[test]
fn open_sessions_are_active_and_latency_is_the_time_to_the_first_reply() {
    const DELAY: f64 = 40.0;
    let backend = UdpBackend::new(|bytes| {
        thread::sleep(Duration::from_millis(if bytes == b"first" { DELAY as u64 } else { 0 }));
        Some(bytes.to_vec())
    });
    let (lb_, api) = start(Setup::udp(backend.addr).listener("idle_timeout = \"1h\""));
    let clients = clients(lb_.addr(), 5);
    for client in &clients {
        client.echo(b"first");
        (0..20).for_each(|_| client.echo(b"more"));
    }
    let own = of_backend(backend.addr);
    for place in ["/listeners/in", "/pools/out", &*own] {
        expect("all live", api, place, &[("sessions", 5), ("active", 5), ("succeeded", 0)]);
        let told = stats(api);
        let mean = told.pointer(place).unwrap()["latency_ms"]["mean"].as_f64().unwrap();
        // Above by what a loaded machine adds, never below.
        assert!((DELAY..3.0 * DELAY).contains(&mean), "{place}: {mean} ms");
    }
}

#[test]
fn a_dead_backend_fails_and_the_one_that_serves_instead_does_not() {
    for pool in ["", "udp_requests = 1", "udp_responses = 1"] {
        let (mut dead, backend) = (Mortal::new('d'), UdpBackend::named('b'));
        dead.kill();
        let setup = Setup::udp(dead.addr).backend(backend.addr).pool(pool).listener("idle_timeout = \"1h\"");
        let (lb_, api) = start(setup);
        let mut client = Counting::new(lb_.addr());
        // The first one is lost where the refusal comes only after it; then the other one answers.
        wait_until("it is served", || client.who_within(Duration::from_millis(200)) == Some('b'));
        wait_until("the failure is counted", || {
            let told = stats(api);
            let (failed, served) = (told.pointer(&of_backend(dead.addr)), told.pointer(&of_backend(backend.addr)));
            let (failed, served) = (&failed.unwrap()["failed"], served.unwrap());
            failed.as_u64() >= Some(1) && served["failed"] == 0 && served["sessions"].as_u64() >= Some(1)
        });
    }
}

#[test]
fn what_a_limit_drops_is_refused() {
    let backend = UdpBackend::echo();
    let (lb_, api) = start(Setup::udp(backend.addr).listener("max_connections = 1\nidle_timeout = \"1h\""));
    let clients = clients(lb_.addr(), 2);
    clients[0].echo(b"in");
    (0..3).for_each(|_| clients[1].say(b"out"));
    expect("the listener", api, "/listeners/in", &[("sessions", 4), ("refused", 3), ("active", 1)]);
    expect("no pool has to do with it", api, "/pools/out", &[("sessions", 1), ("refused", 0), ("active", 1)]);
    expect("but each is counted", api, "/listeners/in/datagrams", &[("in", 4), ("out", 1)]);
}

#[test]
fn the_breaker_of_a_dead_backend_opens_and_its_pool_is_unhealthy() {
    for pool in ["udp_requests = 1", "udp_responses = 1", ""] {
        let mut mortal = Mortal::new('m');
        let breaker = "circuit_breaker = { failure_threshold = 3, timeout = \"60s\" }";
        let (lb_, api) = start(Setup::udp(mortal.addr).pool(&format!("{breaker}\n{pool}")));
        let client = dial(lb_.addr());
        assert_eq!(client.who(), 'm', "{pool}");
        let stands = |path: &str| json(&ask(api, lb(path)));
        assert_eq!(stands("/lb/health")["status"], "healthy", "{pool}");
        assert_eq!(stands("/lb/backends")[0]["circuit_breaker"]["state"], "closed", "{pool}");
        mortal.kill();
        wait_until("the breaker is open", || {
            client.say(b"?");
            stands("/lb/backends")[0]["circuit_breaker"]["state"] == "open"
        });
        // It was set aside as well, which is over in a moment where nobody asks it any more.
        wait_until("the breaker alone is in the way", || stands("/lb/backends")[0]["state"] == "up");
        let answer = ask(api, lb("/lb/health"));
        assert_eq!(answer.status(), 503, "{pool}");
        let told: Value = json(&answer);
        assert_eq!((&told["unhealthy_pools"], &told["pools"]["out"]["available"]), (&value!(["out"]), &value!(0)));
    }
}
