//! How long each side may take, and how long connections are kept.
//!
//! Each test sets one timeout short and all others long, so that it shows which one acted.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::http::{Backend, Wire, get, ok, scripted};
use crate::support::{Client, Ending, PATIENCE, Setup, wait_until};

const SHORT: Duration = Duration::from_millis(300);
/// Timers may be a tick early against our clock.
const AT_LEAST: Duration = Duration::from_millis(290);

const ONE: &str = "workers = 1\nshutdown_timeout = \"5s\"\n";

/// What the client reads to its end, and how long that took since `since`.
fn end(wire: &mut Wire, since: Instant, why: &str) -> String {
    let (rest, _) = wire.rest();
    let took = since.elapsed();
    assert!(took >= AT_LEAST, "{why}: over after {took:?}");
    assert!(took < PATIENCE / 3, "{why}: over only after {took:?}");
    String::from_utf8(rest).expect("text")
}

#[test]
fn a_head_that_does_not_come_is_a_408_and_nothing_when_nothing_came() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).listener("header_timeout = \"300ms\"\nidle_timeout = \"1h\"").start();
    let rows = [
        ("nothing", "", ""),
        ("a byte", "G", "HTTP/1.1 408 "),
        ("all but the last", "GET / HTTP/1.1\r\nHost: a\r\n\r", "HTTP/1.1 408 "),
    ];
    for (why, sent, begins) in rows {
        let since = Instant::now();
        let mut client = Wire::to(lb.addr());
        client.send(sent);
        let said = end(&mut client, since, why);
        assert!(said.starts_with(begins) && said.is_empty() == begins.is_empty(), "{why}: {said:?}");
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn bytes_that_trickle_do_not_put_the_header_timeout_off() {
    let lb = Setup::http(Backend::named("b").addr()).listener("header_timeout = \"300ms\"").start();
    let client = Wire::to(lb.addr());
    let since = Instant::now();
    let mut trickle = client.stream.try_clone().expect("a descriptor");
    client.stream.set_read_timeout(Some(Duration::from_millis(10))).expect("not zero");
    while client.stream.peek(&mut [0]).is_err() {
        assert!(since.elapsed() < PATIENCE, "it is never ended");
        let _ = trickle.write_all(b"G");
    }
    assert!(since.elapsed() >= AT_LEAST);
}

#[test]
fn a_connection_between_requests_ends_silently_after_idle_timeout() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).listener("idle_timeout = \"1s\"\nheader_timeout = \"1h\"").start();
    let mut client = Wire::to(lb.addr());
    // each request begins it anew
    for _ in 0..4 {
        assert_eq!(client.ask(get("/")).status(), 200);
        std::thread::sleep(SHORT);
    }
    let since = Instant::now();
    assert_eq!(client.ask(get("/")).status(), 200);
    assert_eq!(end(&mut client, since, "idle"), "");
    assert!(since.elapsed() >= Duration::from_millis(990));
}

#[test]
fn a_body_that_stalls_is_a_408() {
    let backend = scripted(|mut wire| {
        wire.head();
        wire.rest().0
    });
    let lb = Setup::http(backend.addr).listener("body_timeout = \"300ms\"").start();
    for (framing, part) in
        [("Content-Length: 100", "part"), ("Transfer-Encoding: chunked", "4\r\npart\r\n"), ("Content-Length: 1", "")]
    {
        let mut client = Wire::to(lb.addr());
        let since = Instant::now();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{part}"));
        let said = end(&mut client, since, framing);
        assert!(said.starts_with("HTTP/1.1 408 "), "{framing}: {said:?}");
        assert_eq!(String::from_utf8(backend.outcome()).expect("text"), part, "the backend sees it cut");
    }
}

#[test]
fn a_body_that_moves_may_take_long() {
    let backend = Backend::new(|_| ok("thanks"));
    let lb = Setup::http(backend.addr()).listener("body_timeout = \"600ms\"").start();
    let mut client = Wire::to(lb.addr());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(60));
        client.send("x");
    }
    assert_eq!(client.response().text(), "thanks");
}

#[test]
fn a_backend_that_does_not_read_the_body_is_a_504() {
    let (backend, _kept) = crate::support::Server::silent();
    let lb = Setup::http(backend.addr).listener("body_timeout = \"300ms\"").start();
    let mut client = Wire::to(lb.addr());
    let mut sender = client.stream.try_clone().expect("a descriptor");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    std::thread::scope(|scope| {
        scope.spawn(move || while sender.write_all(&[b'x'; 65_536]).is_ok() {});
        assert_eq!(client.response().status(), 504);
        let _ = client.stream.shutdown(std::net::Shutdown::Both);
    });
}

#[test]
fn request_timeout_bounds_the_whole() {
    let silent = scripted(|mut wire| {
        wire.head();
        wire.rest();
    });
    let lb = Setup::http(silent.addr).listener("request_timeout = \"300ms\"").start();
    let mut client = Wire::to(lb.addr());
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(end(&mut client, since, "no answer").starts_with("HTTP/1.1 504 "));
    let mut client = Wire::to(lb.addr());
    let since = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n");
    assert!(end(&mut client, since, "no body").starts_with("HTTP/1.1 408 "));
}

#[test]
fn request_timeout_cuts_an_answer_that_has_begun() {
    let endless = scripted(|mut wire| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while wire.try_send("1\r\nx\r\n") {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let lb = Setup::http(endless.addr).listener("request_timeout = \"300ms\"").start();
    let mut client = Wire::to(lb.addr());
    let since = Instant::now();
    client.send(get("/"));
    assert_eq!(client.head().status(), 200);
    let (rest, ending) = client.rest();
    assert!(since.elapsed() >= AT_LEAST && !rest.ends_with(b"0\r\n\r\n"));
    assert_eq!(ending, Ending::Reset);
    endless.outcome();
}

#[test]
fn an_idle_backend_connection_is_closed_after_keepalive_timeout() {
    let backend = scripted(|mut wire| {
        wire.request();
        wire.send(ok("served"));
        let since = Instant::now();
        assert_eq!(wire.rest(), (Vec::new(), Ending::Clean), "closed in good order");
        since.elapsed()
    });
    let lb = Setup::http(backend.addr).pool("keepalive_timeout = \"300ms\"").start();
    let mut client = Wire::to(lb.addr());
    assert_eq!(client.ask(get("/")).text(), "served");
    let kept = backend.outcome();
    assert!(kept >= AT_LEAST && kept < PATIENCE / 3, "kept for {kept:?}");
    assert_eq!(client.ask(get("/")).text(), "served", "by another one");
}

#[test]
fn keepalive_caps_what_is_kept_in_all_workers() {
    // all are asked at once, and nobody is answered before; so that each has a connection of its own
    const CLIENTS: usize = 10;
    for (keepalive, workers) in [(0, 1), (1, 1), (3, 2), (64, 2)] {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(CLIENTS));
        let backend = Backend::new(move |_| {
            barrier.wait();
            ok("served")
        });
        let lb = Setup::http(backend.addr())
            .global(&format!("workers = {workers}\n"))
            .pool(&format!("keepalive = {keepalive}\nkeepalive_timeout = \"1h\""))
            .start();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Wire::to(lb.addr())).collect();
        clients.iter_mut().for_each(|client| client.send(get("/")));
        clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "served"));
        assert_eq!(backend.accepted(), CLIENTS);
        let left = keepalive.min(CLIENTS);
        wait_until(&format!("{left} connections are kept"), || backend.open() == left);
        assert!(clients.iter().all(|client| client.stream.is_silent_for(Duration::from_millis(1))), "clients stay");
        assert_eq!(backend.open(), left);
    }
}

#[test]
fn a_slow_reader_is_not_cut_while_it_reads() {
    let content = crate::support::Pattern { seed: 91 }.bytes(0, 8_000_000);
    let sent = content.clone();
    let backend = Backend::new(move |_| ok(&sent));
    let lb = Setup::http(backend.addr())
        .global(ONE)
        .listener("header_timeout = \"300ms\"\nbody_timeout = \"300ms\"\nidle_timeout = \"300ms\"")
        .pool("response_timeout = \"300ms\"")
        .start();
    let mut client = Wire::to(lb.addr());
    client.send(get("/"));
    let head = client.head();
    // longer than every timeout, with the pipe full
    std::thread::sleep(Duration::from_millis(700));
    assert!(client.bytes(head.length().expect("a length")) == content);
    assert_eq!(client.ask(get("/")).status(), 200, "and goes on");
}

#[test]
fn a_second_head_that_came_in_part_has_the_header_timeout_too() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).listener("header_timeout = \"300ms\"\nidle_timeout = \"1h\"").start();
    for (why, at_once) in [("behind the first", true), ("after its answer", false)] {
        let mut client = Wire::to(lb.addr());
        let since = Instant::now();
        let part = "GET /second HT";
        if at_once {
            client.send(format!("{}{part}", get("/first")));
        } else {
            client.send(get("/first"));
        }
        assert_eq!(client.response().status(), 200);
        if !at_once {
            client.send(part);
        }
        let said = end(&mut client, since, why);
        assert!(said.starts_with("HTTP/1.1 408 "), "{why}: {said:?}");
    }
}
