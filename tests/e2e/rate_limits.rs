//! Limits by rate let in exactly what they say, over all workers, and tell the truth about when to come again.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::admin::{json, lb};
use crate::support::http::{Backend, Wire, ask, get, ok};
use crate::support::l4lb::command;
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{Client, L4lb, Server, Setup, closed_without_data, connect, exchange, wait_until};

/// So slow that nothing comes back while a test runs.
const NEVER: &str = "refill_rate = 0.001";

fn tokens(key: &str, capacity: u32) -> String {
    format!("rate_limit = {{ algorithm = \"token_bucket\", key = \"{key}\", capacity = {capacity}, {NEVER} }}\n")
}

fn window(key: &str, max: u32, window: &str) -> String {
    format!(
        "rate_limit = {{ algorithm = \"sliding_window\", key = \"{key}\", max_requests = {max}, window = \"{window}\" }}\n"
    )
}

fn leaky(key: &str, capacity: u32, rate: f64) -> String {
    format!(
        "rate_limit = {{ algorithm = \"leaky_bucket\", key = \"{key}\", capacity = {capacity}, leak_rate = {rate:?} }}\n"
    )
}

/// What the admin API at `addr` tells of the limit of `place`: let in, and not.
fn limit_of(addr: SocketAddr, place: &str) -> (u64, u64) {
    let stats = json(&ask(addr, lb("/lb/stats")));
    let limit = stats.pointer(&format!("{place}/rate_limit")).cloned().unwrap_or(Value::Null);
    let count = |name: &str| limit[name].as_u64().unwrap_or_else(|| panic!("no {name} of {place} in {stats:#}"));
    (count("allowed"), count("limited"))
}

/// A listener for the admin API alone, beside those for TCP or UDP.
fn with_admin(setup: &Setup) -> L4lb {
    let toml = setup.toml()
        + "\n[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"web\"\nadmin = true\n[[pool]]\nname = \"web\"\n";
    L4lb::start(command(&[]), &toml)
}

/// How often each status was answered to so many clients at once, each asking so often on one connection.
fn crowd(addr: SocketAddr, clients: usize, each: usize, request: &str) -> (usize, usize) {
    let statuses = |_: usize| {
        let mut wire = Wire::to(addr);
        (0..each).map(|_| wire.ask(request).status()).collect::<Vec<_>>()
    };
    let all: Vec<u16> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..clients).map(|client| scope.spawn(move || statuses(client))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("it asks to the end")).collect()
    });
    let count = |wanted: u16| all.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(200) + count(429), all.len(), "{all:?}");
    (count(200), count(429))
}

#[test]
fn over_http_exactly_so_many_requests_are_let_in() {
    let rows = [
        ("tokens for all", tokens("all", 20)),
        ("tokens for each address", tokens("client_ip", 20)),
        ("tokens for each header", tokens("header:x-key", 20)),
        ("a window for all", window("all", 20, "1h")),
        ("a window for each address", window("client_ip", 20, "1h")),
        ("a window for each header", window("header:x-key", 20, "1h")),
    ];
    for (why, limit) in rows {
        for at_pool in [false, true] {
            let backend = Backend::echoing_targets();
            let setup = Setup::http(backend.addr());
            let setup = match at_pool {
                false => setup.listener(&format!("admin = true\n{limit}")),
                true => setup.listener("admin = true").pool(&limit),
            };
            let lb_ = setup.start();
            let addr = lb_.addr();
            let told = crowd(addr, 8, 5, "GET / HTTP/1.1\r\nHost: a\r\nX-Key: k\r\n\r\n");
            assert_eq!(told, (20, 20), "{why}, of the pool: {at_pool}");
            assert_eq!(backend.take_seen().len(), 20, "{why}: the backend sees no others");
            let place = if at_pool { "/pools/out" } else { "/listeners/in" };
            assert_eq!(limit_of(addr, place), (20, 20), "{why}: what was asked here is not limited, nor counted");
            let stats = json(&ask(addr, lb("/lb/stats")));
            let own = stats.pointer(place).expect("it is there");
            assert_eq!((&own["succeeded"], &own["refused"]), (&20.into(), &20.into()), "{why}: {stats:#}");
            assert_eq!(own["success_rate"], 1.0, "{why}: a refusal is no failure");
        }
    }
}

#[test]
fn a_refusal_is_a_429_that_says_when_and_leaves_the_connection_open() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).listener(&window("all", 1, "1h")).start();
    let mut wire = Wire::to(lb_.addr());
    assert_eq!(wire.ask(get("/")).status(), 200);
    for _ in 0..2 {
        let refused = wire.ask(get("/"));
        assert_eq!(refused.status(), 429);
        let seconds: u64 = refused.head.get("retry-after").expect("it says when").parse().expect("whole seconds");
        assert!((3_590..=3_600).contains(&seconds), "{seconds}");
        assert!(refused.head.get("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
        assert!(!refused.head.closes());
    }
    let refused = wire.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((refused.status(), refused.body.len()), (429, 0));
    let refused = wire.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(refused.status(), 429);
    assert!(refused.head.closes(), "its body was not read");
    wire.expect_end("behind a body that was not read");
}

#[test]
fn retry_after_is_true() {
    let slow = "rate_limit = { algorithm = \"token_bucket\", key = \"client_ip\", capacity = 1, refill_rate = 0.4 }\n";
    // When the second one may come, in milliseconds.
    let rows = [
        ("tokens", slow.to_owned(), 2_500, false),
        ("a window", window("header:x", 1, "2500ms"), 2_500, false),
        ("a queue with one in it", leaky("all", 1, 0.4), 2_500, true),
    ];
    std::thread::scope(|scope| {
        for (why, limit, after, queues) in rows {
            scope.spawn(move || {
                let backend = Backend::echoing_targets();
                let lb_ = Setup::http(backend.addr()).listener(&limit).start();
                let addr = lb_.addr();
                let began = Instant::now();
                assert_eq!(ask(addr, get("/")).status(), 200, "{why}");
                let mut waits = Wire::to(addr);
                if queues {
                    waits.send(get("/"));
                    assert!(waits.stream.is_silent_for(Duration::from_millis(200)), "{why}: it waits");
                }
                let asked = Instant::now();
                let refused = ask(addr, get("/"));
                assert_eq!(refused.status(), 429, "{why}");
                let seconds: u64 = refused.head.get("retry-after").expect("it says when").parse().expect("seconds");
                let left = Duration::from_millis(after).saturating_sub(began.elapsed());
                assert_eq!(seconds, left.as_millis().div_ceil(1000) as u64, "{why}: rounded up");
                std::thread::sleep(
                    (asked + Duration::from_secs(seconds - 1)).saturating_duration_since(Instant::now()),
                );
                assert_eq!(ask(addr, get("/")).status(), 429, "{why}: a second earlier");
                std::thread::sleep((asked + Duration::from_secs(seconds)).saturating_duration_since(Instant::now()));
                let mut wire = Wire::to(addr);
                assert_eq!(wire.ask(get("/")).status(), 200, "{why}: when it was told to come");
            });
        }
    });
}

/// When which path came.
type Notes = Arc<Mutex<Vec<(Instant, String)>>>;

/// A backend that takes note of what comes.
fn timed() -> (Backend, Notes) {
    let came = Arc::new(Mutex::new(Vec::new()));
    let notes = came.clone();
    let backend = Backend::new(move |request| {
        notes.lock().expect("never poisoned").push((Instant::now(), request.head.target().to_owned()));
        ok("x")
    });
    (backend, came)
}

/// Nine requests, one after the other, each by a connection of its own and so by both workers, to a queue that lets ten a
/// second go: none goes before its moment. In which order the backend saw them.
fn nine_in_a_queue(at_pool: bool, key: &str) -> String {
    const STEP: Duration = Duration::from_millis(100);
    let (backend, came) = timed();
    let limit = leaky(key, 8, 10.0);
    let setup = Setup::http(backend.addr());
    let setup = match at_pool {
        false => setup.listener(&format!("admin = true\n{limit}")),
        true => setup.listener("admin = true").pool(&limit),
    };
    let lb_ = setup.start();
    let (addr, place) = (lb_.addr(), if at_pool { "/pools/out" } else { "/listeners/in" });
    let (began, mut wires) = (Instant::now(), Vec::new());
    for n in 0..9 {
        let mut wire = Wire::to(addr);
        wire.send(get(&format!("/{n}")));
        wires.push(wire);
        wait_until("it was let in", || limit_of(addr, place).0 > n);
    }
    wires.iter_mut().for_each(|wire| assert_eq!(wire.response().status(), 200));
    let came = came.lock().expect("never poisoned").clone();
    assert_eq!(came.len(), 9);
    for (at, path) in &came {
        let number: u32 = path[1..].parse().expect("it has a number");
        let after = at.duration_since(began);
        assert!(after >= STEP * number, "{path} after {after:?}");
    }
    came.iter().map(|(_, path)| &path[1..]).collect()
}

#[test]
fn a_leaky_bucket_makes_requests_wait_and_lets_them_go_at_its_rate_in_order() {
    for (at_pool, key) in [(false, "all"), (true, "client_ip")] {
        // Two that a busy machine is late with may come to the backend in any order.
        let tries: Vec<String> =
            (0..4).map(|_| nine_in_a_queue(at_pool, key)).take_while(|o| o != "012345678").collect();
        assert!(tries.len() < 4, "of the pool: {at_pool}, each time in another order: {tries:?}");
    }
}

#[test]
fn a_client_that_leaves_a_queue_frees_its_place() {
    let (backend, came) = timed();
    let lb_ = Setup::http(backend.addr()).listener(&format!("admin = true\n{}", leaky("all", 3, 0.5))).start();
    let addr = lb_.addr();
    assert_eq!(ask(addr, get("/first")).status(), 200);
    let began = Instant::now();
    let wait = |path: &str, before: u64| {
        let mut wire = Wire::to(addr);
        wire.send(get(path));
        wait_until("it waits", || limit_of(addr, "/listeners/in").0 > before);
        wire
    };
    let (mut second, third, mut fourth) = (wait("/second", 1), wait("/third", 2), wait("/fourth", 3));
    assert_eq!(ask(addr, get("/beyond")).status(), 429, "three wait");
    drop(third);
    // What it left is there as soon as its end was seen.
    let mut next = None;
    wait_until("there is a place again", || {
        let mut wire = Wire::to(addr);
        wire.send(get("/next"));
        let waits = wire.stream.is_silent_for(Duration::from_millis(50));
        next = waits.then_some(wire);
        next.is_some()
    });
    assert_eq!(ask(addr, get("/beyond")).status(), 429, "and it is taken");
    let mut next = next.expect("just waited for");
    for wire in [&mut second, &mut next, &mut fourth] {
        assert_eq!(wire.response().status(), 200);
    }
    let whole = began.elapsed();
    assert!(whole < Duration::from_millis(7_500), "{whole:?}: four in six seconds, and no moment was lost");
    let came = came.lock().expect("never poisoned").clone();
    let paths: Vec<&str> = came.iter().map(|(_, path)| &**path).collect();
    assert_eq!(paths, ["/first", "/second", "/next", "/fourth"]);
    for pair in came.windows(2) {
        let gap = pair[1].0.duration_since(pair[0].0);
        assert!(gap > Duration::from_millis(1_800), "{gap:?} between {pair:?}");
    }
}

#[test]
fn requests_that_wait_hold_nothing_up_and_end_by_their_timeout() {
    let backend = Backend::echoing_targets();
    let listener = format!("request_timeout = \"300ms\"\n{}", leaky("header:x-key", 5, 0.1));
    let lb_ = Setup::http(backend.addr()).listener(&listener).start();
    let keyed = |key: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n");
    assert_eq!(ask(lb_.addr(), keyed("a")).status(), 200);
    let mut waits = Wire::to(lb_.addr());
    waits.send(keyed("a"));
    for n in 0..20 {
        assert_eq!(ask(lb_.addr(), keyed(&format!("other {n}"))).status(), 200);
    }
    assert_eq!(waits.response().status(), 504, "it has a deadline");
}

#[test]
fn each_header_address_or_client_behind_a_proxy_has_a_share_of_its_own() {
    let keyed = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let by_header = [
        ("one key", keyed("X-Key: one\r\n"), (2, 2)),
        ("another", keyed("x-key: two\r\n"), (2, 2)),
        ("letter by letter", keyed("X-Key: One\r\n"), (2, 2)),
        ("without it, the address counts", keyed(""), (2, 2)),
        ("it was used up before", keyed("X-Key: one\r\n"), (0, 4)),
    ];
    let by_client = [
        ("the first client of a proxy", keyed("X-Forwarded-For: 192.0.2.1\r\n"), (2, 2)),
        ("the second one", keyed("X-Forwarded-For: 192.0.2.2\r\n"), (2, 2)),
        ("what the client itself has sent is not believed", keyed("X-Forwarded-For: 8.8.8.8, 192.0.2.2\r\n"), (0, 4)),
        ("the proxy itself", keyed(""), (2, 2)),
    ];
    for (limit, rows) in [
        (tokens("header:x-key", 2), &by_header[..]),
        (format!("trusted_proxies = [\"127.0.0.1\"]\n{}", tokens("client_ip", 2)), &by_client[..]),
    ] {
        let backend = Backend::echoing_targets();
        let lb_ = Setup::http(backend.addr()).listener(&limit).start();
        for (why, request, expected) in rows {
            assert_eq!(crowd(lb_.addr(), 2, 2, request), *expected, "{why}");
        }
    }
}

#[test]
fn a_listener_and_its_pool_both_limit_and_each_tells_of_its_own() {
    // Twenty come, ten pass the listener, and four of those the pool.
    let limited = |setup: Setup, listener: &str, pool: &str| {
        let listener = format!("{listener}\n{}", tokens("client_ip", 10));
        setup.listener(&listener).pool(&format!("{pool}\n{}", window("all", 4, "1h")))
    };
    let told = |why: &str, api: SocketAddr, counted: &str| {
        wait_until("all were looked at", || limit_of(api, "/listeners/in") == (10, 10));
        wait_until("all that passed were", || limit_of(api, "/pools/out") == (4, 6));
        let stats = json(&ask(api, lb("/lb/stats")));
        for (place, came, refused) in [("/listeners/in", 20, 16), ("/pools/out", 10, 6)] {
            let own = stats.pointer(place).expect("it is there");
            assert_eq!((&own[counted], &own["refused"]), (&came.into(), &refused.into()), "{why}, {place}: {stats:#}");
        }
        let backends = stats["pools"]["out"]["backends"].as_object().expect("by name");
        assert!(backends.values().all(|one| one[counted] == 4 && one["refused"] == 0), "{why}: {stats:#}");
    };
    let backend = Backend::echoing_targets();
    let lb_ = limited(Setup::http(backend.addr()), "admin = true", "").start();
    assert_eq!(crowd(lb_.addr(), 4, 5, &get("/")), (4, 16));
    told("http", lb_.addr(), "requests");

    let server = Server::echo();
    let lb_ = with_admin(&limited(Setup::to(server.addr), "", ""));
    let served = (0..20).filter(|_| gets_back(&connect(lb_.addr_of("in")), b"x")).count();
    assert_eq!(served, 4);
    told("tcp", lb_.addr_of("web"), "connections");

    for each in ["", "udp_requests = 1"] {
        let backend = UdpBackend::echo();
        let lb_ = with_admin(&limited(Setup::udp(backend.addr), "", each));
        let clients: Vec<_> = (0..20).map(|_| dial(lb_.addr_of("in"))).collect();
        clients.iter().for_each(|client| client.say(b"?"));
        told("udp", lb_.addr_of("web"), "sessions");
        assert_eq!(backend.received(), 4, "udp, {each}");
    }
}

#[test]
fn over_tcp_exactly_so_many_connections_are_let_in_and_the_others_closed() {
    let rows = [
        ("tokens for all", tokens("all", 10)),
        ("tokens for each address", tokens("client_ip", 10)),
        ("a window for all", window("all", 10, "1h")),
        ("a window for each address", window("client_ip", 10, "1h")),
        ("a bucket that leaks, for all", leaky("all", 10, 0.001)),
        ("a bucket that leaks, for each address", leaky("client_ip", 10, 0.001)),
    ];
    for (why, limit) in rows {
        for at_pool in [false, true] {
            let server = Server::echo();
            let setup = Setup::to(server.addr);
            let setup = if at_pool { setup.pool(&limit) } else { setup.listener(&limit) };
            let lb_ = with_admin(&setup);
            let addr = lb_.addr_of("in");
            let served = |_| !closed_without_data(addr);
            let first: Vec<_> = (0..10).map(|_| connect(addr)).collect();
            first.iter().for_each(|client| client.echo(b"one of ten"));
            assert!(!(0..10).any(served), "{why}, of the pool: {at_pool}: there are ten");
            first.iter().for_each(|client| client.echo(b"who is inside goes on"));
            let place = if at_pool { "/pools/out" } else { "/listeners/in" };
            assert_eq!(limit_of(lb_.addr_of("web"), place), (10, 10), "{why}");
            let stats = json(&ask(lb_.addr_of("web"), lb("/lb/stats")));
            assert_eq!(stats.pointer(place).expect("it is there")["refused"], 10, "{why}: {stats:#}");
            assert_eq!(server.accepted(), 10, "{why}: what the backend sees");
        }
    }
}

#[test]
fn over_udp_exactly_so_many_sessions_begin_and_the_others_are_dropped() {
    let rows = [
        ("tokens for all", tokens("all", 10)),
        ("tokens for each address", tokens("client_ip", 10)),
        ("a window for all", window("all", 10, "1h")),
        ("a window for each address", window("client_ip", 10, "1h")),
        ("a bucket that leaks, for all", leaky("all", 10, 0.001)),
        ("a bucket that leaks, for each address", leaky("client_ip", 10, 0.001)),
    ];
    for (why, limit) in rows {
        for at_pool in [false, true] {
            let backend = UdpBackend::echo();
            let setup = Setup::udp(backend.addr);
            let setup = if at_pool { setup.pool(&limit) } else { setup.listener(&limit) };
            let lb_ = with_admin(&setup);
            let clients: Vec<_> = (0..25).map(|_| dial(lb_.addr_of("in"))).collect();
            clients[..10].iter().for_each(|client| client.echo(b"one of ten"));
            clients[10..].iter().for_each(|client| client.say(b"one too many"));
            let place = if at_pool { "/pools/out" } else { "/listeners/in" };
            wait_until("all were looked at", || limit_of(lb_.addr_of("web"), place) == (10, 15));
            clients[..10].iter().for_each(|client| client.echo(b"who is inside goes on"));
            assert_eq!(backend.received(), 20, "{why}, of the pool: {at_pool}");
        }
    }
}

#[test]
fn each_datagram_that_is_a_session_of_its_own_is_limited() {
    let backend = UdpBackend::echo();
    let lb_ = with_admin(&Setup::udp(backend.addr).pool(&format!("udp_requests = 1\n{}", tokens("all", 10))));
    let client = dial(lb_.addr_of("in"));
    (0..25).for_each(|_| client.say(b"?"));
    wait_until("all were looked at", || limit_of(lb_.addr_of("web"), "/pools/out") == (10, 15));
    (0..10).for_each(|_| assert_eq!(client.take(), b"?"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    assert_eq!(backend.received(), 10);
}

#[test]
fn addresses_are_those_of_clients_behind_a_proxy_header_too() {
    let server = Server::echo();
    let lb_ = Setup::to(server.addr).listener(&format!("accept_proxy = true\n{}", tokens("client_ip", 2))).start();
    let come = |last: u8| {
        let client = connect(lb_.addr());
        let line = format!("PROXY TCP4 192.0.2.{last} 192.0.2.100 1000 80\r\nhello");
        (&client).write_all(line.as_bytes()).expect("the kernel takes it");
        client
    };
    for last in [1, 2] {
        let inside = [come(last), come(last)];
        inside.iter().for_each(|client| assert_eq!(client.read_n(5), b"hello", "client {last}"));
        assert_eq!(come(last).read_all().0, b"", "client {last} has had its two");
    }
}

fn from(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// A connection from this address.
fn connect_from(ip: IpAddr, to: SocketAddr) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((ip, 0)).into()).expect("a free port");
    socket.connect(&to.into()).expect("somebody listens");
    let stream = socket.into();
    crate::support::client::bounded(&stream);
    stream
}

#[test]
fn a_client_has_so_many_tcp_connections_and_no_more() {
    let server = Server::echo();
    let lb_ = with_admin(&Setup::to(server.addr).listener("max_per_client = 3"));
    let addr = lb_.addr_of("in");
    for last in [1, 2] {
        let inside: Vec<_> = (0..3).map(|_| connect_from(from(last), addr)).collect();
        inside.iter().for_each(|client| client.echo(b"mine"));
        for _ in 0..4 {
            assert_eq!(connect_from(from(last), addr).read_all().0, b"", "client {last} has its three");
        }
        inside.iter().for_each(|client| client.echo(b"still mine"));
        if last == 1 {
            drop(inside);
            wait_until("its places come back", || gets_back(&connect_from(from(last), addr), b"x"));
        }
    }
}

/// Whether a client that may be closed gets this back.
fn gets_back(client: &std::net::TcpStream, expected: &[u8]) -> bool {
    let (mut stream, mut got) = (client, vec![0; expected.len()]);
    stream.write_all(expected).is_ok() && stream.read_exact(&mut got).is_ok() && got == expected
}

#[test]
fn a_client_has_so_many_http_connections_and_is_told_so_on_the_next() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).listener("max_per_client = 2").start();
    let of = |last: u8| Wire::of(connect_from(from(last), lb_.addr()));
    let mut inside = [of(1), of(1)];
    inside.iter_mut().for_each(|wire| assert_eq!(wire.ask(get("/in")).text(), "/in"));
    for says in [true, false] {
        let mut third = of(1);
        if says {
            third.send(get("/"));
        }
        let told = third.response();
        assert_eq!(told.status(), 429);
        assert!(told.head.closes() && told.head.get("retry-after") == Some("1"), "{:?}", told.head);
        third.expect_end("it was told so");
    }
    assert_eq!(of(2).ask(get("/other")).text(), "/other", "another client is free");
    inside.iter_mut().for_each(|wire| assert_eq!(wire.ask(get("/again")).text(), "/again"));
    drop(inside);
    wait_until("its places come back", || of(1).ask(get("/")).status() == 200);
}

#[test]
fn behind_a_proxy_header_the_told_address_has_the_connections() {
    let backend = Backend::echoing_targets();
    let lb_ = Setup::http(backend.addr()).listener("max_per_client = 1\naccept_proxy = true").start();
    let of = |last: u8| {
        let mut wire = Wire::to(lb_.addr());
        wire.send(format!("PROXY TCP4 192.0.2.{last} 192.0.2.100 1000 80\r\n{}", get("/")));
        let status = wire.response().status();
        (wire, status)
    };
    let (one, two) = (of(1), of(2));
    assert_eq!((one.1, two.1), (200, 200));
    assert_eq!(of(1).1, 429);
}

#[test]
fn a_limit_is_kept_while_the_world_around_it_changes() {
    // Each verdict on a backend makes a new snapshot.
    let (server, dead) = (Server::echo(), crate::support::ports::Refusing::new());
    let checks = "health_check = { kind = \"tcp\", interval = \"20ms\", fall = 1 }";
    let toml = Setup::to(server.addr)
        .backend(dead.addr)
        .listener(&tokens("all", 5))
        .toml()
        .replace("health_check = { kind = \"none\" }", checks);
    let lb_ = L4lb::start(command(&[]), &toml);
    for _ in 0..3 {
        assert_eq!(exchange(lb_.addr(), b"x"), b"x");
    }
    lb_.wait_for_log("that the other one is down", |line| line.contains("down"));
    for _ in 0..2 {
        assert_eq!(exchange(lb_.addr(), b"x"), b"x");
    }
    assert!((0..5).all(|_| closed_without_data(lb_.addr())), "five are five");
}

#[test]
fn a_reload_keeps_what_was_used_up_of_a_limit_and_one_that_is_changed_begins_anew() {
    let rows = [
        ("tokens for all", tokens("all", 5), tokens("all", 7)),
        ("another key", tokens("client_ip", 5), tokens("header:x-key", 7)),
        ("another algorithm", window("header:x-key", 5, "1h"), tokens("header:x-key", 7)),
        ("another time", window("client_ip", 5, "1h"), window("client_ip", 7, "2h")),
    ];
    for (why, limit, changed) in rows {
        for at_pool in [false, true] {
            let backend = Backend::echoing_targets();
            let file = |limit: &str, more: &str| {
                let setup = Setup::http(backend.addr());
                match at_pool {
                    false => setup.listener(&format!("admin = true\n{limit}")).pool(more),
                    true => setup.listener("admin = true").pool(&format!("{limit}{more}")),
                }
            };
            let lb_ = file(&limit, "").start();
            let (addr, place) = (lb_.addr(), if at_pool { "/pools/out" } else { "/listeners/in" });
            let ten = || crowd(addr, 2, 5, "GET / HTTP/1.1\r\nHost: a\r\nX-Key: k\r\n\r\n");
            let why = format!("{why}, of the pool: {at_pool}");
            assert_eq!(ten(), (5, 5), "{why}");
            assert_eq!(lb_.reload(&file(&limit, "retries = 2").toml()), ["reloaded: pools changed: out"], "{why}");
            assert_eq!(ten(), (0, 10), "{why}: it says the same, so it is the same one");
            let told = lb_.reload(&file(&changed, "retries = 2").toml());
            let which = if at_pool { "pools changed: out" } else { "listeners changed: in" };
            assert_eq!(told, [format!("reloaded: {which}")], "{why}");
            assert_eq!(ten(), (7, 3), "{why}: another one begins anew");
            assert_eq!(limit_of(addr, place), (12, 18), "{why}: what was counted stays");
            lb_.reload(&file("", "retries = 2").toml());
            assert_eq!(ten(), (10, 0), "{why}: it is off");
            let stats = json(&ask(addr, lb("/lb/stats")));
            assert_eq!(stats.pointer(&format!("{place}/rate_limit")), None, "{why}: {stats:#}");
            lb_.reload(&file(&changed, "retries = 2").toml());
            assert_eq!(ten(), (7, 3), "{why}: it was gone in between");
        }
    }
}

#[test]
fn over_a_reload_who_waits_keeps_its_moment() {
    let (backend, came) = timed();
    let file = |capacity: u32, more: &str| {
        Setup::http(backend.addr()).listener(&format!("admin = true\n{}", leaky("all", capacity, 0.5))).pool(more)
    };
    let lb_ = file(3, "").start();
    let addr = lb_.addr();
    assert_eq!(ask(addr, get("/first")).status(), 200);
    let wait = |path: &str, so_many: u64| {
        let mut wire = Wire::to(addr);
        wire.send(get(path));
        wait_until("it waits", || limit_of(addr, "/listeners/in").0 == so_many);
        wire
    };
    let mut second = wait("/second", 2);
    lb_.reload(&file(3, "retries = 2").toml());
    let mut third = wait("/third", 3);
    lb_.reload(&file(4, "retries = 2").toml());
    // The queue of the changed one is empty, and the others wait in the old one.
    assert_eq!(ask(addr, get("/another")).status(), 200);
    assert_eq!((second.response().status(), third.response().status()), (200, 200));
    let came = came.lock().expect("never poisoned").clone();
    let paths: Vec<&str> = came.iter().map(|(_, path)| &**path).collect();
    assert_eq!(paths, ["/first", "/another", "/second", "/third"]);
    let gap = came[3].0.duration_since(came[0].0);
    assert!(gap > Duration::from_millis(3_800), "{gap:?}: two turns");
}

#[test]
fn a_reload_changes_how_many_connections_a_client_may_have() {
    let server = Server::echo();
    let of = |most: u32| Setup::to(server.addr).listener(&format!("max_per_client = {most}"));
    let lb_ = of(1).start();
    let first = connect(lb_.addr());
    first.echo(b"one");
    assert!(closed_without_data(lb_.addr()), "one is one");
    lb_.reload(&of(2).toml());
    let second = connect(lb_.addr());
    second.echo(b"two");
    assert!(closed_without_data(lb_.addr()), "the one from before counts still");
    lb_.reload(&of(1).toml());
    first.echo(b"who is inside goes on");
    second.echo(b"both do");
    assert!(closed_without_data(lb_.addr()));
    lb_.reload(&of(0).toml());
    connect(lb_.addr()).echo(b"there is no limit");
}
