//! What `/lb/stats` tells is what has happened.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::admin::{json, lb};
use crate::support::http::{Backend, Wire, ask, get, ok, scripted};
use crate::support::l4lb::command;
use crate::support::ports::Refusing;
use crate::support::{L4lb, Server, Setup, closed_without_data, exchange, wait_until};

/// What `/lb/stats` tells.
pub fn stats(addr: SocketAddr) -> Value {
    json(&ask(addr, lb("/lb/stats")))
}

/// Fails unless these counters come to these values. What is counted after an answer was sent may take a moment.
pub fn expect(why: &str, addr: SocketAddr, place: &str, expected: &[(&str, u64)]) {
    let mut last = Value::Null;
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(why, || {
            last = stats(addr);
            let object = if place.is_empty() { &last } else { last.pointer(place).unwrap_or(&Value::Null) };
            expected.iter().all(|(name, value)| object[*name] == *value)
        });
    }));
    assert!(found.is_ok(), "{why}: {place} is not {expected:?} in {last:#}");
}

fn with_status(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn what_comes_of_requests_adds_up() {
    let backend = Backend::new(|request| match request.head.target().trim_start_matches("/").parse() {
        Ok(status) => with_status(status),
        Err(_) => ok("fine"),
    });
    let toml = Setup::http(backend.addr()).listener("admin = true\nmax_body_size = \"10B\"\n").toml();
    let route = "[[listener.route]]\npath_prefix = \"/none\"\npool = \"none\"\n[[pool]]\nname = \"none\"\n\n";
    let lb_ = L4lb::start(command(&[]), &toml.replacen("[[pool]]", &format!("{route}[[pool]]"), 1));
    let addr = lb_.addr();
    let mut wire = Wire::to(addr);
    for (path, times) in [("/ok", 10), ("/404", 3), ("/501", 2), ("/505", 1), ("/500", 4), ("/503", 1)] {
        for _ in 0..times {
            wire.ask(get(path));
        }
    }
    for _ in 0..5 {
        assert_eq!(wire.ask(get("/none")).status(), 503);
    }
    assert_eq!(ask(addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n").status(), 413);
    assert_eq!(ask(addr, "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n").status(), 400);
    assert_eq!(ask(addr, "nonsense\r\n\r\n").status(), 400);
    let whole = [("requests", 29), ("succeeded", 16), ("failed", 5), ("refused", 8), ("aborted", 0), ("active", 0)];
    expect("the listener", addr, "/listeners/in", &whole);
    expect("the totals are those of the only listener", addr, "", &whole);
    let pool = [("requests", 21), ("succeeded", 16), ("failed", 5), ("refused", 0), ("retries", 0), ("active", 0)];
    expect("its pool", addr, "/pools/out", &pool);
    expect("the only backend of it", addr, &format!("/pools/out/backends/{}", backend.addr()), &pool);
    expect("a pool with nobody in it", addr, "/pools/none", &[("requests", 5), ("refused", 5), ("failed", 0)]);
    let told = stats(addr);
    assert!((told["pools"]["out"]["success_rate"].as_f64().unwrap() - 16.0 / 21.0).abs() < 1e-9, "{told}");
    assert_eq!(told["pools"]["none"]["success_rate"], 1.0);
}

#[test]
fn bytes_are_those_of_heads_and_bodies() {
    let backend = Backend::new(|_| ok("x".repeat(100_000)));
    let lb_ = Setup::http(backend.addr()).listener("admin = true").start();
    let (addr, body) = (lb_.addr(), "y".repeat(30_000));
    let plain = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n{body}");
    let chunked =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7530\r\n{body}\r\n0\r\n\r\n");
    let mut wire = Wire::to(addr);
    // Both in one piece: what came with one request and belongs to the next is that one's.
    wire.send([&*plain, &*chunked, &*get("/")].concat());
    (0..3).for_each(|_| assert_eq!(wire.response().body.len(), 100_000));
    let up = (plain.len() + chunked.len() + get("/").len()) as u64;
    let down = 3 * ok("x".repeat(100_000)).len() as u64;
    for place in ["/listeners/in/bytes", "/pools/out/bytes"] {
        expect("bytes", addr, place, &[("in", up), ("out", down)]);
    }
    let heads = [&plain, &chunked, &get("/")].map(|request| request.split("\r\n\r\n").next().unwrap().len() as u64 + 4);
    let bodies = up - heads.iter().sum::<u64>();
    expect(
        "a backend",
        addr,
        &format!("/pools/out/backends/{}/bytes", backend.addr()),
        &[("in", bodies), ("out", down)],
    );
}

#[test]
fn bulk_is_counted_to_the_byte() {
    const SIZE: usize = 20_000_000;
    let backend = Backend::new(|_| ok(vec![b'x'; SIZE]));
    let lb_ = Setup::http(backend.addr()).listener("admin = true").start();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
    let mut wire = Wire::to(lb_.addr());
    wire.send([head.as_bytes(), &vec![b'y'; SIZE][..]].concat());
    assert_eq!(wire.response().body.len(), SIZE);
    let (up, down) = (head.len() + SIZE, ok(vec![b'x'; SIZE]).len());
    let expected = [("in", up as u64), ("out", down as u64)];
    expect("past our memory", lb_.addr(), "/pools/out/bytes", &expected);
}

#[test]
fn a_retry_is_counted_where_it_failed_and_where_it_went() {
    let backend = Backend::echoing_targets();
    let refusing = Refusing::new();
    let dead = refusing.addr;
    let lb_ = Setup::http(dead).backend(backend.addr()).listener("admin = true").start();
    let addr = lb_.addr();
    assert_eq!(ask(addr, get("/1")).text(), "/1");
    expect("the pool", addr, "/pools/out", &[("requests", 1), ("succeeded", 1), ("failed", 0), ("retries", 1)]);
    let failed = [("requests", 1), ("succeeded", 0), ("failed", 1), ("retries", 1)];
    expect("who failed", addr, &format!("/pools/out/backends/{dead}"), &failed);
    let served = [("requests", 1), ("succeeded", 1), ("failed", 0), ("retries", 0)];
    expect("who served", addr, &format!("/pools/out/backends/{}", backend.addr()), &served);
    expect("the listener", addr, "/listeners/in", &[("requests", 1), ("succeeded", 1), ("retries", 1)]);
}

#[test]
fn failures_are_the_backends_and_never_the_clients() {
    let backend = scripted(|mut wire| {
        while let Some(request) = wire.next_request() {
            match request.head.target() {
                "/slow" => drop(wire.rest()),
                "/part" => {
                    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                    return;
                }
                "/nonsense" => {
                    wire.send("this is no response\r\n\r\n");
                    return;
                }
                _ => return,
            }
        }
    });
    let setup = Setup::http(backend.addr).listener("admin = true\nbody_timeout = \"100ms\"");
    let lb_ = setup.pool("retries = 0\nresponse_timeout = \"100ms\"").start();
    let addr = lb_.addr();
    assert_eq!(ask(addr, get("/slow")).status(), 504);
    assert_eq!(ask(addr, get("/nonsense")).status(), 502);
    assert_eq!(ask(addr, get("/gone")).status(), 502);
    let mut wire = Wire::to(addr);
    wire.send(get("/part"));
    assert_eq!(wire.head().status(), 200);
    wire.rest();
    expect("four ways to fail", addr, "/pools/out", &[("requests", 4), ("failed", 4), ("aborted", 0), ("active", 0)]);
    let backend = format!("/pools/out/backends/{}", backend.addr);
    expect("four ways to fail", addr, &backend, &[("requests", 4), ("failed", 4), ("active", 0)]);
    // A body that does not come is the client's own.
    let late = ask(addr, "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(late.status(), 408);
    expect("a client that is slow", addr, "/pools/out", &[("requests", 5), ("failed", 4), ("refused", 1)]);
    expect("no fault of the backend", addr, &backend, &[("requests", 5), ("failed", 4), ("aborted", 1)]);
}

#[test]
fn clients_that_leave_are_counted_apart_and_those_that_wait_are_active() {
    let backend = scripted(|mut wire| {
        wire.next_request();
        wire.rest();
    });
    let lb_ = Setup::http(backend.addr).listener("admin = true").start();
    let addr = lb_.addr();
    let mut clients: Vec<Wire> = (0..3).map(|_| Wire::to(addr)).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")));
    let own = format!("/pools/out/backends/{}", backend.addr);
    for place in ["/listeners/in", "/pools/out", &*own] {
        expect("all wait", addr, place, &[("requests", 3), ("active", 3)]);
    }
    for client in clients {
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("it can be set");
    }
    for place in ["/listeners/in", "/pools/out", &*own] {
        let expected = [("requests", 3), ("active", 0), ("aborted", 3), ("failed", 0), ("succeeded", 0)];
        expect("all have left", addr, place, &expected);
    }
}

#[test]
fn latency_is_how_long_the_backend_took() {
    const DELAY: f64 = 40.0;
    let backend = Backend::new(|_| {
        std::thread::sleep(Duration::from_millis(DELAY as u64));
        ok("late")
    });
    let lb_ = Setup::http(backend.addr()).listener("admin = true").start();
    let addr = lb_.addr();
    let mut wire = Wire::to(addr);
    (0..10).for_each(|_| assert_eq!(wire.ask(get("/")).text(), "late"));
    expect("all are counted", addr, "/pools/out", &[("succeeded", 10)]);
    let told = stats(addr);
    for place in ["", "/listeners/in", "/pools/out", &*format!("/pools/out/backends/{}", backend.addr())] {
        let mean = told.pointer(place).unwrap()["latency_ms"]["mean"].as_f64().unwrap();
        // Above by what a loaded machine adds, never below.
        assert!((DELAY..3.0 * DELAY).contains(&mean), "{place}: {mean} ms");
    }
}

#[test]
fn tcp_counts_connections() {
    let backend = Server::new(|mut stream: std::net::TcpStream| {
        let _ = std::io::copy(&mut stream.try_clone().expect("a copy"), &mut stream);
    });
    let refusing = Refusing::new();
    let dead = refusing.addr;
    let toml = Setup::to(backend.addr).toml()
        + &format!(
            "[[listener]]\nname = \"dead\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"dead\"\n[[pool]]\nname = \"dead\"\nretries = 0\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{dead}\" }}]\n"
        )
        + "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"out\"\nadmin = true\n";
    let lb_ = L4lb::start(command(&[]), &toml);
    let (tcp, dead, api) = (lb_.addr_of("in"), lb_.addr_of("dead"), lb_.addr_of("web"));
    for _ in 0..5 {
        assert_eq!(exchange(tcp, b"hello"), b"hello");
    }
    let mut held = Wire::to(tcp);
    held.send("x");
    assert_eq!(held.bytes(1), b"x");
    for _ in 0..3 {
        assert!(closed_without_data(dead));
    }
    expect("a listener", api, "/listeners/in", &[("connections", 6), ("succeeded", 5), ("failed", 0), ("active", 1)]);
    expect("its bytes", api, "/listeners/in/bytes", &[("in", 26), ("out", 26)]);
    expect("a pool", api, "/pools/out", &[("connections", 6), ("requests", 0), ("active", 1)]);
    let own = format!("/pools/out/backends/{}", backend.addr);
    expect("a backend", api, &own, &[("connections", 6), ("succeeded", 5), ("active", 1)]);
    expect("one that is dead", api, "/pools/dead", &[("connections", 3), ("failed", 3), ("active", 0)]);
    let told = stats(api);
    assert!(told["listeners"]["in"].get("requests").is_none(), "it knows none: {told}");
    let mean = told.pointer(&own).unwrap()["latency_ms"]["mean"].as_f64().unwrap();
    assert!(mean > 0.0 && mean < 1000.0, "{mean} ms to connect");
    drop(held);
    expect("all are over", api, "/listeners/in", &[("connections", 6), ("succeeded", 6), ("active", 0)]);
}

#[test]
fn what_is_cut_by_a_break_is_told_by_whose_doing() {
    let backend = Server::new(|mut stream: std::net::TcpStream| {
        let mut first = [0];
        let _ = std::io::Read::read_exact(&mut stream, &mut first);
        let _ = std::io::Write::write_all(&mut stream, b"!");
        if first == *b"b" {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let toml = Setup::to(backend.addr).toml()
        + "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"out\"\nadmin = true\n";
    let lb_ = L4lb::start(command(&[]), &toml);
    let (tcp, api) = (lb_.addr_of("in"), lb_.addr_of("web"));
    let mut broken = Wire::to(tcp);
    broken.send("b");
    broken.rest();
    expect("the backend broke", api, "/listeners/in", &[("connections", 1), ("failed", 1), ("aborted", 0)]);
    let mut leaving = Wire::to(tcp);
    leaving.send("c");
    assert_eq!(leaving.bytes(1), b"!");
    socket2::SockRef::from(&leaving.stream).set_linger(Some(Duration::ZERO)).expect("it can be set");
    drop(leaving);
    expect(
        "the client broke",
        api,
        "/listeners/in",
        &[("connections", 2), ("failed", 1), ("aborted", 1), ("active", 0)],
    );
}

/// Leaves without a word.
fn reset(client: Wire) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("it can be set");
}

#[test]
fn who_waits_in_line_is_counted_as_begun_and_ends_once() {
    let backend = scripted(|mut wire| {
        while let Some(request) = wire.next_request() {
            match request.head.target() {
                "/hold" => drop(wire.rest()),
                _ => wire.send(ok("fine")),
            }
        }
    });
    let setup = Setup::new().backend_with(backend.addr, "max_connections = 1").pool("queue = 1");
    let web =
        "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"out\"\nadmin = true\n";
    let lb_ = L4lb::start(command(&[]), &(setup.toml() + web));
    let api = lb_.addr_of("web");
    let own = format!("/pools/out/backends/{}", backend.addr);
    for (listener, what) in [("in", "connections"), ("web", "requests")] {
        let (addr, place) = (lb_.addr_of(listener), format!("/listeners/{listener}"));
        let come = |path: &str| {
            let mut wire = Wire::to(addr);
            wire.send(get(path));
            wire
        };
        let holds = come("/hold");
        expect("it has the only place", api, &own, &[(what, 1), ("active", 1)]);
        let leaves = come("/");
        expect("one waits", api, &place, &[(what, 2), ("active", 2)]);
        let _refused = come("/");
        expect("there is no room behind it", api, &place, &[(what, 3), ("active", 2), ("refused", 1)]);
        reset(leaves);
        expect("it waits no more", api, &place, &[(what, 3), ("active", 1), ("aborted", 1)]);
        let mut waits = come("/");
        expect("another waits", api, &place, &[(what, 4), ("active", 2)]);
        reset(holds);
        assert_eq!(waits.response().text(), "fine", "its turn has come");
        drop(waits);
        let expected = [(what, 4), ("active", 0), ("succeeded", 1), ("aborted", 2), ("refused", 1), ("retries", 0)];
        expect("each has ended once", api, &place, &expected);
        expect("two have come to the backend", api, &own, &[(what, 2), ("active", 0)]);
    }
}

#[test]
fn a_kept_connection_that_ends_under_a_request_is_a_failure_to_the_client() {
    // It answers the first request of each connection, reads the next one, and leaves.
    let server = scripted(|mut wire| {
        wire.request();
        wire.send(ok("one"));
        wire.request();
    });
    let breaker = "circuit_breaker = { failure_threshold = 1 }";
    let lb_ = Setup::http(server.addr).listener("admin = true").pool(breaker).start();
    let mut client = Wire::to(lb_.addr());
    let post = || "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".to_owned();
    let statuses: Vec<u16> = (0..4).map(|_| client.ask(post()).status()).collect();
    assert_eq!(statuses, [200, 502, 200, 502], "what may not be repeated is not; and no breaker hears of it");
    let ends = [("requests", 4), ("succeeded", 2), ("failed", 2), ("aborted", 0)];
    expect("they are counted", lb_.addr(), "/pools/out", &ends);
}
