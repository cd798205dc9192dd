//! Which backend gets what: by key, by load, by health; breakers and the queue.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::{Backend, Wire, ask, get, ok};
use crate::support::l4lb::command;
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{L4lb, PATIENCE, Server, Setup, connect, exchange, wait_until};

/// What `path` says, asked once, on a connection of its own.
fn said(addr: SocketAddr, path: &str) -> String {
    let answer = ask(addr, get(path));
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.text().to_owned()
}

fn three() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::named)
}

fn over(backends: &[Backend; 3], pool: &str) -> Setup {
    let setup = Setup { protocol: "http", ..Setup::new() }.pool(pool);
    backends.iter().fold(setup, |setup, backend| setup.backend(backend.addr()))
}

#[test]
fn a_key_goes_where_it_went_before() {
    let rows = [
        ("the uri, by default", "algorithm = \"consistent_hash\"", "", true),
        ("the path", "algorithm = \"maglev\"\nhash_key = \"path\"", "", true),
        ("a header", "algorithm = \"consistent_hash\"\nhash_key = \"header:X-Key\"", "X-Key: KEY\r\n", false),
        ("a cookie", "algorithm = \"maglev\"\nhash_key = \"cookie:sid\"", "Cookie: x=1; sid=KEY; y=2\r\n", false),
    ];
    for (why, pool, fields, by_path) in rows {
        let backends = three();
        let lb = over(&backends, pool).start();
        let go = |key: usize| {
            let path = if by_path { format!("/{key}") } else { "/".into() };
            let fields = fields.replace("KEY", &key.to_string());
            ask(lb.addr(), format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).text().to_owned()
        };
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for key in 0..60 {
            let first = go(key);
            assert_eq!(go(key), first, "{why}: key {key}");
            *shares.entry(first).or_default() += 1;
        }
        assert_eq!(shares.len(), 3, "{why}: {shares:?}");
    }
}

#[test]
fn a_client_goes_where_its_address_sends_it() {
    for algorithm in ["ip_hash", "consistent_hash", "maglev"] {
        let servers = ["a", "b", "c"].map(Server::named);
        let setup = Setup::new().pool(&format!("algorithm = \"{algorithm}\"\nhash_key = \"client_ip\""));
        let lb = servers.iter().fold(setup, |setup, server| setup.backend(server.addr)).start();
        let first = exchange(lb.addr(), b"");
        for _ in 0..10 {
            assert_eq!(exchange(lb.addr(), b""), first, "{algorithm}");
        }
    }
}

#[test]
fn the_least_loaded_gets_the_next() {
    let servers: [Server; 3] = std::array::from_fn(|_| Server::echo());
    let setup = Setup::new().pool("algorithm = \"least_connections\"");
    let lb = servers.iter().fold(setup, |setup, server| setup.backend(server.addr)).start();
    let mut clients = Vec::new();
    for round in 1..=4 {
        for _ in 0..3 {
            let mut client = connect(lb.addr());
            echoes(&mut client);
            clients.push(client);
        }
        for server in &servers {
            assert_eq!(server.open(), round, "in round {round}");
        }
    }
}

#[test]
fn a_backend_that_says_it_is_ill_gets_no_work_until_it_is_well() {
    let well = Arc::new(AtomicBool::new(true));
    let told = well.clone();
    let sick = Backend::new(move |request| match (request.head.target(), told.load(Ordering::SeqCst)) {
        ("/health", false) => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok("sick"),
    });
    let other = Backend::named("other");
    let check = "health_check = { kind = \"http\", interval = \"50ms\", timeout = \"2s\", rise = 2, fall = 2 }";
    let toml = Setup::http(sick.addr()).backend(other.addr()).toml();
    let toml = toml.replace("health_check = { kind = \"none\" }", check);
    let lb = L4lb::start(command(&[]), &toml);
    let hears = |name: &str| (0..4).any(|_| said(lb.addr(), "/") == name);
    assert!(hears("sick") && hears("other"), "both are up");
    well.store(false, Ordering::SeqCst);
    lb.wait_for_log("the backend is down", |line| line.contains("is down") && line.contains("503"));
    wait_until("it gets no work", || !hears("sick"));
    for _ in 0..20 {
        assert_eq!(said(lb.addr(), "/"), "other");
    }
    well.store(true, Ordering::SeqCst);
    wait_until("it works again", || hears("sick"));
}

/// How many of so many questions go to the first of three.
fn share(questions: usize, mut asks: impl FnMut() -> String) -> usize {
    (0..questions).filter(|_| asks() == "a").count()
}

#[test]
fn the_slow_one_of_three_gets_little_until_it_is_fast_again() {
    let slow = Arc::new(AtomicBool::new(true));
    let backends = ["a", "b", "c"].map(|name| {
        let slow = slow.clone();
        Backend::new(move |_| {
            let late = name == "a" && slow.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(if late { 50 } else { 10 }));
            ok(name)
        })
    });
    let lb = over(&backends, "algorithm = \"fastest_response\"").start();
    // Four clients at once: as little as that is in flight, it is what lets a slow one be tried again soon.
    let share_of_100 = || -> usize {
        thread::scope(|scope| {
            let ask_25 = || {
                let mut wire = Wire::to(lb.addr());
                share(25, || wire.ask(get("/")).text().to_owned())
            };
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask_25)).collect();
            clients.into_iter().map(|client| client.join().expect("all are answered")).sum()
        })
    };
    wait_until("each was tried", || share_of_100() < 100 && backends.iter().all(|one| one.accepted() > 0));
    wait_until("the slow one gets little", || share_of_100() < 12);
    slow.store(false, Ordering::SeqCst);
    wait_until("it has its share again", || share_of_100() >= 20);
}

#[test]
fn a_slow_server_of_datagrams_gets_little() {
    let [a, b, c] = [("a", 100), ("b", 5), ("c", 5)].map(|(name, late)| {
        UdpBackend::new(move |_| {
            thread::sleep(Duration::from_millis(late));
            Some(name.into())
        })
    });
    let setup = Setup::udp(a.addr).backend(b.addr).backend(c.addr);
    let lb = setup.pool("algorithm = \"fastest_response\"\nudp_responses = 1").start();
    let mut asks = || String::from_utf8(dial(lb.addr()).ask(b"?")).expect("a name");
    wait_until("each was tried", || share(5, &mut asks) < 5 && [&a, &b, &c].iter().all(|one| one.received() > 0));
    wait_until("the slow one gets little", || share(60, &mut asks) < 6);
}

#[test]
fn a_breaker_opens_and_tries_and_closes() {
    let works = Arc::new(AtomicBool::new(false));
    let (told, asked) = (works.clone(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let backend = Backend::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        match told.load(Ordering::SeqCst) {
            true => ok("fine"),
            false => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    });
    let breaker = "circuit_breaker = { failure_threshold = 3, success_threshold = 2, timeout = \"3s\" }";
    let lb = Setup::http(backend.addr()).pool(breaker).start();
    let status = || ask(lb.addr(), get("/")).status();
    assert_eq!([status(), status(), status()], [500; 3], "failures are passed on");
    assert_eq!([status(), status(), status()], [503; 3], "and then nobody asks any more");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    works.store(true, Ordering::SeqCst);
    wait_until("a trial is let through", || status() == 200);
    lb.wait_for_log("it is closed", |line| {
        // The second good trial closes it.
        status();
        line.contains("circuit breaker") && line.contains("closed")
    });
    assert_eq!([status(), status(), status()], [200; 3]);
}

#[test]
fn no_more_than_may_are_at_a_backend_and_the_others_wait_their_turn() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, top) = (now.clone(), most.clone());
    let backend = Backend::new(move |_| {
        top.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
        inside.fetch_sub(1, Ordering::SeqCst);
        ok("done")
    });
    let lb = Setup { protocol: "http", ..Setup::new() }
        .pool("queue = 1000\nqueue_timeout = \"20s\"")
        .backend_with(backend.addr(), "max_connections = 10")
        .start();
    let began = Instant::now();
    let failed: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let mut wire = Wire::to(lb.addr());
                    (0..5).filter(|_| wire.ask(get("/")).status() != 200).count()
                })
            })
            .collect();
        clients.into_iter().filter_map(|client| client.join().ok()).sum()
    });
    assert_eq!(failed, 0, "in {:?}", began.elapsed());
    let most = most.load(Ordering::SeqCst);
    assert!((5..=10).contains(&most), "{most} at once");
    assert_eq!(backend.take_seen().len(), 500);
}

#[test]
fn who_waits_too_long_or_finds_the_queue_full_is_told() {
    let (server, held) = Server::silent();
    let lb = Setup { protocol: "http", ..Setup::new() }
        .pool("queue = 1\nqueue_timeout = \"300ms\"")
        .backend_with(server.addr, "max_connections = 1")
        .start();
    let mut first = Wire::to(lb.addr());
    first.send(get("/"));
    wait_until("the backend is busy", || held.len() == 1);
    // One of these waits, and there is no room for the others.
    let mut answers: Vec<(u16, Duration)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..5)
            .map(|_| {
                scope.spawn(|| {
                    let began = Instant::now();
                    (Wire::to(lb.addr()).ask(get("/")).status(), began.elapsed())
                })
            })
            .collect();
        clients.into_iter().filter_map(|client| client.join().ok()).collect()
    });
    answers.sort_by_key(|(_, took)| *took);
    assert!(answers.iter().all(|(status, _)| *status == 503), "{answers:?}");
    assert!(answers[0].1 < Duration::from_millis(250), "nobody was sent away at once: {answers:?}");
    assert!(answers[4].1 >= Duration::from_millis(300), "nobody waited: {answers:?}");
    drop(first);
}

#[test]
fn a_tcp_client_waits_in_line_and_its_place_is_freed_when_it_leaves() {
    let server = Server::echo();
    let lb = Setup::new()
        .pool("queue = 1\nqueue_timeout = \"60s\"")
        .backend_with(server.addr, "max_connections = 1")
        .start();
    let mut first = connect(lb.addr());
    echoes(&mut first);
    let waiting = in_line(&lb);
    assert!(!waits(&mut connect(lb.addr())), "there is room for one");
    drop(waiting);
    // The place of the one that left is free.
    let mut next = in_line(&lb);
    next.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    drop(first);
    echoes(&mut next);
}

/// A client that waits; whoever comes while the line is full is closed, and tries again.
fn in_line(lb: &L4lb) -> TcpStream {
    let mut found = None;
    wait_until("there is room in the line", || {
        let mut client = connect(lb.addr());
        let waits = waits(&mut client);
        found = waits.then_some(client);
        waits
    });
    found.expect("it waits")
}

/// One that is refused is closed at once; one that waits hears nothing.
fn waits(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    matches!(client.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn echoes(client: &mut TcpStream) {
    client.write_all(b"hello").expect("it takes what is sent");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"hello");
}
